"""Statistics of held-out pairs and completions: accuracy, its interval, what it is held against. Pure, no torch.

An accuracy is read beside a length-only baseline below it and the human ceiling above it.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from training.recipes.answers import Answer
from training.recipes.pairs import Pair

RESAMPLES = 2000
BINS = 10


def outcomes(margins: Sequence[float]) -> np.ndarray:
    """1 where the chosen completion scores higher, 0.5 where both score the same, 0 otherwise. (pairs,)"""
    signs = np.sign(np.asarray(margins, dtype=np.float64))
    return (signs + 1) / 2


def interval_by_cluster(
    values: Sequence[float],
    clusters: Sequence[str],
    seed: int = 0,
    sizes: Sequence[int] | None = None,
) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values`, resampling whole clusters.

    Pairs of one prompt share its completions, so they are not independent: resampling them one by one would
    promise too narrow an interval. A resampled mean is the sum over drawn clusters divided by the pairs in
    them. With `sizes` each value is itself a sum over so many, and the mean is over those.
    """
    names, which = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(which, weights=np.asarray(values, dtype=np.float64))  # (clusters,)
    counts = np.bincount(which, weights=None if sizes is None else np.asarray(sizes, dtype=np.float64))
    drawn = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)  # (resamples,)
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


def human_ceiling(margins: Sequence[float], pairs: Sequence[Pair]) -> dict[str, object] | None:
    """How often another ranking orders the same two completions of the same prompt the same way; None where no two
    rankings order the same ones.

    No model can be expected to agree with people much more than people do. Each pair counts once, as the share of
    other rankings that agree with it, so the figure stands beside the model's own `accuracy` on the very same pairs.
    Rankings that tie the two are not among the pairs, here as there.
    """
    together: dict[tuple[str, frozenset[str]], list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        together[json.dumps(pair.prompt), frozenset(pair.texts)].append(place)
    agreed: dict[int, float] = {}
    for places in together.values():
        for place in places:
            others = [other for other in places if pairs[other].ranking != pairs[place].ranking]
            if others:
                same = [pairs[other].texts == pairs[place].texts for other in others]
                agreed[place] = sum(same) / len(same)
    if not agreed:
        return None
    values = list(agreed.values())
    low, high = interval_by_cluster(values, [pairs[place].prompt_id for place in agreed])
    return {
        "agreement": float(np.mean(values)),
        "interval": [low, high],
        "pairs": len(agreed),
        "accuracy": float(outcomes([margins[place] for place in agreed]).mean()),
    }


def calibration_error(margins: Sequence[float]) -> float:
    """Expected calibration error of sigmoid(margin), the chance a reward model gives to the completion it prefers.

    Each pair is seen from the side that the model prefers: `confidence` is sigmoid(|margin|), from a half to one, in
    ten bins of equal width. Per bin, how often the model was right (ties half) is held against its mean confidence;
    the differences are averaged over pairs (Guo et al. 2017, 1706.04599). Few pairs make it too large.
    """
    sure = 1 / (1 + np.exp(-np.abs(np.asarray(margins, dtype=np.float64))))  # (pairs,)
    right = outcomes(margins)
    bins = np.minimum(((sure - 0.5) / 0.5 * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=right - sure, minlength=BINS)  # sums over the pairs of each bin
    return float(np.abs(gaps).sum() / len(sure))


def good_over_bad(gained: Sequence[float], outcomes_of: Sequence[Answer]) -> dict[str, Any]:
    """How often a completion called good has gained more than one called bad to the same prompt, ties half.

    Every good one is held against every other bad one to its prompt, whoever judged them; the interval is resampled
    by prompt. `margin` is by how much more it has gained, on average. Without such pairs the figures are None.
    """
    by_prompt: dict[str, list[int]] = defaultdict(list)
    for place, outcome in enumerate(outcomes_of):
        by_prompt[outcome.prompt_id].append(place)
    margins, prompts = [], []
    for prompt, places in by_prompt.items():
        for good in places:
            for bad in places:
                is_pair = outcomes_of[good].is_good and not outcomes_of[bad].is_good
                if is_pair and outcomes_of[good].texts != outcomes_of[bad].texts:
                    margins.append(gained[good] - gained[bad])
                    prompts.append(prompt)
    if not margins:
        return {"accuracy": None, "interval": None, "pairs": 0, "margin": None}
    right = outcomes(margins)
    low, high = interval_by_cluster(right.tolist(), prompts)
    return {
        "accuracy": float(right.mean()),
        "interval": [low, high],
        "pairs": len(margins),
        "margin": float(np.mean(margins)),
    }


def _length_margins(pairs: Sequence[Pair]) -> np.ndarray:
    return np.array([len(pair.chosen[-1]["content"]) - len(pair.rejected[-1]["content"]) for pair in pairs])
