"""Preference pairs: read them, and decide in which order they are learnt from. Pure, no torch.

One pair per line of a JSONL file, in TRL's preference format with what the platform knows about it:

    {"prompt": [messages], "chosen": [message], "rejected": [message], "ranking": id, "comparison": id,
    "weight": 1.0, "prompt_id": id, "strength": 1, 2, 3 or null}

A comparison is a prompt with the completions that were shown together; a ranking is what one annotator made of it.
"""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, TypeVar

from training.recipes.run_dir import RecipeError

STRENGTHS = (1, 2, 3)  # slight, clear, strong
LOOK_AHEAD = 4  # batches among whose rankings those of the next one are found
LONGEST_WAIT = 5  # batches after which the ranking whose turn it is comes, though another is cut for it
T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """One completion preferred to another for the same prompt. `chosen` and `rejected` are lists of one message."""

    prompt: list[dict[str, str]]
    chosen: list[dict[str, str]]
    rejected: list[dict[str, str]]
    ranking: str
    weight: float
    prompt_id: str
    comparison: str = ""  # of a ranking that names none, it is its own
    strength: int | None = None  # how strongly it was preferred, where annotators were asked
    where: str = field(default="", compare=False)  # file and line, for errors

    @property
    def texts(self) -> tuple[str, str]:
        return self.chosen[-1]["content"], self.rejected[-1]["content"]


def read_pairs(path: Path) -> list[Pair]:
    """All pairs of a file. Raises RecipeError naming file, line and field of the first bad one, or when there
    is none.
    """
    pairs = read_lines(path, _read_pair)
    if not pairs:
        raise RecipeError(
            f"{path.name} holds no pairs. Collect judgments that prefer one completion to another first."
        )
    return pairs


def read_lines(path: Path, read: Callable[[dict[str, Any], str], T]) -> list[T]:
    """What `read` makes of each line, given its object and where it stands. Raises RecipeError naming a bad line."""
    if not path.is_file():
        raise RecipeError(f"{path} is missing: config.json names it as data.")
    with path.open(encoding="utf-8") as file:
        return [
            read(_object(line, f"{path.name}, line {number}"), f"{path.name}, line {number}")
            for number, line in enumerate(file, 1)
            if line.strip()
        ]


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise RecipeError(f"{where}: not JSON ({error}).") from None
    if not isinstance(row, dict):
        raise RecipeError(f"{where}: give an object.")
    return row


def _read_pair(row: dict[str, Any], where: str) -> Pair:
    refuse_fields_that_are_no_messages(row, ("prompt", "chosen", "rejected"), where)
    if row["chosen"] == row["rejected"]:
        raise RecipeError(
            f"{where}: chosen and rejected are the same, nothing can be learnt. Leave the pair out."
        )
    strength = row.get("strength")
    if strength is not None and (isinstance(strength, bool) or strength not in STRENGTHS):
        raise RecipeError(f"{where}, strength: {strength!r} is none of 1, 2, 3 and null.")
    return Pair(
        row["prompt"],
        row["chosen"],
        row["rejected"],
        comparison=str(row.get("comparison", "")),
        strength=strength,
        where=where,
        **origin(row, where),
    )


def refuse_fields_that_are_no_messages(row: dict[str, Any], fields: Sequence[str], where: str) -> None:
    for name in fields:
        if not are_messages(row.get(name)):
            raise RecipeError(
                f'{where}, {name}: give a list of messages, each {{"role": text, "content": text}}.'
            )


def origin(row: dict[str, Any], where: str) -> dict[str, Any]:
    """Prompt, ranking and weight of a line. Without them each prompt is a ranking of its own, and all weigh alike."""
    weight = row.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        raise RecipeError(f"{where}, weight: {weight!r} is not a positive number.")
    prompt_id = str(row.get("prompt_id", json.dumps(row["prompt"])))
    return {
        "prompt_id": prompt_id,
        "ranking": str(row.get("ranking", prompt_id)),
        "weight": float(weight),
    }


def are_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in value)
        and all(isinstance(m.get("content"), str) for m in value)
    )


def training_order(pairs: Sequence[Pair], steps: int, batch_size: int, seed: int) -> list[int]:
    """Which pair comes at each of steps * batch_size places: passes over the comparisons, each in a new random order.

    The pairs of a ranking come in one batch, side by side, and the rankings of a comparison too where they fit: they
    share completions, and spread over batches each completion would be computed and learnt from several times a pass,
    which over-fits (Ouyang et al. 2022, section 3.5). A ranking of weight 2 comes twice as often as one of weight 1,
    also of the same comparison; equal weights come once a pass.
    """
    rankings: dict[str, list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        rankings[pair.ranking].append(index)
    together: dict[tuple[str, float], list[list[int]]] = defaultdict(list)
    for members in rankings.values():
        weight = sum(pairs[i].weight for i in members) / len(members)
        first = pairs[members[0]]
        together[first.comparison or first.ranking, weight].append(members)
    groups, weights = list(together.values()), [weight for _, weight in together]
    rng = random.Random(seed)

    def passes() -> Iterator[list[int]]:
        while True:
            for which in one_pass(weights, rng):
                for members in rng.sample(groups[which], len(groups[which])):
                    yield rng.sample(members, len(members))

    order: list[int] = []
    coming, near, waited = passes(), [], 0
    for _ in range(steps):
        missing = LOOK_AHEAD * batch_size - sum(map(len, near))
        while missing > 0:
            near.append(next(coming))
            missing -= len(near[-1])
        first = near[0]
        batch, near = take_batch(near, batch_size, in_turn=waited == LONGEST_WAIT)
        # The ranking whose turn it is may fit into no whole batch, or seldom.
        waited = waited + 1 if near and near[0] == first else 0
        order += batch
    return order


def take_batch(
    near: Sequence[list[int]], batch_size: int, *, in_turn: bool = False
) -> tuple[list[int], list[list[int]]]:
    """The next `batch_size` pairs, out of the rankings whose turn is near, and those rankings that are left.

    Whole rankings: the earliest that fill the batch exactly. Where none do, for their sizes may not allow it, or they
    are to come strictly `in_turn`, a ranking is cut at the border.
    """
    totals = list(accumulate(map(len, near)))
    if batch_size in totals:  # the first in turn fill it
        count = totals.index(batch_size) + 1
        return list(chain(*near[:count])), list(near[count:])
    # Bit n of sums[-1 - i] is set where some of the rankings from the i-th on hold n pairs together.
    sums = [1]
    for ranking in reversed(near):
        sums.append(sums[-1] | sums[-1] << len(ranking))
    exact = not in_turn and sums[-1] >> batch_size & 1
    batch: list[int] = []
    left: list[list[int]] = []
    for place, ranking in enumerate(near):
        room = batch_size - len(batch)
        if not exact:
            taken = room
        else:
            after = room - len(ranking)
            taken = len(ranking) if after >= 0 and sums[-2 - place] >> after & 1 else 0
        batch += ranking[:taken]
        left += [ranking[taken:]] if ranking[taken:] else []
    return batch, left


def one_pass(weights: Sequence[float], rng: random.Random) -> list[int]:
    """As many indices as there are weights, in a random order: each once where weights are equal."""
    drawn = systematic_sample(weights, len(weights), rng.random())
    rng.shuffle(drawn)
    return drawn


def systematic_sample(weights: Sequence[float], count: int, offset: float) -> list[int]:
    """`count` indices drawn in proportion to `weights`: each comes floor or ceil of its due. `offset` is in [0, 1)."""
    total, passed, drawn = sum(weights), 0.0, []
    for index, weight in enumerate(weights):
        passed += weight
        while len(drawn) < count and (len(drawn) + offset) * total < passed * count:
            drawn.append(index)
    return drawn + [len(weights) - 1] * (count - len(drawn))  # rounding can leave the last one short
