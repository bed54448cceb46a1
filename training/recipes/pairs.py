"""Preference pairs: read them, and decide in which order they are learnt from. Pure, no torch.

One pair per line of a JSONL file, in TRL's preference format with what the platform knows about it:

    {"prompt": [messages], "chosen": [message], "rejected": [message], "ranking": id, "weight": 1.0,
    "prompt_id": id}
"""

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.recipes.run_dir import RecipeError


@dataclass(frozen=True)
class Pair:
    """One completion preferred to another for the same prompt. `chosen` and `rejected` are lists of one message."""

    prompt: list[dict[str, str]]
    chosen: list[dict[str, str]]
    rejected: list[dict[str, str]]
    ranking: str
    weight: float
    prompt_id: str


def read_pairs(path: Path) -> list[Pair]:
    """All pairs of a file. Raises RecipeError naming file, line and field of the first bad one, or when there
    is none.
    """
    if not path.is_file():
        raise RecipeError(f"{path} is missing: config.json names it as data.")
    with path.open(encoding="utf-8") as file:
        pairs = [
            _read_pair(line, f"{path.name}, line {number}")
            for number, line in enumerate(file, 1)
            if line.strip()
        ]
    if not pairs:
        raise RecipeError(
            f"{path.name} holds no pairs. Collect judgments that prefer one completion to another first."
        )
    return pairs


def _read_pair(line: str, where: str) -> Pair:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise RecipeError(f"{where}: not JSON ({error}).") from None
    if not isinstance(row, dict):
        raise RecipeError(f"{where}: a pair must be an object.")
    for field in ("prompt", "chosen", "rejected"):
        if not are_messages(row.get(field)):
            raise RecipeError(
                f'{where}, {field}: give a list of messages, each {{"role": text, "content": text}}.'
            )
    if row["chosen"] == row["rejected"]:
        raise RecipeError(
            f"{where}: chosen and rejected are the same, nothing can be learnt. Leave the pair out."
        )
    weight = row.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        raise RecipeError(f"{where}, weight: {weight!r} is not a positive number.")
    prompt_id = str(row.get("prompt_id", json.dumps(row["prompt"])))
    ranking = str(row.get("ranking", prompt_id))
    return Pair(row["prompt"], row["chosen"], row["rejected"], ranking, float(weight), prompt_id)


def are_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in value)
        and all(isinstance(m.get("content"), str) for m in value)
    )


def training_order(pairs: Sequence[Pair], count: int, seed: int) -> list[int]:
    """Which pair comes at each of `count` places: passes over the rankings, each in a new random order.

    The pairs of a ranking stay side by side, hence in one batch unless its border cuts them: they share
    completions, and spread over batches each completion would be learnt from several times a pass, which
    over-fits (Ouyang et al. 2022, section 3.5). A ranking of weight 2 comes twice as often as one of weight
    1; equal weights come once a pass.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        members[pair.ranking].append(index)
    rankings = list(members)
    weights = [sum(pairs[i].weight for i in members[r]) / len(members[r]) for r in rankings]
    rng, order = random.Random(seed), []
    while len(order) < count:
        one_pass = systematic_sample(weights, len(rankings), rng.random())
        rng.shuffle(one_pass)
        for which in one_pass:
            shuffled = members[rankings[which]][:]
            rng.shuffle(shuffled)
            order += shuffled
    return order[:count]


def systematic_sample(weights: Sequence[float], count: int, offset: float) -> list[int]:
    """`count` indices drawn in proportion to `weights`: each comes floor or ceil of its due. `offset` is in [0, 1)."""
    total, passed, drawn = sum(weights), 0.0, []
    for index, weight in enumerate(weights):
        passed += weight
        while len(drawn) < count and (len(drawn) + offset) * total < passed * count:
            drawn.append(index)
    return drawn + [len(weights) - 1] * (count - len(drawn))  # rounding can leave the last one short
