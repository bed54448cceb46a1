"""Prompts to learn from by sampling: read them, and decide which come at each step. Pure, no torch.

One prompt per line of a JSONL file: {"prompt": [messages], "prompt_id": id}
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.recipes.pairs import are_messages, read_lines
from training.recipes.run_dir import RecipeError


@dataclass(frozen=True)
class Prompt:
    """A conversation that the policy is to answer."""

    messages: list[dict[str, str]]
    prompt_id: str


def read_prompts(path: Path) -> list[Prompt]:
    """All prompts of a file. Raises RecipeError naming line and field of the first bad one, or when there is none."""
    prompts = read_lines(path, _read_prompt)
    if not prompts:
        raise RecipeError(f"{path.name} holds no prompts.")
    return prompts


def _read_prompt(row: dict[str, Any], where: str) -> Prompt:
    if not are_messages(row.get("prompt")):
        raise RecipeError(
            f'{where}, prompt: give a list of messages, each {{"role": text, "content": text}}.'
        )
    return Prompt(row["prompt"], str(row.get("prompt_id", where)))


def prompt_order(prompts: int, count: int, seed: int) -> list[int]:
    """Which prompt comes at each of `count` places: passes over all of them, each in a new random order."""
    rng, order = random.Random(seed), []
    while len(order) < count:
        one_pass = list(range(prompts))
        rng.shuffle(one_pass)
        order += one_pass
    return order[:count]
