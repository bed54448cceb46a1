"""Held-out accuracy, its interval and the length-only baseline, against slow plain twins."""

import random

import numpy as np
import pytest

from training.recipes.held_out import RESAMPLES, accuracy, interval_by_cluster, length_baseline, outcomes
from training.recipes.pairs import Pair


def pair(prompt_id: str, chosen: str = "a", rejected: str = "b") -> Pair:
    return Pair([], [{"content": chosen}], [{"content": rejected}], "r", 1.0, prompt_id)


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
