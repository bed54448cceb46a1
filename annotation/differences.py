"""What changed between two texts, word by word. Pure.

Lines are matched first and words within the lines that changed: that is quicker on long texts and keeps paragraphs
apart. Work is bounded: a stretch too large to be matched is told as taken out and put in whole.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape
from typing import Literal

# Matching takes time with the product of both lengths: 2,000 words against 2,000 take well under a second.
MOST_PAIRS = 4_000_000
_WORD = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True)
class Part:
    """A stretch of text that both have, or that only the old (del) or only the new text (ins) has."""

    kind: Literal["equal", "del", "ins"]
    text: str


def differences(old: str, new: str) -> list[Part]:
    """Parts in reading order: `equal` and `del` joined are the old text, `equal` and `ins` the new one."""
    parts: list[Part] = []
    for before, after in _joined(_by_lines(old, new)):
        if before == after:
            parts.append(Part("equal", before))
            continue
        if before:
            parts.append(Part("del", before))
        if after:
            parts.append(Part("ins", after))
    return parts


def changes_html(old: str, new: str) -> str:
    """The same as HTML: everything escaped, `<del>` and `<ins>` around what changed. Line breaks stay in it."""
    marked = {"equal": "{}", "del": "<del>{}</del>", "ins": "<ins>{}</ins>"}
    return "".join(marked[part.kind].format(escape(part.text)) for part in differences(old, new))


def _by_lines(old: str, new: str) -> Iterator[tuple[str, str]]:
    for before, after in _matched(old.splitlines(keepends=True), new.splitlines(keepends=True)):
        if before == after:
            yield before, after
        else:
            yield from _matched(_WORD.findall(before), _WORD.findall(after))


def _matched(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of what stands in the old and in the new sequence, joined; equal where they match."""
    start = end = 0
    if len(old) * len(new) > MOST_PAIRS:
        start = _common(old, new)
        end = _common(old[start:][::-1], new[start:][::-1])
    a, b = old[start : len(old) - end], new[start : len(new) - end]
    yield "".join(old[:start]), "".join(new[:start])
    if len(a) * len(b) > MOST_PAIRS:
        yield "".join(a), "".join(b)
    else:
        for _, a1, a2, b1, b2 in SequenceMatcher(None, a, b).get_opcodes():
            yield "".join(a[a1:a2]), "".join(b[b1:b2])
    yield "".join(old[len(old) - end :]), "".join(new[len(new) - end :])


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """How many words both begin with."""
    both = min(len(a), len(b))
    return next((index for index in range(both) if a[index] != b[index]), both)


def _joined(pairs: Iterator[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbours of one kind become one; a space alone between two changes is read with them."""
    joined: list[tuple[str, str]] = []
    for before, after in pairs:
        same = before == after
        if same and not before:
            continue
        if joined and (joined[-1][0] == joined[-1][1]) == same:
            joined[-1] = (joined[-1][0] + before, joined[-1][1] + after)
        elif not same and len(joined) > 1 and _is_gap(joined[-1][0]):
            gap, _ = joined.pop()
            joined[-1] = (joined[-1][0] + gap + before, joined[-1][1] + gap + after)
        else:
            joined.append((before, after))
    return joined


def _is_gap(text: str) -> bool:
    return text.isspace() and "\n" not in text
