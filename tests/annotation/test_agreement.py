"""Agreement and position bias: published values, slow plain twins, what must not matter, the ends of the scale."""

import csv
import gzip
import random
import statistics
from collections import defaultdict
from itertools import combinations, permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.agreement import Agreement, agreement, krippendorff_alpha, preferences
from annotation.statistics import Observation, earlier_preferred, win_rate
from tests.environment import ROOT

LLMFAO = ROOT.parent / "shared" / "data" / "llmfao" / "crowd-comparisons.csv.gz"

# (comparison, annotator, ranks)
Row = tuple[int, int, tuple[int, ...]]


def agree(rows: list[Row], **options) -> Agreement:
    """The agreement of plain rows."""
    most = max((len(ranks) for _, _, ranks in rows), default=0)
    return agreement(
        comparisons=np.array([row[0] for row in rows], dtype=int),
        annotators=np.array([row[1] for row in rows], dtype=int),
        ranks=np.array([[*ranks, *[np.nan] * (most - len(ranks))] for _, _, ranks in rows], dtype=float),
        **options,
    )


# --- the twin ---


def slow_alpha(units: list[list[float]], level: str) -> float | None:
    """Alpha as Krippendorff writes it: every pair of values within units against every pair of values at all."""
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]
    count = {value: values.count(value) for value in set(values)}
    if len(count) < 2:
        return None

    def distance(a: float, b: float) -> float:
        if level == "nominal":
            return float(a != b)
        if level == "interval":
            return (a - b) ** 2
        low, high = min(a, b), max(a, b)
        between = sum(number for value, number in count.items() if low <= value <= high)
        return (between - (count[a] + count[b]) / 2) ** 2

    observed = sum(
        sum(distance(a, b) for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units
    ) / len(values)
    expected = sum(count[a] * count[b] * distance(a, b) for a, b in product(count, repeat=2)) / (
        len(values) * (len(values) - 1)
    )
    return 1 - observed / expected


def units_of(rows: list[Row]) -> list[list[float]]:
    """For each pair of completions of each comparison what was said, and the same from the other side."""
    said: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    for comparison, _, ranks in rows:
        for i, j in combinations(range(len(ranks)), 2):
            said[comparison, i, j].append((ranks[i] > ranks[j]) - (ranks[i] < ranks[j]))
    return [*said.values(), *[[-value for value in unit] for unit in said.values()]]


# Each of up to six comparisons has a size of its own, and up to four annotators rank it.
@st.composite
def rankings(draw) -> list[Row]:
    rows = []
    for comparison in range(draw(st.integers(1, 6))):
        size = draw(st.integers(2, 5))
        for annotator in draw(st.sets(st.integers(1, 5), min_size=1, max_size=4)):
            ranks = draw(st.lists(st.integers(1, size), min_size=size, max_size=size))
            rows.append((comparison, annotator, tuple(ranks)))
    return rows


# --- published values ---

MISSING = float("nan")
# K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C: four observers, twelve units.
TEXTBOOK = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, MISSING, MISSING, MISSING],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, MISSING, 3],
        [MISSING, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, MISSING],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, MISSING],
    ]
)


@pytest.mark.parametrize(
    ("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_the_textbook_example_has_its_published_alpha(level, published):
    units = [[value for value in unit if value == value] for unit in TEXTBOOK.T.tolist()]
    assert krippendorff_alpha(TEXTBOOK, level=level) == pytest.approx(published, abs=0.0005)
    assert slow_alpha(units, level) == pytest.approx(published, abs=0.0005)


def test_the_textbook_example_of_two_observers_has_its_published_alpha():
    """Section A there: two observers, ten units, two categories."""
    table = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]], dtype=float)
    assert krippendorff_alpha(table, level="nominal") == pytest.approx(0.095, abs=0.0005)


# --- against the twin ---


@settings(deadline=None)
@given(rankings())
def test_alpha_is_that_of_the_slow_twin(rows):
    expected = slow_alpha(units_of(rows), "ordinal")
    found = agree(rows, resamples=10)
    assert found.alpha == (None if expected is None else pytest.approx(expected))
    # Counted from both its sides, the ordinal level of three values is the interval level.
    interval = slow_alpha(units_of(rows), "interval")
    assert found.alpha == (None if interval is None else pytest.approx(interval))


@settings(deadline=None)
@given(rankings())
def test_raw_agreement_and_each_annotators_own_are_counted_pair_by_pair(rows):
    alike, pairs = defaultdict(int), defaultdict(int)
    for (comparison, one, ranks), (other_comparison, _, other_ranks) in permutations(rows, 2):
        if comparison == other_comparison:
            for i, j in combinations(range(len(ranks)), 2):
                said, other_said = (np.sign(each[i] - each[j]) for each in (ranks, other_ranks))
                pairs[one] += 1
                alike[one] += said == other_said
    found = agree(rows, resamples=10)
    assert {name: (one.pairs, one.alike) for name, one in found.by_annotator.items()} == {
        name: (pairs[name], alike[name]) for name in pairs
    }
    assert found.share == (pytest.approx(sum(alike.values()) / sum(pairs.values())) if pairs else None)
    assert found.pairs == sum(len(unit) > 1 for unit in units_of(rows)) / 2
    assert found.annotators == len(pairs)


def noisy_rows(comparisons: int, noise: float, seed: int, sizes: tuple[int, ...] = (2, 3, 4)) -> list[Row]:
    """Rankings of a hidden quality with noise, some tied, by two or three of six annotators."""
    rng = random.Random(seed)
    rows = []
    for comparison in range(comparisons):
        quality = [rng.gauss(0, 1) for _ in range(rng.choice(sizes))]
        for annotator in rng.sample(range(6), rng.choice((2, 3))):
            seen = [round(each + rng.gauss(0, noise)) for each in quality]
            levels = sorted(set(seen), reverse=True)
            rows.append((comparison, annotator, tuple(levels.index(each) + 1 for each in seen)))
    return rows


def test_the_interval_is_that_of_drawing_whole_comparisons_with_the_slow_twin():
    rows = noisy_rows(comparisons=20, noise=0.8, seed=4)
    of: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        of[row[0]].append(row)
    rng = random.Random(9)
    alphas = []
    for _ in range(800):
        drawn = [(n, annotator, ranks) for n in range(20) for _, annotator, ranks in of[rng.randrange(20)]]
        alphas.append(slow_alpha(units_of(drawn), "ordinal"))
    cuts = statistics.quantiles(alphas, n=40, method="inclusive")
    found = agree(rows, resamples=4000)
    # Two different draws of resamples: the ends agree to about two standard errors of a quantile.
    assert (found.low, found.high) == pytest.approx((cuts[0], cuts[-1]), abs=0.05)
    assert found.low < found.alpha < found.high


def test_the_resampled_figure_is_the_one_that_evalica_gives():
    """One comparison, drawn for itself: the closed form of the bootstrap meets evalica's alpha."""
    one = noisy_rows(comparisons=1, noise=1.0, seed=2, sizes=(5,))
    twice = [*one, *[(7, annotator, ranks) for _, annotator, ranks in one]]
    found = agree(twice, resamples=20)
    assert found.low == pytest.approx(found.alpha) == pytest.approx(found.high)


def test_more_comparisons_make_the_interval_narrower_and_the_same_rows_give_the_same():
    few, many = (agree(noisy_rows(number, noise=0.8, seed=1)) for number in (30, 480))
    assert many.high - many.low < 0.5 * (few.high - few.low)
    assert few == agree(noisy_rows(30, noise=0.8, seed=1))


# --- what must not matter ---


@settings(deadline=None, max_examples=50)
@given(rankings(), st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_the_numbering_of_completions_and_annotators_matters(rows, rng):
    orders = {comparison: rng.sample(range(len(ranks)), len(ranks)) for comparison, _, ranks in rows}
    names = dict(zip(range(1, 6), rng.sample(range(100, 200), 5), strict=True))
    other = [
        (1000 - comparison, names[annotator], tuple(ranks[k] for k in orders[comparison]))
        for comparison, annotator, ranks in rows
    ]
    rng.shuffle(other)
    one, two = agree(rows, resamples=10), agree(other, resamples=10)
    assert (one.alpha is None) == (two.alpha is None)
    assert one.alpha is None or one.alpha == pytest.approx(two.alpha)
    assert (one.share, one.pairs) == (pytest.approx(two.share) if one.share is not None else None, two.pairs)
    assert {names[name]: shared for name, shared in one.by_annotator.items()} == two.by_annotator


# --- the ends of the scale ---


def test_without_a_comparison_that_two_have_ranked_there_is_nothing_to_say():
    for rows in ([], [(1, 1, (1, 2))], [(1, 1, (1, 2)), (2, 1, (2, 1)), (3, 2, (1, 1))]):
        found = agree(rows)
        assert found == Agreement()
        assert (found.alpha, found.share, found.comparisons, found.reading) == (None, None, 0, "")


def test_who_ranked_alone_is_left_out():
    rows = [(1, 1, (1, 2)), (1, 2, (1, 2)), (2, 1, (2, 1)), (2, 2, (2, 1)), (3, 3, (1, 2))]
    found = agree(rows)
    assert (found.comparisons, found.judgments, found.annotators) == (2, 4, 2)
    assert set(found.by_annotator) == {1, 2}


def test_full_agreement_is_one_and_opposition_is_below_zero():
    same = [(n, annotator, (1, 2, 3)) for n in range(5) for annotator in (1, 2)]
    found = agree(same)
    assert (found.alpha, found.low, found.high, found.share, found.reading) == (1.0, 1.0, 1.0, 1.0, "strong")
    opposite = [
        (n, annotator, (1, 2) if annotator == 1 else (2, 1)) for n in range(5) for annotator in (1, 2)
    ]
    assert agree(opposite).alpha < -0.5
    assert agree(opposite).share == 0
    assert agree(opposite).reading == "no better than chance"


def test_when_all_is_tied_agreement_and_chance_cannot_be_told_apart():
    found = agree([(n, annotator, (1, 1)) for n in range(3) for annotator in (1, 2)])
    assert (found.alpha, found.low, found.high) == (None, None, None)
    assert (found.share, found.comparisons, found.reading) == (1.0, 3, "")


def test_one_comparison_has_an_alpha_and_no_interval():
    found = agree([(1, 1, (1, 2, 3)), (1, 2, (1, 3, 2))])
    assert found.alpha is not None
    assert (found.low, found.high) == (None, None)


def test_a_tie_against_a_preference_weighs_less_than_two_opposite_preferences():
    agreed = [(n, annotator, (1, 2)) for n in range(10) for annotator in (1, 2)]
    tied = agree([*agreed, (10, 1, (1, 2)), (10, 2, (1, 1))])
    opposed = agree([*agreed, (10, 1, (1, 2)), (10, 2, (2, 1))])
    assert tied.share == opposed.share
    assert opposed.alpha < tied.alpha < 1


@pytest.mark.parametrize(
    ("alpha", "word"),
    [
        (-0.3, "no better than chance"),
        (0.0, "no better than chance"),
        (0.2, "weak"),
        (0.4, "fair"),
        (0.7, "good"),
        (0.8, "strong"),
        (1.0, "strong"),
    ],
)
def test_alpha_is_told_in_a_word(alpha, word):
    assert Agreement(alpha=alpha).reading == word


def test_what_a_ranking_says_of_its_pairs():
    ranks = np.array([[1, 2, 2], [3, 1, np.nan]])
    expected = np.array([[-1, -1, 0], [1, np.nan, np.nan]])
    np.testing.assert_array_equal(preferences(ranks), expected)


# --- positions ---


@given(st.lists(st.lists(st.integers(1, 8), min_size=4, max_size=4), min_size=1, max_size=10))
def test_how_often_the_earlier_one_is_preferred_is_counted_pair_by_pair(rankings):
    slow = [statistics.mean((a < b) + (a == b) / 2 for a, b in combinations(ranks, 2)) for ranks in rankings]
    assert earlier_preferred(np.array(rankings, dtype=float)) == pytest.approx(slow)


def test_rankings_of_different_lengths_are_scored_by_the_pairs_they_have():
    ranks = np.array([[1, 2, np.nan, np.nan], [4, 3, 2, 1], [1, 1, np.nan, np.nan]])
    assert earlier_preferred(ranks).tolist() == [1.0, 0.0, 0.5]


# --- real judgments ---


@pytest.fixture(scope="module")
def crowd() -> list[dict[str, str]]:
    """8,931 judgments of crowd workers on pairs, with the side each answer stood on."""
    if not LLMFAO.is_file():
        pytest.skip(f"no data at {LLMFAO}: the check against a real crowd is left out")
    with gzip.open(LLMFAO, "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


SIDES = {"left": (1, 2), "right": (2, 1), "tie": (1, 1)}


def test_a_real_crowd_leans_to_the_left_and_it_is_found(crowd):
    """The side of an answer is fixed within a pair there, so pairs hang together; 13 prompts say too little."""
    scores = earlier_preferred(np.array([SIDES[row["winner"]] for row in crowd], dtype=float))

    def figure(cluster: str):
        return win_rate(
            [
                Observation(prompt=int(row[cluster]), annotator=int(row["worker"]), score=float(score))
                for row, score in zip(crowd, scores, strict=True)
            ]
        )

    by_pair, by_prompt = figure("id"), figure("prompt")
    assert by_pair.rate == by_prompt.rate == pytest.approx((2911 + 3471 / 2) / 8931)  # left, ties, all
    assert by_pair.low > 0.499
    assert not by_prompt.is_clear and by_prompt.prompts == 13
    assert by_prompt.low < by_pair.low < by_pair.rate < by_pair.high < by_prompt.high


def test_a_real_crowd_agrees_as_the_slow_twin_says(crowd):
    rows = []
    for row in crowd:
        left, right = SIDES[row["winner"]]
        # In one order of the two models, whichever stood left.
        ranks = (left, right) if row["left"] < row["right"] else (right, left)
        rows.append((int(row["id"]), int(row["worker"]), ranks))
    found = agree(rows)
    assert found.alpha == pytest.approx(slow_alpha(units_of(rows), "ordinal"))
    assert 0 < found.low < found.alpha < found.high < 0.667
