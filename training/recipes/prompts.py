"""Prompts to learn from by sampling: read them, and decide which come at each step. Pure, no torch.

One prompt per line of a JSONL file: {"prompt": [messages], "prompt_id": id}
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from training.recipes.pairs import are_messages
from training.recipes.run_dir import RecipeError


@dataclass(frozen=True)
class Prompt:
    """A conversation that the policy is to answer."""

    messages: list[dict[str, str]]
    prompt_id: str


def read_prompts(path: Path) -> list[Prompt]:
    """All prompts of a file. Raises RecipeError naming line and field of the first bad one, or when there is none."""
    if not path.is_file():
        raise RecipeError(f"{path} is missing: config.json names it as data.")
    prompts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RecipeError(f"{path.name}, line {number}: not JSON ({error}).") from None
        if not isinstance(row, dict) or not are_messages(row.get("prompt")):
            raise RecipeError(
                f'{path.name}, line {number}, prompt: give a list of messages, each {{"role": text, "content": text}}.'
            )
        prompts.append(Prompt(row["prompt"], str(row.get("prompt_id", number))))
    if not prompts:
        raise RecipeError(f"{path.name} holds no prompts.")
    return prompts


def prompt_order(prompts: int, count: int, seed: int) -> list[int]:
    """Which prompt comes at each of `count` places: passes over all of them, each in a new random order."""
    rng, order = random.Random(seed), []
    while len(order) < count:
        one_pass = list(range(prompts))
        rng.shuffle(one_pass)
        order += one_pass
    return order[:count]
