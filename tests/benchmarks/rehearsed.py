"""Preferences of simulated annotators and policies measured by their hidden utility: what `bench learn` stands on.

Everything is made by the recipes themselves, each in a process of its own, and kept in a work folder: a bench that was
stopped goes on where it was.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from annotation.rehearsal.annotator import SimulatedAnnotator
from annotation.rehearsal.utility import utility
from tests.benchmarks.bench_generate import PROMPTS, ROOT
from training.preferences import outcome_lines, pair_lines, prompt_lines
from training.recipes.held_out import interval_by_cluster, outcomes

Messages = list[dict[str, str]]


def starter_prompts() -> list[Messages]:
    rows = [json.loads(line)["prompt"] for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    return [[{"role": "user", "content": row}] if isinstance(row, str) else row for row in rows]


def run_recipe(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Run a recipe in `folder` unless it has ended there; its result. A run that was stopped is resumed."""
    result = folder / "result.json"
    if not (result.is_file() and json.loads(result.read_text())["ok"]):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=1))
        with (folder / "log.txt").open("a") as log:
            command = [sys.executable, "-m", f"training.recipes.{config['method']}", str(folder)]
            environ = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
            code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, env=environ).returncode
        if code:
            sys.exit(f"{folder} ended with {code}:\n" + (folder / "log.txt").read_text()[-2000:])
    return json.loads(result.read_text())


def completions_of(
    folder: Path,
    base: Path,
    prompts: Sequence[Messages],
    *,
    adapters: dict[str, Path | None],
    samples: int,
    max_new_tokens: int,
    seed: int,
) -> dict[str, list[list[str]]]:
    """By name of the adapter, for each prompt its samples. `None` stands for the base itself."""
    config = {
        "method": "sampling",
        "base": str(base),
        "seed": seed,
        "contestants": [
            {
                "id": name,
                "adapter": str(adapter) if adapter else None,
                "decoding": {"max_new_tokens": max_new_tokens},
            }
            for name, adapter in adapters.items()
        ],
        "prompts": [{"id": str(number), "messages": messages} for number, messages in enumerate(prompts)],
        "samples": samples,
    }
    run_recipe(folder, config)
    found = {name: [[""] * samples for _ in prompts] for name in adapters}
    for line in (folder / "completions.jsonl").read_text(encoding="utf-8").split("\n"):
        if line:
            row = json.loads(line)
            found[row["contestant"]][int(row["prompt"])][row["sample"]] = row["text"]
    return found


def shown_text(messages: Messages) -> str:
    """A prompt as the simulated annotators read it."""
    return "\n\n".join(message["content"] for message in messages)


def judged_rows(
    prompts: Sequence[Messages],
    completions: Sequence[Sequence[str]],
    *,
    split: str,
    annotators: int,
    overlap: int,
) -> list[dict[str, Any]]:
    """Rows of a dataset, its texts in place of their digests: each prompt ranked by `overlap` of the annotators."""
    people = [SimulatedAnnotator(f"bench-{number}") for number in range(annotators)]
    rows = []
    for number, (messages, texts) in enumerate(zip(prompts, completions, strict=True)):
        for turn in range(overlap):
            person = people[(number * overlap + turn) % annotators]
            verdict = person.judge(shown_text(messages), texts)
            if verdict.outcome == "skip":
                continue
            ranks = verdict.ranks or [None] * len(texts)
            rows.append(
                {
                    "ranking": f"{split} {number} {turn}",
                    "comparison": f"{split} {number}",
                    "prompt": f"{split} {number}",
                    "split": split,
                    "outcome": verdict.outcome,
                    "strength": None,
                    "messages": [{"role": m["role"], "text": m["content"]} for m in messages],
                    "completions": [
                        {"completion": i, "text": text, "rank": rank}
                        for i, (text, rank) in enumerate(zip(texts, ranks, strict=True))
                    ],
                }
            )
    return rows


def write_data(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """`<form>-<split>.jsonl` for each form that recipes read."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {part["text"]: part["text"] for row in rows for part in [*row["messages"], *row["completions"]]}
    for form, lines in (("pairs", pair_lines), ("outcomes", outcome_lines), ("prompts", prompt_lines)):
        for split in ("train", "held_out"):
            with (folder / f"{form}-{split}.jsonl").open("w", encoding="utf-8") as file:
                for line in lines(rows, texts=texts, split=split):
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")


def win_rate(
    prompts: Sequence[Messages], policy: Sequence[Sequence[str]], parent: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """How often a policy's completion has the higher hidden utility than its parent's, over all pairs of samples.

    Ties count half; the interval resamples prompts.
    """
    wins, clusters = [], []
    for number, (messages, ours, theirs) in enumerate(zip(prompts, policy, parent, strict=True)):
        shown = shown_text(messages)
        a, b = ([utility(shown, text) for text in texts] for texts in (ours, theirs))
        wins += outcomes([x - y for x in a for y in b]).tolist()
        clusters += [str(number)] * (len(a) * len(b))
    low, high = interval_by_cluster(wins, clusters)
    words = [len(text.split()) for texts in policy for text in texts]
    return {
        "win_rate": float(np.mean(wins)),
        "interval": [low, high],
        "utility": mean_utility(prompts, policy),
        "mean_words": float(np.mean(words)),
    }


def measured(
    base: Path,
    adapter: Path | None,
    judge: Path,
    prompts: Sequence[Messages],
    *,
    max_new_tokens: int,
    seed: int,
) -> dict[str, Any]:
    """What a policy writes once to each prompt: its KL to the base in nats, reward by a reward model, length in tokens.

    `rewards` are those of each prompt.

    As the recipes that sample measure it, so that one that does not (DPO) can stand beside them.
    """
    from training.recipes import loading, rollouts
    from training.recipes.options import parse_options
    from training.recipes.prompts import Prompt
    from training.recipes.shared_base import SharedBase

    loading.be_quiet()
    options = parse_options("ppo", {"max_new_tokens": max_new_tokens})
    shared = SharedBase(base, loading.load_tokenizer(base), adapter, rank=16, alpha=32)
    reward = rollouts.open_reward({"reward_model": str(judge)}, options, shared, base)
    asked = [Prompt(messages, str(number)) for number, messages in enumerate(prompts)]
    made = rollouts.collect(shared, reward, asked, options, seed, ask=("log_probs",))
    for part in made.parts(range(len(made.rows)), options.micro_batch_size):
        rows = made.rows.select(part)
        with torch.no_grad(), shared.model.disable_adapter():
            made.reference[part, : rows.mask.shape[1]] = shared.log_probs(rows)
    described = made.describe()
    kl = ((made.log_probs - made.reference) * made.rows.mask).sum(dim=1).mean()
    return {
        "kl": float(kl),
        "reward": described["reward"],
        "rewards": made.rewards.tolist(),
        "mean_length": described["length"],
    }


def mean_utility(prompts: Sequence[Messages], completions: Sequence[Sequence[str]]) -> float:
    return float(
        np.mean(
            [
                utility(shown_text(messages), text)
                for messages, texts in zip(prompts, completions, strict=True)
                for text in texts
            ]
        )
    )
