"""Runs that go on, and runs that are duplicated; who may do either."""

import pytest

from annotation.models import Round
from rankloop.audit.models import AuditEvent
from rankloop.errors import Conflict
from tests.api import Caller
from tests.pages import text_of
from tests.training.stage import status_of, to_training
from tests.training.steering.stage import RUNS, add_run, whole_run
from training.models import RunInput, TrainingRun, WorkStatus
from training.recipes.options import parse_options
from training.services.rounds import cancel_round
from training.services.steering import continue_run, duplicate_run
from training.services.work import claim_work

pytestmark = pytest.mark.django_db


def test_a_failed_run_is_queued_again_with_new_attempts_and_keeps_its_number_of_attempts(site, cast):
    run = add_run(cast, status=WorkStatus.FAILED, attempt=3, attempt_limit=3, error="out of memory")
    page = site.post(f"/p/tea/runs/{run.pk}/continue/", follow=True)
    assert "goes on from its last checkpoint" in text_of(page)
    run.refresh_from_db()
    assert (run.status, run.attempt, run.error) == (WorkStatus.QUEUED, 3, "")
    assert run.attempt_limit > run.attempt
    assert (
        claim_work(TrainingRun, run.pk, worker="w").attempt == 4
    )  # whose folder takes over the checkpoints of 3
    assert AuditEvent.objects.get(action="run continued").actor == cast.researcher


def test_continuing_twice_queues_once(cast):
    run = add_run(cast, status=WorkStatus.CANCELLED, attempt=1)
    continue_run(run=run, user=cast.researcher)
    with pytest.raises(Conflict, match="is not over"):
        continue_run(run=run, user=cast.researcher)
    assert AuditEvent.objects.filter(action="run continued").count() == 1


@pytest.mark.parametrize(
    ("status", "attempt", "told"),
    [
        (WorkStatus.SUCCEEDED, 1, "has succeeded"),
        (WorkStatus.RUNNING, 1, "is not over"),
        (WorkStatus.DRAFT, 0, "is not over"),
        (WorkStatus.CANCELLED, 0, "never began"),
    ],
)
def test_what_can_not_go_on_is_refused(site, cast, status, attempt, told):
    run = add_run(cast, status=status, attempt=attempt)
    assert told in text_of(site.post(f"/p/tea/runs/{run.pk}/continue/", {"from-list": "1"}, follow=True))
    run.refresh_from_db()
    assert run.status == status


def test_a_run_goes_on_with_its_round_and_not_without_it(cast, round):
    to_training(cast, round)
    run = round.runs.get(step="reward")
    TrainingRun.objects.filter(pk=run.pk).update(status=WorkStatus.FAILED, attempt=1)
    Round.objects.filter(pk=round.pk).update(failure="reward failed.")
    continue_run(run=run, user=cast.researcher)
    assert Round.objects.get(pk=round.pk).failure == ""

    cancel_round(round=round, user=cast.researcher)
    assert status_of(round) == Round.Status.CANCELLED
    run.refresh_from_db()
    assert run.status == WorkStatus.CANCELLED
    with pytest.raises(Conflict, match="round of this run was cancelled"):
        continue_run(run=run, user=cast.researcher)


def test_a_duplicate_is_a_draft_with_the_same_inputs_and_options_and_belongs_to_no_round(site, cast, round):
    to_training(cast, round)
    run = round.runs.get(step="dpo")
    address = site.post(f"/p/tea/runs/{run.pk}/duplicate/").url
    draft = TrainingRun.objects.get(duplicate_of=run)
    assert address == f"/p/tea/runs/{draft.pk}/"
    assert (draft.status, draft.round, draft.step, draft.seed) == (WorkStatus.DRAFT, None, "dpo", run.seed)
    assert draft.recipe["options"] == run.recipe["options"]
    read = [sorted(each.inputs.values_list("role", "checkpoint", "dataset")) for each in (run, draft)]
    assert read[0] == read[1]
    assert claim_work(TrainingRun, draft.pk, worker="w") is None
    assert AuditEvent.objects.get(action="run duplicated").details == {"draft": str(draft.pk)}
    run.refresh_from_db()
    assert run.status == WorkStatus.QUEUED


def test_a_duplicate_takes_the_parent_and_the_reward_model_along_and_fills_in_new_options(
    cast, base, dataset
):
    run = whole_run(cast, base, dataset, "ppo", status=WorkStatus.SUCCEEDED)
    for role, kind in (("parent", "policy"), ("reward_model", "reward")):
        checkpoint = cast.project.checkpoints.create(name=role, kind=kind, digest="e" * 64, base=base)
        RunInput.objects.create(run=run, role=role, checkpoint=checkpoint)
    del run.recipe["options"]["kl_target"]  # as if it had come with a later version
    run.save()
    draft = duplicate_run(run=run, user=cast.researcher)
    assert {item.role: item.checkpoint and item.checkpoint.name for item in draft.inputs.all()} == {
        "base": "tiny",
        "parent": "parent",
        "reward_model": "reward_model",
        "data": None,
    }
    assert draft.recipe["options"]["kl_target"] == parse_options("ppo", {}).kl_target


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"method": "magic"}, "no method"),
        ({"recipe": {"options": {"dropout": 0.1}}}, "has no option 'dropout'"),
        ({}, "does not say what it read"),
    ],
)
def test_a_run_of_another_time_that_can_not_be_duplicated_says_why(site, cast, fields, told):
    run = add_run(cast, status=WorkStatus.SUCCEEDED, **fields)
    assert told in text_of(site.post(f"/p/tea/runs/{run.pk}/duplicate/", follow=True)).replace("&#x27;", "'")
    assert TrainingRun.objects.count() == 1


POSTS = ("priority", "continue", "duplicate")


@pytest.mark.parametrize("who", ["anna", "reviewer", "stranger"])
def test_only_researchers_see_and_steer_runs(client, cast, who):
    run = add_run(cast, status=WorkStatus.FAILED, attempt=1)
    user = getattr(cast, who)
    client.force_login(user)
    for action in POSTS:
        assert client.post(f"/p/tea/runs/{run.pk}/{action}/", {"priority": "1"}).status_code == 404
        assert Caller(user).post(f"{RUNS}/{run.pk}/{action}", {"priority": 1}).status_code == 404
    for address in (
        "/p/tea/runs/live/",
        f"/p/tea/runs/compare/?run={run.pk}",
        f"{RUNS}/queue",
        f"{RUNS}/compare",
    ):
        assert client.get(address).status_code == 404
    assert list(TrainingRun.objects.values_list("status", "priority")) == [("failed", 0)]


def test_steering_takes_a_post(site, cast):
    run = add_run(cast)
    for action in POSTS:
        assert site.get(f"/p/tea/runs/{run.pk}/{action}/").status_code == 405


def test_a_run_is_continued_and_duplicated_by_api(caller, cast, base, dataset):
    run = whole_run(cast, base, dataset, status=WorkStatus.FAILED, attempt=1)
    assert caller.post(f"{RUNS}/{run.pk}/continue").json()["status"] == "queued"
    refused = caller.post(f"{RUNS}/{run.pk}/continue")
    assert refused.status_code == 409 and "is not over" in refused.json()["detail"]
    copied = caller.post(f"{RUNS}/{run.pk}/duplicate")
    assert copied.status_code == 201
    assert (copied.json()["status"], copied.json()["duplicate_of"]) == ("draft", str(run.pk))
    assert caller.get(f"{RUNS}/{copied.json()['id']}").json()["recipe"]["options"] == run.recipe["options"]
