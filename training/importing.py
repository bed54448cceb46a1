"""Reading preference pairs and answers from a JSONL file. Pure: bytes in, rows or errors out; nothing is saved here."""

import math
from dataclasses import dataclass
from typing import Any

from annotation.importing import (
    FieldError,
    ImportErrors,
    asks_to_hold_out,
    check_fields,
    checked_messages,
    checked_rows,
    decoded,
    jsonl_records,
    unkept,
)

PAIR, ANSWER = ("chosen", "rejected"), ("completion",)
FIELDS = ("prompt", *PAIR, *ANSWER, "strength", "weight", "split")


@dataclass(frozen=True)
class ImportedRow:
    """One row of a file, checked: of a pair the `texts` are chosen and rejected, of an answer it is that alone."""

    line: int
    messages: list[dict[str, str]]
    texts: tuple[str, ...]
    strength: int | None
    weight: float
    held_out: bool

    @property
    def is_pair(self) -> bool:
        return len(self.texts) == len(PAIR)


def read_dataset(content: bytes, *, file: str) -> list[ImportedRow]:
    """Every row of a file. Each has `prompt` (a text or messages), and `chosen` with `rejected`, or `completion`.

    Those are texts, or as TRL writes them a list of one assistant message. A pair may have `strength` (1 to 3), both
    `weight` (how often it is taken beside others, 1 by default) and `split` (only `held_out`). Raises ImportErrors.
    """
    if file.lower().endswith(".csv"):
        raise ImportErrors(
            [f"{file}: CSV can't hold conversations. Save it as JSONL, one JSON object a line."]
        )
    return checked_rows(jsonl_records(decoded(content, file=file)), _row, file=file)


def _row(line: int, record: Any) -> ImportedRow:
    check_fields(record, FIELDS)
    given = {name for name in (*PAIR, *ANSWER) if name in record}
    if given not in (set(PAIR), set(ANSWER)):
        raise FieldError("row", "give `chosen` and `rejected`, or `completion`, and not both kinds")
    if "prompt" not in record:
        raise FieldError("prompt", "missing")
    names = PAIR if given == set(PAIR) else ANSWER
    texts = tuple(_answer(name, record[name]) for name in names)
    if len(texts) == len(PAIR) and texts[0].strip() == texts[1].strip():
        raise FieldError(
            "rejected", "is the same text as `chosen`, so nothing can be learned. Leave the row out."
        )
    return ImportedRow(
        line=line,
        messages=checked_messages(record["prompt"]),
        texts=texts,
        strength=_strength(record, names),
        weight=_weight(record.get("weight", 1.0)),
        held_out=asks_to_hold_out(record),
    )


def _answer(name: str, value: Any) -> str:
    if isinstance(value, list):
        if len(value) != 1 or not isinstance(value[0], dict) or value[0].get("role") != "assistant":
            raise FieldError(name, "expected a text, or a list of one message of the assistant")
        value = value[0].get("content")
    if not isinstance(value, str) or not value.strip():
        raise FieldError(name, "empty or not a text")
    if (reason := unkept(value)) is not None:
        raise FieldError(name, reason)
    return value


def _strength(record: dict[str, Any], names: tuple[str, ...]) -> int | None:
    strength = record.get("strength")
    if strength is None:
        return None
    if names != PAIR:
        raise FieldError("strength", "belongs to a pair: it says how much better `chosen` is")
    if type(strength) is not int or not 1 <= strength <= 3:
        raise FieldError("strength", "expected 1, 2 or 3")
    return strength


def _weight(weight: Any) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise FieldError("weight", "expected a positive number")
    return float(weight)
