"""The reward model's options, and what its held-out figures stand beside."""

import math

import pytest

from tests.recipes.runs import make_training_run, metrics_of, run_here, some_pairs, write_pairs
from training.recipes.cutting import Row
from training.recipes.pairs import Pair
from training.recipes.reward import as_tokens

SIDES = Row(0, (1, 2)), Row(0, (1, 3))


@pytest.mark.parametrize(("strength", "margin"), [(None, 0.0), (1, 0.0), (2, 0.5), (3, 1.0)])
def test_each_step_of_strength_above_slight_asks_for_more_margin(strength, margin):
    pair = Pair([], [], [], "r", 1.0, "p", strength=strength)
    assert as_tokens(pair, SIDES, 0.5) == {"chosen_ids": (1, 2), "rejected_ids": (1, 3), "margin": margin}


def test_without_a_margin_per_strength_the_loss_has_none():
    assert "margin" not in as_tokens(Pair([], [], [], "r", 1.0, "p", strength=3), SIDES, 0.0)


@pytest.fixture(scope="module")
def judged_twice(tiny_model, tmp_path_factory) -> tuple[dict, list[dict]]:
    """(metrics, measurements) of a run whose held-out rankings come from two annotators who half agree."""
    folder = make_training_run(
        tmp_path_factory.mktemp("judged") / "run", "reward", tiny_model, options={"steps": 2}
    )
    pairs = some_pairs(rankings=4, seed=2)
    again = [pair | {"ranking": f"second {pair['ranking']}"} for pair in pairs]
    for pair in again[::2]:
        pair["chosen"], pair["rejected"] = pair["rejected"], pair["chosen"]
    write_pairs(folder / "held_out.jsonl", pairs + again)
    return run_here(folder), metrics_of(folder)


def test_accuracy_stands_beside_what_people_agree_on(judged_twice):
    metrics, _ = judged_twice
    ceiling = metrics["human_ceiling"]
    assert (ceiling["agreement"], ceiling["pairs"]) == (0.5, 48)
    assert ceiling["interval"] == [0.5, 0.5]  # each prompt's rankings agree on three pairs of six
    assert ceiling["accuracy"] == metrics["accuracy"]  # here all pairs were judged twice


def test_calibration_error_is_measured_and_can_be_followed(judged_twice):
    metrics, measured = judged_twice
    assert 0 <= metrics["calibration_error"] <= 0.5
    assert math.isfinite(metrics["at_start"]["calibration_error"])
    assert {line["step"] for line in measured if line["name"] == "held_out/calibration_error"} == {0, 2}


def test_where_nothing_was_judged_twice_no_ceiling_is_claimed(tiny_model, tmp_path):
    options = {"steps": 1, "center_weight": 0.1, "margin_per_strength": 1.0}
    metrics = run_here(make_training_run(tmp_path / "run", "reward", tiny_model, options=options))
    assert metrics["human_ceiling"] is None
