"""Masking phrases that tell who wrote a completion, such as a model naming itself. Pure."""

import re
from collections.abc import Sequence
from functools import lru_cache

MASK = "[masked]"
# What may stand between two letters without a reader noticing: zero-width characters, soft hyphens, emphasis.
_BETWEEN = "[\u200b\u200c\u200d\u2060\ufeff\u00ad*_`~]*"


@lru_cache(maxsize=256)
def _pattern(phrases: tuple[str, ...]) -> re.Pattern[str] | None:
    """One expression for all phrases, the longest first; None for none."""
    wanted = sorted({" ".join(phrase.split()) for phrase in phrases} - {""}, key=len, reverse=True)
    if not wanted:
        return None
    return re.compile("|".join(_loose(phrase) for phrase in wanted), re.IGNORECASE)


def _loose(phrase: str) -> str:
    """The phrase as words of their own, in any case and spacing, with the version that may follow: SmolLM2-135M."""
    letters = [r"\s+" if letter == " " else re.escape(letter) for letter in phrase]
    starts = r"(?<!\w)" if phrase[0].isalnum() else ""
    ends = r"(?:-?\d(?:[\w.\-]*\w)?)?(?![^\W\d_])" if phrase[-1].isalnum() else ""
    return starts + _BETWEEN.join(letters) + ends


def mask(text: str, phrases: Sequence[str]) -> tuple[str, bool]:
    """The text with each phrase masked, and whether there was any."""
    pattern = _pattern(tuple(phrases))
    if pattern is None:
        return text, False
    masked, count = pattern.subn(MASK, text)
    return masked, count > 0
