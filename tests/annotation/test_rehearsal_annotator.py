"""How a simulated annotator judges: noise, taste, position bias, ties, all bad, skip."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.rehearsal.annotator import Habits, SimulatedAnnotator, own_weights, ranks_of
from annotation.rehearsal.utility import WEIGHTS, utility

PROMPT = "How do bees make honey?"
GOOD = "Bees collect nectar from flowers, carry it to the hive and fan it with their wings until it is thick honey."
CUT = (
    "Bees are insects that live in many parts of the world, and there are many different kinds of them, some of "
    "which live alone while others live in large groups that are known as colonies, and each of these has a queen "
    "who is the mother of all the other ones in the"
)
LOOP = "It is made. " * 12

STEADY = Habits(noise=0.0, position_bias=0.0, tie_within=0.0, all_bad_below=0.0, skip_chance=0.0, taste=0.0)


def verdicts(habits: Habits, texts: list[str], count: int = 400) -> list:
    return [SimulatedAnnotator("ann", seed, habits).judge(PROMPT, texts) for seed in range(count)]


def test_without_noise_the_ranks_follow_the_utility() -> None:
    texts = [LOOP, GOOD, CUT]
    by_utility = sorted(texts, key=lambda text: -utility(PROMPT, text))
    verdict = SimulatedAnnotator("ann", 1, STEADY).judge(PROMPT, texts)
    assert verdict.outcome == "ranked"
    assert [texts[verdict.ranks.index(rank)] for rank in (1, 2, 3)] == by_utility


def test_with_noise_the_better_one_wins_as_often_as_plackett_luce_says() -> None:
    difference = utility(PROMPT, GOOD) - utility(PROMPT, CUT)
    noise = difference / 1.5
    wins = sum(
        verdict.ranks == (1, 2) for verdict in verdicts(replace(STEADY, noise=noise), [GOOD, CUT], 2000)
    )
    expected = 1 / (1 + math.exp(-1.5))
    assert wins / 2000 == pytest.approx(expected, abs=0.03)


def test_position_bias_favours_what_is_shown_first() -> None:
    """Two texts of equal utility: the bias alone decides."""
    twin = GOOD.replace("thick", "dense")
    assert utility(PROMPT, twin) == utility(PROMPT, GOOD)
    biased = replace(STEADY, noise=0.3, position_bias=0.3)
    first_wins = sum(verdict.ranks == (1, 2) for verdict in verdicts(biased, [twin, GOOD]))
    fair_wins = sum(
        verdict.ranks == (1, 2) for verdict in verdicts(replace(biased, position_bias=0), [twin, GOOD])
    )
    assert first_wins / 400 > 0.65
    assert 0.4 < fair_wins / 400 < 0.6


def test_the_same_page_gets_the_same_verdict_and_another_seed_or_name_may_differ() -> None:
    texts = [GOOD, CUT, LOOP]
    habits = Habits(noise=1.5)
    verdict = SimulatedAnnotator("ann", 3, habits).judge(PROMPT, texts)
    assert SimulatedAnnotator("ann", 3, habits).judge(PROMPT, texts) == verdict
    assert len({SimulatedAnnotator("ann", seed, habits).judge(PROMPT, texts) for seed in range(20)}) > 1
    assert len({SimulatedAnnotator(f"ann-{n}", 3, habits).judge(PROMPT, texts) for n in range(20)}) > 1


def test_taste_belongs_to_the_name_and_stays_close_to_the_common_one() -> None:
    assert own_weights("ann", 0.15) == own_weights("ann", 0.15)
    assert own_weights("ann", 0.15) != own_weights("ben", 0.15)
    assert own_weights("ann", 0.0) == WEIGHTS
    ratios = [
        own / common
        for number in range(200)
        for own, common in zip(own_weights(f"rehearsal-{number}", 0.15), WEIGHTS, strict=True)
    ]
    assert 0.5 < min(ratios) < 0.8 < 1.2 < max(ratios) < 2


def test_close_scores_tie_and_ranks_stay_dense() -> None:
    assert ranks_of([3.0, 2.95, 1.0, 2.0], 0.1) == (1, 1, 3, 2)
    assert ranks_of([1.0, 1.0], 0.0) == (1, 1)
    assert ranks_of([1.0, 1.08, 1.16], 0.1) == (2, 1, 1), (
        "a group is measured from its best, ties don't chain"
    )


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.floats(0, 1))
def test_ranks_are_dense_from_one_and_never_put_a_lower_score_first(
    scores: list[float], within: float
) -> None:
    ranks = ranks_of(scores, within)
    assert sorted(set(ranks)) == list(range(1, len(set(ranks)) + 1))
    for i, score in enumerate(scores):
        for j, other in enumerate(scores):
            assert not (score > other and ranks[i] > ranks[j])


def test_when_every_completion_is_below_the_floor_all_are_bad() -> None:
    habits = replace(STEADY, all_bad_below=1.0)
    assert SimulatedAnnotator("ann", 1, habits).judge(PROMPT, ["", "..."]).outcome == "all_bad"
    assert SimulatedAnnotator("ann", 1, habits).judge(PROMPT, ["", GOOD]).outcome == "ranked"


def test_a_skip_is_rare() -> None:
    skips = sum(verdict.outcome == "skip" for verdict in verdicts(Habits(), [GOOD, CUT], 2000))
    assert 5 <= skips <= 45


def test_most_pairs_of_an_annotator_agree_with_the_utility_but_not_all() -> None:
    """Over texts whose utilities are about as far apart as those of a real model's completions."""
    texts = [GOOD, CUT, CUT.rsplit(" ", 8)[0], "Bees make honey from nectar.", LOOP]
    agree = total = 0
    for number in range(200):
        verdict = SimulatedAnnotator(f"rehearsal-{number}", number).judge(PROMPT, texts)
        if verdict.outcome != "ranked":
            continue
        for i, first in enumerate(texts):
            for j, second in enumerate(texts[:i]):
                if verdict.ranks[i] != verdict.ranks[j]:
                    total += 1
                    agree += (verdict.ranks[i] < verdict.ranks[j]) == (
                        utility(PROMPT, first) > utility(PROMPT, second)
                    )
    assert 0.7 < agree / total < 0.95


def test_fewer_than_two_completions_are_no_comparison() -> None:
    with pytest.raises(ValueError, match="two or more"):
        SimulatedAnnotator("ann").judge(PROMPT, [GOOD])
