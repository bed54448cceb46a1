"""What is wrong with rows before a training run, and how long they are. Pure: texts and token numbers in, findings out.

A *problem* forbids the launch; what is merely *cut* (truncated or dropped) must be accepted when it is more than one
row in a hundred; a *notice* is worth reading. Each problem is {"what", "remedy", "rows", "first"}: how many rows have
it, and which is the first.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.recipes.cutting import fate_of

Message = Mapping[str, str]
# More than this share of cut rows has to be accepted by whoever launches.
CUT_WITHOUT_ASKING = 0.01


@dataclass(frozen=True)
class Side:
    """One completion of a row as tokens, `prompt` of which come before it."""

    name: str
    text: str
    prompt: int
    ids: tuple[int, ...]
    is_marked: bool = (
        True  # whether the prompt's tokens begin it, so that the completion can be told from them
    )


@dataclass(frozen=True)
class Row:
    """One line of train.jsonl or held_out.jsonl: a pair has two sides, an answer one, a prompt to sample from none."""

    where: str
    messages: Sequence[Message]
    asked: Sequence[int]  # the prompt as tokens
    sides: tuple[Side, ...]
    ranking: str = ""
    comparison: str = ""
    weight: float = 1.0
    strength: int | None = None  # of a pair: how strongly it was preferred, where that was asked
    is_good: bool = True  # of a completion called good or bad

    @property
    def prompt(self) -> int:
        """Tokens of the prompt."""
        return len(self.asked)

    @property
    def longest(self) -> int:
        return max((len(side.ids) for side in self.sides), default=self.prompt)


@dataclass
class Found:
    """Rows by what is the matter with them."""

    problems: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    truncated: list[Row] = field(default_factory=list)
    dropped: list[Row] = field(default_factory=list)

    @property
    def cut(self) -> int:
        return len(self.truncated) + len(self.dropped)


# What is the matter with a row, and what to do about it. {max_length} and {room} are filled in.
PROBLEMS = {
    "empty": (
        "A completion is empty, so there is nothing to learn from it.",
        "Have the judgment withdrawn or revised and freeze a new dataset, or import the rows without it.",
    ),
    "cut_away": (
        "The prompt alone fills max_length = {max_length} tokens, so nothing of the completion is left.",
        "Raise max_length, or freeze a dataset without this round.",
    ),
    "equal": (
        "Chosen and rejected are the same tokens once they are cut to max_length = {max_length}.",
        "Raise max_length so that their difference is kept, or freeze a dataset without this round.",
    ),
    "room": (
        "The prompt has more than {room} tokens, so a completion of max_new_tokens would exceed max_length.",
        "Raise max_length, or lower max_new_tokens.",
    ),
    "unmarked": (
        "The chat template writes the prompt differently once an answer follows, so it cannot mark the completion.",
        "Use a base whose chat template leaves earlier turns as they are and begins an answer with its "
        "add_generation_prompt.",
    ),
}


def judge(method: str, rows: Iterable[Row], *, max_length: int, max_new_tokens: int = 0) -> Found:
    """Sort out rows as the recipe of `method` would: a reward model drops what is too long, others cut its end."""
    found = Found()
    for row in rows:
        fate = _fate(method, row, max_length, max_length - max_new_tokens)
        if fate in PROBLEMS:
            found.problems[fate].append(row)
        elif fate == "too_long":
            found.dropped.append(row)
        elif fate == "truncated":
            found.truncated.append(row)
    return found


def _fate(method: str, row: Row, max_length: int, room: int) -> str:
    if not row.sides:
        return "room" if row.prompt > room else "kept"
    texts, whole = [side.text for side in row.sides], method == "reward"
    fate = fate_of(texts, row.sides, max_length, whole=whole)
    is_marked = whole or fate == "empty" or all(side.is_marked for side in row.sides)
    return fate if is_marked else "unmarked"


def tell_problems(found: Found, *, max_length: int, max_new_tokens: int = 0) -> list[dict[str, Any]]:
    """The problems as the page shows them."""
    values = {"max_length": max_length, "room": max_length - max_new_tokens}
    return [
        problem(PROBLEMS[kind][0].format(**values), PROBLEMS[kind][1], rows=len(rows), first=rows[0].where)
        for kind, rows in found.problems.items()
    ]


def problem(what: str, remedy: str, *, rows: int = 0, first: str = "") -> dict[str, Any]:
    return {"what": what, "remedy": remedy, "rows": rows, "first": first}


def describe_split(rows: Sequence[Row], found: Found, *, max_length: int) -> dict[str, Any]:
    """Rows and tokens of one split, and what of them is cut, with the first row of each."""
    lengths = sorted(len(side.ids) for row in rows for side in row.sides) or sorted(
        row.prompt for row in rows
    )
    cut = {
        "truncated": (found.truncated, f"longer than max_length = {max_length} tokens: the end is cut off"),
        "dropped": (
            found.dropped,
            f"longer than max_length = {max_length} tokens: left out, as its end is scored",
        ),
    }
    return {
        "rows": len(rows),
        "tokens": sum(lengths),
        "mean": sum(lengths) / len(lengths) if lengths else 0.0,
        "p95": lengths[min(len(lengths) - 1, len(lengths) * 95 // 100)] if lengths else 0,
        "longest": lengths[-1] if lengths else 0,
        **{name: len(some) for name, (some, _) in cut.items()},
        "cut": [
            {"how": name, "why": why, "rows": len(some), "first": some[0].where}
            for name, (some, why) in cut.items()
            if some
        ],
    }


@dataclass(frozen=True)
class Learnt:
    """A prompt that the parent or the reward model of a run has learnt from."""

    where: str
    messages: Sequence[Message]


def leaked(train: Sequence[Row | Learnt], held_out: Sequence[Row]) -> list[tuple[str, Row | Learnt, Row]]:
    """(first user turn, where it is learnt from, a held-out row) for each prompt that is on both sides."""
    learnt = {first_turn(row.messages): row for row in reversed(train)}
    shared = {}
    for row in held_out:
        turn = first_turn(row.messages)
        if turn in learnt and turn not in shared:
            shared[turn] = (turn, learnt[turn], row)
    return list(shared.values())


def first_turn(messages: Sequence[Message]) -> str:
    """The first user turn as annotation.splits normalises it to decide the split: NFKC, lower case, single spaces."""
    text = next((m["content"] for m in messages if m["role"] == "user"), messages[0]["content"])
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())
