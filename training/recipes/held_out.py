"""Statistics of a held-out set of pairs: accuracy with its interval, and the length-only baseline. Pure, no torch."""

from collections.abc import Sequence

import numpy as np

from training.recipes.pairs import Pair

RESAMPLES = 2000


def outcomes(margins: Sequence[float]) -> np.ndarray:
    """1 where the chosen completion scores higher, 0.5 where both score the same, 0 otherwise. (pairs,)"""
    signs = np.sign(np.asarray(margins, dtype=np.float64))
    return (signs + 1) / 2


def interval_by_cluster(
    values: Sequence[float], clusters: Sequence[str], seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values`, resampling whole clusters.

    Pairs of one prompt share its completions, so they are not independent: resampling them one by one would
    promise too narrow an interval. A resampled mean is the sum over drawn clusters divided by the pairs in
    them.
    """
    names, which = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(which, weights=np.asarray(values, dtype=np.float64))  # (clusters,)
    sizes = np.bincount(which)
    drawn = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)  # (resamples,)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def accuracy(margins: Sequence[float], pairs: Sequence[Pair]) -> dict[str, object]:
    """Share of pairs whose chosen completion scores higher, ties half, with its interval resampled by prompt."""
    right = outcomes(margins)
    low, high = interval_by_cluster(right.tolist(), [pair.prompt_id for pair in pairs])
    return {"accuracy": float(right.mean()), "interval": [low, high], "pairs": len(pairs)}


def length_baseline(train: Sequence[Pair], held_out: Sequence[Pair]) -> dict[str, object]:
    """What a judge reaches who looks at nothing but length, in characters. Whether longer or shorter is
    better is learnt on `train`; a reward model that does not beat this has learnt length.
    """
    prefers_longer = outcomes(_length_margins(train)).mean() >= 0.5
    margins = _length_margins(held_out) * (1 if prefers_longer else -1)
    return {**accuracy(margins.tolist(), held_out), "prefers": "longer" if prefers_longer else "shorter"}


def _length_margins(pairs: Sequence[Pair]) -> np.ndarray:
    return np.array([len(pair.chosen[-1]["content"]) - len(pair.rejected[-1]["content"]) for pair in pairs])
