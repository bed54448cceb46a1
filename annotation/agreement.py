"""How far annotators agree: Krippendorff's alpha with an interval. Pure; the tests hold it against a slow plain twin.

How rankings become what alpha is made for:

- A **unit** is a pair of completions of one comparison that several annotators ranked. K completions give K(K-1)/2.
- A **value** is what one annotator said of the unit: one completion preferred (-1), a tie (0), the other preferred (1).
- Which completion of a pair is called "the one" is arbitrary, and nobody knows who wrote it, so by chance either is as
  likely to be preferred. Each unit is therefore counted from both its sides, which makes alpha the same however the
  completions are numbered.
- The **level** is ordinal: a tie lies between the two preferences, so a tie against a preference is less of a
  disagreement than opposite preferences. (Counted from both sides, the distances 1 and 4 of the ordinal level are those
  of the interval level too; a nominal alpha would call both disagreements equal.)

"All bad" and "cannot judge" put nothing in order: whoever calls leaves them out and counts them apart.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

RESAMPLES = 2000
LEVEL = "ordinal"
# Below the mark, the word. Below 0.4 agreement is poor in Fleiss, Levin and Paik, Statistical Methods for Rates and
# Proportions (2003); between 2/3 and 0.8 it carries tentative conclusions in Krippendorff, Content Analysis (2018).
READINGS = ((0.4, "weak"), (2 / 3, "fair"), (0.8, "good"))


@dataclass(frozen=True)
class Shared:
    """Pairs of completions that an annotator and another have both ranked, each once for every such other."""

    pairs: int
    alike: int  # of them, where both said the same

    @property
    def share(self) -> float | None:
        """Of the pairs those said alike."""
        return self.alike / self.pairs if self.pairs else None


@dataclass(frozen=True)
class Agreement:
    """Alpha with its 95 % interval, and the plain share of pairs on which two annotators said the same.

    `alpha` is None when nothing was ranked twice, and when all said "tie" of everything: then nothing tells agreement
    from chance. The interval is None below two comparisons.
    """

    alpha: float | None = None
    low: float | None = None
    high: float | None = None
    share: float | None = None
    comparisons: int = 0  # ranked by two annotators or more
    judgments: int = 0  # of those comparisons
    pairs: int = 0  # of completions, in those comparisons: the units
    annotators: int = 0
    by_annotator: dict[int, Shared] = field(default_factory=dict)

    @property
    def reading(self) -> str:
        """Alpha in a word; empty without one. The marks: READINGS."""
        if self.alpha is None:
            return ""
        if self.alpha <= 0:
            return "no better than chance"
        return next((word for mark, word in READINGS if self.alpha < mark), "strong")


def preferences(ranks: np.ndarray) -> np.ndarray:
    """What each ranking says of each pair of its completions: (rankings, K) to (rankings, K(K-1)/2).

    -1 where the former ranks before the latter, 0 a tie, 1 the other way round, nan where it has no such pair.
    """
    former, latter = np.triu_indices(ranks.shape[1], k=1)
    return np.sign(ranks[:, former] - ranks[:, latter])


def agreement(
    *,
    comparisons: np.ndarray,
    annotators: np.ndarray,
    ranks: np.ndarray,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Agreement:
    """The agreement of all rankings whose comparison has at least two; an annotator ranks a comparison once.

    Row n says that `annotators[n]` gave the completions of `comparisons[n]` the `ranks[n]`, in an order of completions
    that all rankings of the comparison share, with nan behind them where others have more.

    The interval resamples comparisons with replacement: the pairs of one comparison hang together. It is that of these
    annotators; others might agree more or less.
    """
    _, comparison, judged = np.unique(comparisons, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(judged[comparison] > 1)
    if not len(rows):
        return Agreement()
    rows = rows[np.argsort(comparison[rows], kind="stable")]
    _, starts, comparison, sizes = np.unique(
        comparisons[rows], return_index=True, return_inverse=True, return_counts=True
    )
    values = preferences(ranks[rows])  # (judgments, pairs)
    # How many said -1, 0 and 1 of each pair: (3, comparisons, pairs)
    said = np.stack([np.add.reduceat(values == value, starts, axis=0, dtype=int) for value in (-1, 0, 1)])
    # The n-th row has the n-th value of each unit: (most judgments of a comparison, units)
    table = np.full((max(sizes), len(starts), values.shape[1]), np.nan)
    table[np.arange(len(values)) - starts[comparison], comparison] = values
    table = table.reshape(max(sizes), -1)

    alike = sum((values == value) * (said[value + 1][comparison] - 1) for value in (-1, 0, 1)).sum(axis=1)
    in_common = (sizes - 1)[comparison] * (~np.isnan(values)).sum(axis=1)
    names, annotator = np.unique(annotators[rows], return_inverse=True)
    in_common_each, alike_each = (
        np.bincount(annotator, weights=each).astype(int).tolist() for each in (in_common, alike)
    )

    low, high = _interval(_sums(said, sizes), seed=seed, resamples=resamples)
    return Agreement(
        alpha=krippendorff_alpha(np.hstack([table, -table])),
        low=low,
        high=high,
        share=float(alike.sum() / in_common.sum()),
        comparisons=len(starts),
        judgments=len(rows),
        pairs=int((said.sum(axis=0) > 1).sum()),
        annotators=len(names),
        by_annotator={
            name: Shared(pairs, same)
            for name, pairs, same in zip(names.tolist(), in_common_each, alike_each, strict=True)
        },
    )


def krippendorff_alpha(table: np.ndarray, *, level: str = LEVEL) -> float | None:
    """Alpha of a table (annotators, units) with nan for "did not say"; None where all values are the same.

    Alpha does not ask who said what: the n-th row may be the n-th value of each unit, whoever it is from.
    """
    said = table[:, (~np.isnan(table)).sum(axis=0) > 1]
    if len(np.unique(said[~np.isnan(said)])) < 2:
        return None
    # evalica brings pandas and SciPy: 1.5 s and 140 MB, which only processes that show an agreement should pay.
    import evalica
    import pandas as pd

    return float(evalica.alpha(pd.DataFrame(said), level).alpha)


def _sums(said: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(comparisons, 3) from (3, comparisons, pairs): all that alpha takes from a comparison, to be added up.

    The disagreement of its units (over ordered pairs of values, each unit weighted by 1 / (its values - 1)), its
    values, and how many of those are no tie.
    """
    one, tie, other = said
    disagreement = 2 * (tie * (one + other) + 4 * one * other).sum(axis=1) / (sizes - 1)
    return np.stack([disagreement, said.sum(axis=(0, 2)), (one + other).sum(axis=1)], axis=1)


def _alpha_of(sums: np.ndarray) -> np.ndarray:
    """Alpha from added-up sums (..., 3), in closed form; nan where all is tied.

    Of n values, each seen from both sides, the mean is 0 and the mean square the share that is no tie, so the
    disagreement to be expected of two drawn without replacement from the 2n is 4 * untied / (2n - 1).
    """
    disagreement, values, untied = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - disagreement / values * (2 * values - 1) / (4 * untied)


def _interval(sums: np.ndarray, *, seed: int, resamples: int) -> tuple[float | None, float | None]:
    """The 2.5 % and 97.5 % quantiles of alpha over resampled comparisons; (comparisons, 3) as from _sums.

    Many comparisons give the same three numbers, and drawing how often each kind comes up is drawing the comparisons:
    the work does not grow with their number. evalica's own bootstrap would draw single disagreements instead.
    """
    kinds = Counter(map(tuple, sums.tolist()))
    shares = np.array(list(kinds.values())) / len(sums)
    draws = np.random.default_rng(seed).multinomial(len(sums), shares, size=resamples)
    alphas = _alpha_of(draws @ np.array(list(kinds)))
    alphas = alphas[np.isfinite(alphas)]
    if len(sums) < 2 or not len(alphas):
        return None, None
    low, high = np.quantile(alphas, [0.025, 0.975])
    return float(low), float(high)
