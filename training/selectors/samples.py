"""What the policy of a run wrote to held-out prompts, evaluation after evaluation."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotation.rendering import safe_html
from training.models import TrainingRun
from training.worker import attempt_folder

MOST_BYTES = 64 * 2**20  # of a file that are read; those of a run are far smaller


@dataclass(frozen=True)
class Sample:
    """One completion, and the reward that it was given."""

    text: str
    reward: float

    @property
    def html(self) -> str:
        """As annotators would see it."""
        return safe_html(self.text)


@dataclass(frozen=True)
class Answered:
    """A held-out prompt, and what was written to it by the steps of the evaluations."""

    prompt_id: str
    prompt: list[dict[str, str]]
    samples: dict[int, Sample] = field(default_factory=dict)


def samples_of(run: TrainingRun) -> list[Answered]:
    """What the latest attempt's evaluations wrote, in the order of the held-out prompts.

    Empty for a run without a reward, before the first evaluation, and where the folder lies on another host.
    """
    folder = attempt_folder(run)
    answered = {
        str(line["prompt_id"]): Answered(str(line["prompt_id"]), line["prompt"])
        for line in _lines(folder / "held_out.jsonl")
        if "prompt_id" in line and "prompt" in line
    }
    for line in _lines(folder / "samples.jsonl"):
        if line["prompt_id"] in answered:
            answered[line["prompt_id"]].samples[line["step"]] = Sample(line["text"], line["reward"])
    return [one for one in answered.values() if one.samples]


def steps_of(answered: list[Answered]) -> list[int]:
    """The steps at which the policy was evaluated, in ascending order."""
    return sorted({step for one in answered for step in one.samples})


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of JSON lines; one that is being written is left out."""
    try:
        with file.open("rb") as opened:
            whole = opened.read(MOST_BYTES).rpartition(b"\n")[0]
    except FileNotFoundError:
        return
    for line in whole.split(b"\n"):
        if line:
            yield json.loads(line)
