"""Drafting, changing and launching a run by the API."""

import json
import uuid

import pytest

from tests.api import Caller
from tests.training.launching.stage import CUT, RUNS, look_over
from training.models import TrainingRun
from training.recipes.options import METHODS, describe_options
from training.recipes.presets import PRESETS

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("by", ["token", "session"])
def test_a_run_is_drafted_changed_looked_over_and_launched_by_api(cast, dataset, base, by):
    caller = Caller(cast.researcher, by=by)
    asked = {
        "method": "dpo", "dataset": dataset.pk, "parent": base.pk, "preset": "cpu-smoke", "options": {"beta": 0.3},
        "launch_key": str(uuid.uuid4()), "name": "By program",
    }  # fmt: skip
    made = caller.post(RUNS, asked)
    assert made.status_code == 201, made.content
    assert caller.post(RUNS, asked).json()["id"] == made.json()["id"]
    assert caller.post(RUNS, {**asked, "seed": 2}).status_code == 409
    told = made.json()
    assert (told["status"], told["step"], told["findings"]) == ("draft", "By program", {})
    assert (told["recipe"]["options"]["steps"], told["recipe"]["options"]["beta"]) == (4, 0.3)
    address = f"{RUNS}/{told['id']}"
    assert caller.post(f"{address}/launch").status_code == 400
    changed = caller.patch(address, {"options": {"beta": 0.4}, "seed": 3}).json()
    assert (changed["recipe"]["options"]["beta"], changed["recipe"]["options"]["steps"], changed["seed"]) == (
        0.4,
        4,
        3,
    )
    run = look_over(TrainingRun.objects.get(), CUT)
    assert caller.get(address).json()["findings"]["cut_share"] == 0.02
    assert caller.post(f"{address}/launch").status_code == 400
    assert (
        caller.post(f"{address}/launch", {"accept_truncation": True, "looked_at": "old"}).status_code == 409
    )
    assert caller.post(f"{address}/check").json()["findings"] == {}
    look_over(run, CUT)
    for _ in range(2):
        launched = caller.post(f"{address}/launch", {"accept_truncation": True})
        assert (launched.status_code, launched.json()["status"]) == (200, "queued")
    assert caller.patch(address, {"seed": 4}).status_code == 409
    assert caller.post(f"{address}/check").status_code == 409


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": None}, "one dataset, or rounds"),
        ({"dataset": 999_999}, "Some fields are not right"),
        ({"parent": 999_999}, "Some fields are not right"),
        ({"rounds": [77], "dataset": None}, "Some fields are not right"),
        ({"options": {"beta": "much"}}, "Set beta to a number"),
        ({"options": {"beta": 10**310}}, "Set beta to a number"),
        ({"method": "ppo", "options": {"required_words": "a\0b"}}, "Take that out"),
        ({"method": "ppo", "options": {"required_words": "a\ud800b"}}, "Take that out"),
        ({"preset": "huge"}, "Some fields are not right"),
        ({"colour": "red"}, "Unknown field 'colour'"),
        ({"method": "ppo"}, "Choose one, or another reward"),
    ],
)
def test_a_draft_that_can_not_work_is_refused_by_api(cast, dataset, base, changes, said):
    asked = {"method": "dpo", "dataset": dataset.pk, "parent": base.pk, **changes}
    answer = Caller(cast.researcher).post(RUNS, asked)
    assert answer.status_code == 400
    assert said in answer.json()["detail"]
    assert not TrainingRun.objects.exists()


def test_the_methods_are_told_with_every_option(cast):
    told = Caller(cast.anna).get("/api/v1/methods").json()
    assert [one["method"] for one in told] == list(METHODS)
    for one in told:
        assert json.loads(json.dumps(one["options"])) == json.loads(
            json.dumps(describe_options(one["method"]))
        )
        assert set(one["presets"]) == set(PRESETS)
    assert Caller(None).get("/api/v1/methods").status_code == 403
