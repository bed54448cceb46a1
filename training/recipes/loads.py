"""How much a run computes: the rows of its parts and steps in the order of training, and those of its evaluations.

What `estimates` turns into memory and time. Lengths are tokens of the rows as the recipe would cut them.
"""

import random
from collections.abc import Sequence
from typing import Any

import torch

from training.recipes import estimates
from training.recipes.beginnings import find_beginnings
from training.recipes.estimates import Load, Machine
from training.recipes.findings import Row
from training.recipes.judging import MOST_PROMPTS
from training.recipes.options import METHODS, computed_together
from training.recipes.options_from_samples import SAMPLED_TOGETHER
from training.recipes.pairs import Pair, training_order
from training.recipes.prompts import prompt_order
from training.recipes.rollouts import BEST_OF

STEPS_LOOKED_AT = 200  # of the order of training, to find its largest part

# Of each side of a row: its ids, how many of them are computed, and those of its completion.
Lengths = list[tuple[tuple[int, ...], int, int]]


def order_of(method: str, options: dict[str, Any], train: Sequence[Row], seed: int) -> list[int]:
    """The order in which training takes the rows, as far as it is looked at."""
    batch, steps = options["batch_size"], min(options["steps"], STEPS_LOOKED_AT)
    if METHODS[method].reads != "pairs":
        return prompt_order(len(train), steps * batch, seed)
    pairs = [Pair([], [], [], row.ranking, row.weight, "", row.comparison) for row in train]
    return training_order(pairs, steps, batch, seed)


def answered(held_out: Sequence[Row], options: dict[str, Any]) -> list[int]:
    """How many tokens each held-out prompt that is answered for a reward model to judge has with its answer."""
    new = options["judged_tokens"]
    lengths = [len(prompt) + new for prompt in dict.fromkeys(tuple(row.asked) for row in held_out)]
    return [length for length in lengths if length <= options["max_length"]][:MOST_PROMPTS]


def load_of(
    method: str,
    options: dict[str, Any],
    kept: dict[str, list[Row]],
    judged: list[int],
    order: Sequence[int],
    machine: Machine,
) -> Load:
    """How much is computed together, and in a step, in the `order` that training takes the rows.

    `judged` are the lengths of rows that are written for a reward model to measure (`answered`). On a CPU, what rows
    begin with alike is computed once (beginnings.py).
    """
    batch, samples = options["batch_size"], METHODS[method].samples
    part = computed_together(method, options)
    groups = []
    for start in range(0, len(order), batch):
        of_step = [kept["train"][i] for i in order[start : start + batch]]
        if method == "ppo":  # in parts of like length: rollouts.Rollouts.parts
            of_step.sort(key=lambda row: row.prompt)
        elif samples:  # TRL shuffles the completions of some prompts
            size = options["group_size"]
            of_step = [row for row in of_step[: batch // size] for _ in range(size)]
            random.Random(start).shuffle(of_step)
        groups += [_together(of_step[at : at + part], options) for at in range(0, len(of_step), part)]
    shares = machine.kind == "cpu"
    computed = [_computed(group, shares, 1 if method == "reward" else None) for group in groups]
    together, largest = max(zip(computed, groups, strict=True), key=lambda one: one[0])
    held = sorted((tokens, new) for _, tokens, new in _together(kept["held_out"], options))
    last = held[-estimates.EVALUATED_TOGETHER :]
    longest = max(tokens for _, tokens, _ in largest)
    written = [longest] * batch if samples else judged
    sampled = min(SAMPLED_TOGETHER * options["micro_batch_size"], len(written))
    # Of the policy that wrote them, and its parent, each token's probability is asked.
    written_together = (
        min(options["micro_batch_size"], len(judged)) * options["judged_tokens"] if judged else 0
    )
    return Load(
        together=together,
        completions_together=max(sum(new for _, _, new in group) for group in groups),
        row=longest,
        step=sum(computed) * batch / len(order),
        held_out=len(last) * max(tokens for tokens, _ in last),
        held_out_completions=max(sum(new for _, new in last), written_together),
        rows_held_out=len(held) + len(judged),
        rows_of_parent=BEST_OF * (len(held) if samples else len(judged)),
        sampled=sampled * max(written, default=0),
        rows_sampled=sampled,
    )


def _computed(group: Lengths, shares: bool, asked: int | None) -> int:
    """Tokens, with padding, that are computed for sides in one pass. `asked`: of how many the model's answer is read
    at the end, by default those of the completion.
    """
    longest = max(tokens for _, tokens, _ in group)
    if not shares:
        return len(group) * longest
    ids = torch.tensor([[*ids[:tokens], *[0] * (longest - tokens)] for ids, tokens, _ in group])
    attention = torch.tensor([[1] * tokens + [0] * (longest - tokens) for _, tokens, _ in group])
    wanted = torch.tensor([tokens - (new + 1 if asked is None else asked) for _, tokens, new in group])
    found = find_beginnings(ids, attention, wanted)
    return found.tokens if found else len(group) * longest


def _lengths(row: Row, options: dict[str, Any], place: int) -> Lengths:
    if not row.sides:  # a completion that is to be sampled is like no other
        new = options["max_new_tokens"]
        return [((*row.asked, *[-2 - place] * new), row.prompt + new, new)]
    most = options["max_length"]
    return [
        (side.ids, min(len(side.ids), most), min(len(side.ids), most) - side.prompt) for side in row.sides
    ]


def _together(rows: Sequence[Row], options: dict[str, Any]) -> Lengths:
    """What is computed for some rows: a completion that several pairs hold, once."""
    sides = [side for place, row in enumerate(rows) for side in _lengths(row, options, place)]
    pairs = len(rows[0].sides) == 2
    return list({side[0] if pairs else place: side for place, side in enumerate(sides)}.values())
