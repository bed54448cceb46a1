"""Win rates with honest intervals. Pure numpy; the tests hold each function against a slow plain twin."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annotation.agreement import preferences

RESAMPLES = 2000


@dataclass(frozen=True)
class Observation:
    """One judgment between two contestants: 1 when the first is preferred, 0 the second, 0.5 a tie.

    With several completions of each in one comparison, the mean over their pairs.
    """

    prompt: int
    annotator: int
    score: float


@dataclass(frozen=True)
class WinRate:
    """Win rate of the first contestant with its 95 % interval; `rate` is None without observations."""

    rate: float | None
    low: float | None
    high: float | None
    judgments: int
    prompts: int
    annotators: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0.5."""
        return self.low is not None and self.high is not None and (self.low > 0.5 or self.high < 0.5)


def win_rate(observations: Sequence[Observation], *, seed: int = 0, resamples: int = RESAMPLES) -> WinRate:
    """The mean score, and a percentile interval from resampling prompts and annotators.

    Both are drawn with replacement, independently, and an observation weighs the product of its two multiplicities
    (the pigeonhole bootstrap, Owen 2007): judgments of one prompt hang together, and so do those of one annotator,
    so an interval that takes each judgment for itself is too narrow.
    """
    if not observations:
        return WinRate(None, None, None, 0, 0, 0)
    scores = np.array([o.score for o in observations])
    prompt_names, prompts = np.unique([o.prompt for o in observations], return_inverse=True)
    annotator_names, annotators = np.unique([o.annotator for o in observations], return_inverse=True)
    rng = np.random.default_rng(seed)
    rates = np.empty(resamples)
    filled = 0
    while filled < resamples:
        by_prompt = _multiplicities(rng, len(prompt_names))
        by_annotator = _multiplicities(rng, len(annotator_names))
        weights = by_prompt[prompts] * by_annotator[annotators]
        total = weights.sum()
        # Every drawn prompt may have been judged by undrawn annotators alone: draw again.
        if total > 0:
            rates[filled] = weights @ scores / total
            filled += 1
    low, high = np.quantile(rates, [0.025, 0.975])
    return WinRate(
        rate=float(scores.mean()),
        low=float(low),
        high=float(high),
        judgments=len(scores),
        prompts=len(prompt_names),
        annotators=len(annotator_names),
    )


def earlier_preferred(ranks: np.ndarray) -> np.ndarray:
    """How often each ranking prefers what was shown earlier: (rankings, K) ranks by position to (rankings,) scores.

    The mean over its pairs of positions, a tie counting half. Without a bias for sides it is 0.5 on average, because
    the order shown is drawn anew for each annotator.
    """
    return np.nanmean((1 - preferences(ranks)) / 2, axis=1)


def _multiplicities(rng: np.random.Generator, size: int) -> np.ndarray:
    """How often each of `size` things is drawn in `size` draws with replacement; (size,)."""
    return np.bincount(rng.integers(size, size=size), minlength=size)
