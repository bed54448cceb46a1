"""Which completions are compared with which. Pure: takes plain values, returns plain values."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


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
    one of both. A text that a group has already is left out of it (nothing can be learned from ranking equal texts),
    and so is a group of fewer than two, or one that would have the completions of a single contestant
    where several took part.
    """
    contestants = len({candidate.contestant for candidate in candidates})
    by_sample: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in sorted(candidates, key=lambda c: (c.sample_index, c.contestant)):
        by_sample[candidate.sample_index].append(candidate)
    line = [candidate for sample in sorted(by_sample) for candidate in by_sample[sample]]

    groups: list[list[int]] = []
    repeated = 0
    for start in range(0, len(line), size):
        chunk: list[Candidate] = []
        for candidate in line[start : start + size]:
            if any(candidate.text.strip() == other.text.strip() for other in chunk):
                repeated += 1
            else:
                chunk.append(candidate)
        mixed = contestants == 1 or len({candidate.contestant for candidate in chunk}) > 1
        if len(chunk) >= 2 and mixed:
            groups.append([candidate.completion for candidate in chunk])
    return Groups(groups, repeated)
