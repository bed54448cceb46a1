"""Single completions: written answers to imitate, and completions called good or bad. Pure, no torch.

One per line of a JSONL file, in TRL's prompt and completion form with what the platform knows about it:

    {"prompt": [messages], "completion": [message], "ranking": id, "weight": 1.0, "prompt_id": id}

and for completions called good (true) or bad also "label".
"""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.recipes.pairs import one_pass, origin, read_lines, refuse_fields_that_are_no_messages
from training.recipes.run_dir import RecipeError


@dataclass(frozen=True)
class Answer:
    """One completion of a prompt. `completion` is a list of one message."""

    prompt: list[dict[str, str]]
    completion: list[dict[str, str]]
    ranking: str
    weight: float
    prompt_id: str
    is_good: bool = True
    where: str = field(default="", compare=False)  # file and line, for errors

    @property
    def texts(self) -> tuple[str]:
        return (self.completion[-1]["content"],)


def read_answers(path: Path) -> list[Answer]:
    """Written answers to imitate. Raises RecipeError naming file, line and field of the first bad one, or when there
    is none.
    """

    def read(row: dict[str, Any], where: str) -> Answer:
        answer = _read(row, where)
        if not answer.texts[0].strip():
            raise RecipeError(f"{where}, completion: the answer is empty. Leave it out of the dataset.")
        return answer

    answers = read_lines(path, read)
    if not answers:
        raise RecipeError(f"{path.name} holds no written answers. Write and approve some first.")
    return answers


def read_outcomes(path: Path) -> list[Answer]:
    """Completions called good or bad. Raises RecipeError naming file, line and field of the first bad one, or when
    there is none.
    """

    def read(row: dict[str, Any], where: str) -> Answer:
        if not isinstance(row.get("label"), bool):
            raise RecipeError(f"{where}, label: {row.get('label')!r} is neither true (good) nor false (bad).")
        return _read(row, where, is_good=row["label"])

    outcomes = read_lines(path, read)
    if not outcomes:
        raise RecipeError(f"{path.name} holds no completions called good or bad. Rank more first.")
    return outcomes


def refuse_one_class(good: Iterable[bool], name: str) -> None:
    """Raise RecipeError when all completions of a file are called good, or all bad: then there is nothing to tell
    apart.
    """
    called = list(good)
    if len(set(called)) == 1:
        had, missing = ("good", "bad") if called[0] else ("bad", "good")
        raise RecipeError(
            f"All {len(called)} completions in {name} are called {had}, none {missing}, and KTO learns from the "
            "difference. Rank more, or imitate good answers by SFT."
        )


def answer_order(answers: Sequence[Answer], count: int, seed: int) -> list[int]:
    """Which answer comes at each of `count` places: passes over all of them, each in a new random order.

    One of weight 2 comes twice as often as one of weight 1.
    """
    rng, order = random.Random(seed), []
    while len(order) < count:
        order += one_pass([answer.weight for answer in answers], rng)
    return order[:count]


def put_to_other_prompts(answers: Sequence[Answer], together: int) -> list[int]:
    """For each place, the place whose completion is put to its prompt, to see how far the policy has moved on text
    that does not belong there.

    As in TRL the completions of each `together` places, here those of a step, are turned round by one; by more where
    that puts fewer of them to a prompt of their own.
    """
    prompts = [json.dumps(answer.prompt) for answer in answers]
    partners: list[int] = []
    for start in range(0, len(answers), together):
        part = prompts[start : start + together]
        turn = _best_turn(part)
        partners += [start + (place - turn) % len(part) for place in range(len(part))]
    return partners


def _best_turn(prompts: Sequence[str]) -> int:
    best, fewest = 0, len(prompts)
    for turn in range(1, len(prompts)):
        at_home = sum(prompts[place] == prompts[place - turn] for place in range(len(prompts)))
        if at_home < fewest or best == 0:
            best, fewest = turn, at_home
        if fewest == 0:
            break
    return best


def _read(row: dict[str, Any], where: str, is_good: bool = True) -> Answer:
    refuse_fields_that_are_no_messages(row, ("prompt", "completion"), where)
    return Answer(row["prompt"], row["completion"], is_good=is_good, where=where, **origin(row, where))
