"""Training plans: checked before anything is queued, and refused by name."""

from dataclasses import asdict

import pytest

from rankloop.errors import Refused
from training.plans import checked_plan
from training.recipes.options import parse_options


def test_a_plan_is_filled_in_with_every_default():
    plan = checked_plan([{"method": "reward"}, {"step": "policy", "method": "dpo", "options": {"beta": 0.3}}])
    assert [(step["step"], step["method"]) for step in plan] == [("reward", "reward"), ("policy", "dpo")]
    assert plan[0]["options"] == asdict(parse_options("reward", {}))
    assert plan[1]["options"]["beta"] == 0.3
    assert plan[1]["options"] == {**asdict(parse_options("dpo", {})), "beta": 0.3}


def test_checking_a_checked_plan_changes_nothing():
    plan = checked_plan([{"method": "reward"}, {"method": "dpo", "options": {"steps": 5}}])
    assert checked_plan(plan) == plan
    assert checked_plan([]) == []


def test_a_step_that_samples_learns_from_the_nearest_reward_model_before_it_or_the_one_it_names():
    first, second = {"step": "first", "method": "reward"}, {"step": "second", "method": "reward"}
    assert checked_plan([first, second, {"method": "ppo"}])[-1]["reward_model"] == "second"
    assert (
        checked_plan([first, second, {"method": "ppo", "reward_model": "first"}])[-1]["reward_model"]
        == "first"
    )
    for plan in ([{"method": "ppo"}], [first, {"method": "ppo", "options": {"reward": "length"}}], [first]):
        assert "reward_model" not in checked_plan(plan)[-1]


def test_a_step_that_learns_from_data_is_measured_by_the_reward_model_it_names_and_else_by_none():
    first, second = {"step": "first", "method": "reward"}, {"step": "second", "method": "reward"}
    assert "reward_model" not in checked_plan([first, {"method": "dpo"}])[-1]
    for method in ("sft", "dpo", "kto"):
        plan = checked_plan([first, second, {"method": method, "reward_model": "first"}])
        assert plan[-1]["reward_model"] == "first"
        assert checked_plan(plan) == plan


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"method": "dpo"}, "must be a list"),
        ("dpo", "must be a list"),
        (["dpo"], "Step 1 of the training plan takes"),
        ([{"method": "dpo", "seed": 1}], "Step 1 of the training plan takes"),
        ([{}], "Step 1: unknown method None. Known are sft, reward, dpo"),
        ([{"method": "reward"}, {"method": "magic"}], "Step 2: unknown method 'magic'"),
        ([{"method": "sampling"}], "unknown method 'sampling'"),
        ([{"method": "dpo"}, {"method": "dpo"}], "Two steps are called 'dpo'"),
        ([{"step": "../../etc", "method": "dpo"}], "must be a word"),
        ([{"step": "two words", "method": "dpo"}], "must be a word"),
        ([{"step": "x" * 41, "method": "dpo"}], "must be a word"),
        ([{"step": 7, "method": "dpo"}], "must be a word"),
        ([{"method": "dpo", "options": {"beta": 0}}], "Step dpo: beta is 0.0, out of range. Set beta to"),
        ([{"method": "dpo", "options": {"beta": 11}}], "beta is 11.0, out of range"),
        ([{"method": "dpo", "options": {"steps": 0}}], "steps is 0, out of range"),
        ([{"method": "dpo", "options": {"steps": 2.5}}], "steps is 2.5"),
        ([{"method": "dpo", "options": {"steps": "5"}}], "steps is '5'"),
        ([{"method": "dpo", "options": {"steps": True}}], "steps is True"),
        ([{"method": "dpo", "options": {"learning_rate": float("nan")}}], "learning_rate is nan"),
        ([{"method": "dpo", "options": {"schedule": "wild"}}], "schedule is 'wild'. Set schedule to one of"),
        ([{"method": "reward", "options": {"beta": 0.1}}], "reward has no option 'beta'"),
        ([{"method": "dpo", "options": ["beta"]}], "options"),
        ([{"method": "dpo", "options": None}], "options"),
        ([{"method": ["dpo"]}], "unknown method"),
        (
            [{"method": "ppo", "reward_model": "judge"}],
            "'judge' is no reward model that an earlier step trains",
        ),
        ([{"method": "ppo", "reward_model": "reward"}, {"method": "reward"}], "an earlier step trains"),
        (
            [{"method": "reward"}, {"step": "other", "method": "reward", "reward_model": "reward"}],
            "Step other: Reward model learns from no reward model. Leave it out.",
        ),
        (
            [
                {"method": "reward"},
                {"method": "dpo", "options": {"weights": "full"}, "reward_model": "reward"},
            ],
            "Step dpo: DPO trains all weights here, and a reward model to measure it by is worn as an adapter",
        ),
        (
            [{"method": "dpo", "reward_model": "judge"}],
            "'judge' is no reward model that an earlier step trains",
        ),
        (
            [
                {"method": "reward"},
                {"method": "ppo", "options": {"reward": "length"}, "reward_model": "reward"},
            ],
            "learns from no reward model",
        ),
    ],
)
def test_a_plan_that_cannot_work_is_refused_with_what_to_mend(plan, said):
    with pytest.raises(Refused) as caught:
        checked_plan(plan)
    assert said in str(caught.value)
