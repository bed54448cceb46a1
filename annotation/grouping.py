"""Which completions are compared with which. Pure: takes plain values, returns plain values."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256


@dataclass(frozen=True)
class Candidate:
    """A completion that may be put into a comparison."""

    completion: int
    contestant: int
    sample_index: int
    text: str


@dataclass(frozen=True)
class Groups:
    """Groups of completion ids to be ranked together, and how many could not be used because of equal texts."""

    groups: list[list[int]]
    repeated: int


def group_candidates(candidates: Sequence[Candidate], *, size: int) -> Groups:
    """Groups of at most `size` completions of one prompt, each drawing evenly on the contestants.

    Sample k of every contestant stands beside sample k of every other: with two contestants and size 2 each pair has
    one of both. Of equal texts a group has one (nothing can be learned from ranking them), drawn by lot: were it always
    the older contestant's, a newer one would never be credited with a good answer that both know. A group of fewer than
    two is left out, and one that would have the completions of a single contestant where several took part.
    """
    contestants = len({candidate.contestant for candidate in candidates})
    by_sample: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in sorted(candidates, key=lambda c: (c.sample_index, c.contestant)):
        by_sample[candidate.sample_index].append(candidate)
    line = [candidate for sample in sorted(by_sample) for candidate in by_sample[sample]]

    groups: list[list[int]] = []
    repeated = 0
    for start in range(0, len(line), size):
        drawn: dict[str, Candidate] = {}
        for candidate in line[start : start + size]:
            text = candidate.text.strip()
            repeated += text in drawn
            drawn[text] = min(drawn.get(text, candidate), candidate, key=_lot)
        chunk = list(drawn.values())
        mixed = contestants == 1 or len({candidate.contestant for candidate in chunk}) > 1
        if len(chunk) >= 2 and mixed:
            groups.append([candidate.completion for candidate in chunk])
    return Groups(groups, repeated)


def _lot(candidate: Candidate) -> bytes:
    """As good as random, and the same each time it is asked."""
    return sha256(f"{candidate.contestant} {candidate.sample_index} {candidate.text}".encode()).digest()
