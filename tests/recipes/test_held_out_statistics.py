"""Held-out accuracy, its interval and the length-only baseline, against slow plain twins."""

import random

import numpy as np
import pytest

from training.recipes.answers import Answer
from training.recipes.held_out import (
    RESAMPLES,
    accuracy,
    calibration_error,
    good_over_bad,
    human_ceiling,
    interval_by_cluster,
    length_baseline,
    outcomes,
)
from training.recipes.pairs import Pair


def pair(prompt_id: str, chosen: str = "a", rejected: str = "b", ranking: str = "r") -> Pair:
    prompt = [{"role": "user", "content": prompt_id}]
    return Pair(prompt, [{"content": chosen}], [{"content": rejected}], ranking, 1.0, prompt_id)


def slow_interval(values: list[float], clusters: list[str], seed: int = 0) -> tuple[float, float]:
    """The same resamples, by loops over lists."""
    names = sorted(set(clusters))
    groups = [[v for v, c in zip(values, clusters, strict=True) if c == name] for name in names]
    drawn = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = sorted(
        sum(sum(groups[g]) for g in sample) / sum(len(groups[g]) for g in sample) for sample in drawn.tolist()
    )

    def percentile(q: float) -> float:
        place = q / 100 * (len(means) - 1)
        below = int(place)
        above = min(below + 1, len(means) - 1)
        return means[below] + (place - below) * (means[above] - means[below])

    return percentile(2.5), percentile(97.5)


def test_the_interval_equals_its_slow_twin():
    rng = random.Random(4)
    clusters = [f"p{rng.randrange(12)}" for _ in range(70)]
    values = [rng.choice([0.0, 0.5, 1.0]) for _ in range(70)]
    assert interval_by_cluster(values, clusters) == pytest.approx(slow_interval(values, clusters))


def test_pairs_of_one_prompt_count_as_one_piece_of_evidence():
    values = [1.0] * 30 + [0.0] * 30
    alone = interval_by_cluster(values, [str(i) for i in range(60)])
    by_prompt = interval_by_cluster(values, [str(i // 10) for i in range(60)])
    assert by_prompt[1] - by_prompt[0] > 2 * (alone[1] - alone[0])


def test_a_tie_is_half_right():
    assert outcomes([2.0, 0.0, -1.0]).tolist() == [1.0, 0.5, 0.0]
    assert accuracy([2.0, 0.0, -1.0], [pair("a"), pair("b"), pair("c")])["accuracy"] == 0.5


def test_the_length_baseline_learns_its_direction_on_train_and_is_measured_on_held_out():
    train = [pair("a", chosen="short", rejected="much longer")] * 3
    held_out = [
        pair("b", chosen="tiny", rejected="very long"),
        pair("c", chosen="long answer", rejected="no"),
    ]
    found = length_baseline(train, held_out)
    assert (found["prefers"], found["accuracy"], found["pairs"]) == ("shorter", 0.5, 2)


def test_the_interval_of_a_mean_per_token_is_that_of_its_tokens_one_by_one():
    rng = random.Random(5)
    sizes = [rng.randrange(1, 6) for _ in range(30)]
    clusters = [f"p{rng.randrange(9)}" for _ in sizes]
    tokens = [[rng.random() for _ in range(size)] for size in sizes]
    found = interval_by_cluster([sum(each) for each in tokens], clusters, sizes=sizes)
    each_token = [(value, c) for values, c in zip(tokens, clusters, strict=True) for value in values]
    assert found == pytest.approx(slow_interval([v for v, _ in each_token], [c for _, c in each_token]))


def some_overlapping_pairs(seed: int) -> list[Pair]:
    """Pairs of three texts to five prompts by up to four rankings, some of one prompt in one ranking twice."""
    rng = random.Random(seed)
    drawn = [
        (f"p{rng.randrange(5)}", rng.sample("abc", 2), f"r{rng.randrange(4)}")
        for _ in range(rng.randrange(40))
    ]
    return [pair(prompt, *texts, ranking=ranking) for prompt, texts, ranking in drawn]


def slow_ceiling(pairs: list[Pair]) -> dict[int, float]:
    """Agreement of the others with each pair that has others, by comparing everything with everything."""
    agreed = {}
    for place, one in enumerate(pairs):
        votes = []
        for other in pairs:
            if other.prompt != one.prompt or other.ranking == one.ranking:
                continue
            if (other.chosen, other.rejected) == (one.chosen, one.rejected):
                votes.append(1)
            elif (other.chosen, other.rejected) == (one.rejected, one.chosen):
                votes.append(0)
        if votes:
            agreed[place] = sum(votes) / len(votes)
    return agreed


@pytest.mark.parametrize("seed", range(8))
def test_the_human_ceiling_equals_its_slow_twin(seed):
    pairs = some_overlapping_pairs(seed)
    margins = [random.Random(seed).choice([-1.0, 0.0, 1.0]) for _ in pairs]
    found, expected = human_ceiling(margins, pairs), slow_ceiling(pairs)
    if not expected:
        assert found is None
        return
    places = sorted(expected)
    assert found["pairs"] == len(expected)
    assert found["agreement"] == pytest.approx(sum(expected.values()) / len(expected))
    assert found["accuracy"] == accuracy([margins[p] for p in places], [pairs[p] for p in places])["accuracy"]
    clusters = [pairs[p].prompt_id for p in places]
    low, high = found["interval"]
    assert low <= found["agreement"] <= high
    assert len(set(clusters)) > 1 or low == high


def test_the_human_ceiling_is_about_the_same_completions_of_the_same_prompt_by_different_rankings():
    first = pair("p", "a", "b", ranking="r1")
    agrees, differs = pair("p", "a", "b", ranking="r2"), pair("p", "b", "a", ranking="r3")
    assert human_ceiling([1.0, 1.0], [first, agrees])["agreement"] == 1.0
    assert human_ceiling([1.0, 1.0], [first, differs])["agreement"] == 0.0
    assert human_ceiling([1.0, 1.0, -1.0], [first, agrees, differs]) | {"interval": None} == {
        "agreement": pytest.approx(1 / 3),
        "interval": None,
        "pairs": 3,
        "accuracy": pytest.approx(2 / 3),
    }
    for other in (pair("q", "a", "b", ranking="r2"), pair("p", "a", "c", ranking="r2"), first):
        assert human_ceiling([1.0, 1.0], [first, other]) is None


def slow_calibration_error(margins: list[float]) -> float:
    bins: list[list[tuple[float, float]]] = [[] for _ in range(10)]
    for margin in margins:
        sure = 1 / (1 + 2.718281828459045 ** -abs(margin))
        right = 1.0 if margin > 0 else 0.5 if margin == 0 else 0.0
        bins[min(int((sure - 0.5) * 20), 9)].append((sure, right))
    return sum(
        len(one) / len(margins) * abs(sum(s for s, _ in one) / len(one) - sum(r for _, r in one) / len(one))
        for one in bins
        if one
    )


def test_the_calibration_error_equals_its_slow_twin():
    rng = random.Random(6)
    margins = [rng.gauss(0.5, 2) for _ in range(300)] + [0.0, 50.0, -50.0]
    assert calibration_error(margins) == pytest.approx(slow_calibration_error(margins))


def test_a_model_that_is_as_sure_as_it_is_right_is_calibrated_and_one_that_is_always_sure_is_not():
    margin = float(np.log(3))  # sure by three quarters
    assert calibration_error([margin] * 3 + [-margin]) == pytest.approx(0.0, abs=1e-12)
    assert calibration_error([20.0, -20.0]) == pytest.approx(0.5, abs=1e-6)
    assert calibration_error([0.0]) == 0.0


def outcome(prompt_id: str, is_good: bool, text: str) -> Answer:
    return Answer([], [{"content": text}], "r", 1.0, prompt_id, is_good)


def test_every_good_completion_is_held_against_every_bad_one_to_its_prompt():
    rng = random.Random(7)
    judged = [outcome(f"p{rng.randrange(4)}", rng.random() < 0.5, f"text {i % 9}") for i in range(40)]
    gained = [rng.choice([-1.0, 0.0, 0.5, 2.0]) for _ in judged]
    found = good_over_bad(gained, judged)
    margins = [
        gained[i] - gained[j]
        for i, good in enumerate(judged)
        for j, bad in enumerate(judged)
        if good.prompt_id == bad.prompt_id and good.is_good and not bad.is_good and good.texts != bad.texts
    ]
    right = [1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins]
    assert found["pairs"] == len(margins) > 40
    assert found["accuracy"] == pytest.approx(sum(right) / len(right))
    assert found["margin"] == pytest.approx(sum(margins) / len(margins))
    assert found["interval"][0] < found["accuracy"] < found["interval"][1]


def test_without_a_good_and_a_bad_completion_to_one_prompt_nothing_is_claimed():
    judged = [outcome("p", True, "a"), outcome("q", False, "b"), outcome("p", False, "a")]
    assert good_over_bad([1.0, 2.0, 1.0], judged) == {
        "accuracy": None,
        "interval": None,
        "pairs": 0,
        "margin": None,
    }
