"""How one simulated annotator judges what a page shows. Pure: no network, no clock, no global random state.

For each completion the annotator perceives

    score = utility(prompt, completion, own weights) + position bonus + noise x (Gumbel - its mean)

and orders the completions by score. Gumbel noise makes this a Plackett-Luce choice: of two completions whose
utilities differ by d, the better one wins with probability 1 / (1 + exp(-d / noise)).

- Taste: each annotator's own weights are the common ones times exp(normal(0, taste)), drawn from the name
  alone, so that the same name has the same taste in every run.
- Position bias: what stands first gets a small bonus, the classic fault of people who read from the top.
- Ties: completions whose scores lie within `tie_within` of the best of their group share its rank.
- All bad: when every score is below `all_bad_below`.
- Skip: rarely, whatever is shown.
"""

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from annotation.rehearsal.utility import WEIGHTS, Parts, utility

__all__ = ["Habits", "SimulatedAnnotator", "Verdict", "own_weights", "ranks_of"]

GUMBEL_MEAN = 0.5772156649015329  # the Euler-Mascheroni constant


@dataclass(frozen=True)
class Habits:
    """How reliable the annotators of a rehearsal are. All scores are in units of the utility (0..5.6)."""

    # Scale of the Gumbel noise. At 0.35 one annotator agrees with the utility on 80 % of the pairs of
    # completions that the default model writes (192 of them: 64 tokens at temperature 1, four to a prompt, a
    # tie counted as half).
    noise: float = 0.35
    position_bias: float = 0.1  # added to what is shown first
    tie_within: float = 0.08  # scores so close are a tie
    all_bad_below: float = 2.2  # when all scores are below this, nothing is worth ranking
    skip_chance: float = 0.01  # share of comparisons passed on
    taste: float = 0.15  # spread of the personal weights, in log units


@dataclass(frozen=True)
class Verdict:
    """What an annotator answers. `ranks[i]` is of position i + 1; 1 is best, equal ranks are a tie."""

    outcome: Literal["ranked", "all_bad", "skip"]
    ranks: tuple[int, ...] = ()

    @property
    def has_tie(self) -> bool:
        return len(set(self.ranks)) < len(self.ranks)


class SimulatedAnnotator:
    """One annotator with a name, a taste and habits. Shown the same page again, it answers the same."""

    def __init__(self, name: str, seed: int = 0, habits: Habits | None = None) -> None:
        self.name = name
        self.seed = seed
        self.habits = habits or Habits()
        self.weights = own_weights(name, self.habits.taste)

    def judge(self, prompt_text: str, completions: Sequence[str]) -> Verdict:
        """Judge the completions in the order shown. Two or more; raises ValueError for fewer."""
        if len(completions) < 2:
            raise ValueError(f"An annotator compares two or more completions, not {len(completions)}.")
        rng = _random_from(str(self.seed), self.name, prompt_text, *completions)
        if rng.random() < self.habits.skip_chance:
            return Verdict("skip")
        scores = [
            utility(prompt_text, text, self.weights) + self.habits.noise * (_gumbel(rng) - GUMBEL_MEAN)
            for text in completions
        ]
        scores[0] += self.habits.position_bias
        if max(scores) < self.habits.all_bad_below:
            return Verdict("all_bad")
        return Verdict("ranked", ranks_of(scores, self.habits.tie_within))


def own_weights(name: str, taste: float) -> Parts:
    """The personal weights behind a name: the common ones, each times exp(normal(0, taste))."""
    rng = _random_from("taste", name)
    return Parts(*(weight * math.exp(rng.gauss(0.0, taste)) for weight in WEIGHTS))


def ranks_of(scores: Sequence[float], tie_within: float) -> tuple[int, ...]:
    """Dense ranks, 1 for the highest score. One within `tie_within` of the best of a group joins it."""
    ranks = [0] * len(scores)
    rank, best_of_group = 0, math.inf
    for index in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if rank == 0 or best_of_group - scores[index] > tie_within:
            rank, best_of_group = rank + 1, scores[index]
        ranks[index] = rank
    return tuple(ranks)


def _gumbel(rng: random.Random) -> float:
    return -math.log(-math.log(rng.uniform(1e-12, 1 - 1e-12)))


def _random_from(*texts: str) -> random.Random:
    """A generator seeded by texts, the same in every process (Python's own hash of a text is not)."""
    digest = hashlib.sha256("\x1f".join(texts).encode("utf-8", "surrogatepass")).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))
