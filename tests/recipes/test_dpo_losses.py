"""The losses of DPO: what each must be before anything is learnt, and which settings of TRL they are."""

import math

import pytest

from tests.recipes.runs import make_training_run, run_here
from training.recipes.dpo import loss_settings, loss_without_margin, refuse_wrong_start
from training.recipes.options import parse_options


def options(**given):
    return parse_options("dpo", given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (["sigmoid"], [1.0], 0.0)),
        ({"loss": "ipo", "sft_weight": 0.5}, (["ipo", "sft"], [1.0, 0.5], 0.0)),
        ({"loss": "robust", "flipped_share": 0.2}, (["robust"], [1.0], 0.2)),
    ],
)
def test_options_become_the_settings_of_trl(given, expected):
    named = loss_settings(options(**given))
    assert (named["loss_type"], named["loss_weights"], named["label_smoothing"]) == expected


@pytest.mark.parametrize("flipped_share", [0.0, 0.2, 0.49])
def test_without_a_margin_robust_dpo_is_log_two_whatever_is_flipped(flipped_share):
    plain = -math.log(1 / 2)
    robust = ((1 - flipped_share) * plain - flipped_share * plain) / (1 - 2 * flipped_share)
    assert loss_without_margin(options(loss="robust", flipped_share=flipped_share)) == pytest.approx(robust)


def test_without_a_margin_ipo_is_the_square_of_the_margin_it_wants():
    assert loss_without_margin(options(loss="ipo", beta=0.1)) == pytest.approx((0 - 1 / (2 * 0.1)) ** 2)


@pytest.mark.parametrize(
    ("given", "loss", "margin", "is_right"),
    [
        ({}, 0.6931, 0.0, True),
        ({}, 0.72, 0.0, False),
        ({}, 0.6931, 0.05, False),
        ({"loss": "ipo"}, 25.0, 0.0, True),
        ({"loss": "ipo"}, 0.6931, 0.0, False),
        ({"sft_weight": 1.0}, 4.2, 0.0, True),
        ({"sft_weight": 1.0}, 0.5, 0.0, False),
        ({"sft_weight": 1.0}, 4.2, 0.3, False),
    ],
)
def test_a_policy_that_did_not_start_as_its_reference_is_noticed(given, loss, margin, is_right):
    first = {"loss": loss, "rewards/margins": margin}
    if is_right:
        refuse_wrong_start(options(**given), first)
    else:
        with pytest.raises(RuntimeError, match="the reference is not the parent"):
            refuse_wrong_start(options(**given), first)


@pytest.mark.parametrize("given", [{"loss": "ipo", "beta": 0.5}, {"loss": "robust", "flipped_share": 0.1}])
def test_the_other_losses_learn_as_well(tiny_model, tmp_path, given):
    metrics = run_here(make_training_run(tmp_path / "run", "dpo", tiny_model, options=given))
    assert metrics["first_loss"] == pytest.approx(loss_without_margin(options(**given)), rel=1e-2)
    assert metrics["last_loss"] < metrics["first_loss"]
    assert metrics["accuracy"] > metrics["at_start"]["accuracy"]
