"""Judgments in a few words, by the positions their annotator saw. Pure."""

from collections.abc import Sequence

PAIR = "AB"
_BY_STRENGTH = {1: ", slightly", 3: ", significantly"}


def label_of(position: int, *, of: int) -> str:
    """What the ranking page calls the completion at a position (1 is the first): A and B in a pair, else its number."""
    return PAIR[position - 1] if of == 2 else str(position)


def in_words(outcome: str, *, ranks: Sequence[int], completions: int, strength: int | None = None) -> str:
    """What a judgment says. `ranks[k - 1]` is the rank of the completion shown at position k."""
    if outcome == "all_bad":
        return "Both bad" if completions == 2 else "All bad"
    if outcome == "cannot_judge":
        return "Cannot judge"
    if outcome == "demonstrated":
        return "Wrote the answer"
    if outcome == "withdrawn":
        return "Withdrawn"
    places = [
        " = ".join(label_of(p, of=completions) for p, rank in enumerate(ranks, 1) if rank == place)
        for place in sorted(set(ranks))
    ]
    if completions == 2 and len(places) == 2:
        return f"{places[0]} better than {places[1]}{_BY_STRENGTH.get(strength or 0, '')}"
    if completions == 2:
        return "A and B about the same"
    return " > ".join(places)
