"""Rounds by API: opened, launched, watched and helped along, as on their pages."""

import json
import uuid

import pytest

from annotation.models import Comparison, Round
from annotation.services.members import open_project
from rankloop.audit.models import AuditEvent
from tests.api import Caller, all_pages
from tests.cast import add_contestants, add_prompts
from tests.training.stage import (
    PLAN,
    PROMPTS,
    advance,
    draft,
    launch,
    rank,
    to_ranking,
    to_training,
)
from training.models import WorkStatus
from training.services.checkpoints import register_policy

pytestmark = pytest.mark.django_db

ROUNDS = "/api/v1/projects/tea/rounds"
BOTH_WAYS = pytest.mark.parametrize("by", ["token", "session"])
ACTIONS = ("launch", "retry", "skip", "end-ranking", "cancel")


@pytest.fixture
def researcher(cast) -> Caller:
    return Caller(cast.researcher)


@pytest.fixture
def writers(cast, base) -> list[int]:
    """Ids of two contestants that can write."""
    brief = register_policy(checkpoint=base, name="brief", system_prompt="Be brief.")
    return [register_policy(checkpoint=base).pk, brief.pk]


def wanted(writers: list[int], **changes) -> dict:
    return {"name": "First", "contestants": writers, **changes}


# --- opening and launching ---


@BOTH_WAYS
def test_a_round_is_opened_as_a_draft_with_what_the_project_has_by_default(cast, writers, by):
    cast.project.overlap = 3
    cast.project.save()
    answer = Caller(cast.researcher, by=by).post(ROUNDS, wanted(writers))
    assert answer.status_code == 201
    made = answer.json()
    assert (made["number"], made["status"], made["overlap"], made["kind"]) == (1, "draft", 3, "ranking")
    row = Round.objects.get()
    assert (row.name, row.created_by, row.training_plan) == ("First", cast.researcher, [])
    assert set(row.contestants.values_list("pk", flat=True)) == set(writers) == set(made["contestants"])


def test_everything_the_page_asks_for_can_be_set(researcher, writers):
    settings = {
        "audience": "rehearsal",
        "priority": 7,
        "overlap": 5,
        "completions_per_comparison": 3,
        "samples_per_contestant": 4,
        "train_prompts": 11,
        "held_out_prompts": 12,
        "deadline": "2031-01-02T03:04:05Z",
        "seed": 99,
    }
    plan = [{"method": "reward"}, {"step": "mild", "method": "dpo", "options": {"beta": 0.5}}]
    made = researcher.post(ROUNDS, wanted(writers, **settings, training_plan=plan)).json()
    assert {name: made[name] for name in settings} == settings
    reward, mild = made["training_plan"]
    assert (reward["step"], mild["step"], mild["options"]["beta"]) == ("reward", "mild", 0.5)
    assert mild["options"]["learning_rate"] > 0
    assert Round.objects.get().training_plan == made["training_plan"]


@BOTH_WAYS
def test_a_round_is_opened_and_launched_in_one_go_and_once_with_a_launch_key(cast, writers, by):
    add_prompts(cast, 4)
    caller = Caller(cast.researcher, by=by)
    body = wanted(writers, launch=True, launch_key=str(uuid.uuid4()))
    first, again = caller.post(ROUNDS, body), caller.post(ROUNDS, body)
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert first.json()["status"] == "generating"
    assert Round.objects.count() == 1
    assert AuditEvent.objects.filter(action="round launched").count() == 1
    changed = caller.post(ROUNDS, {**body, "overlap": 3})
    assert (changed.status_code, Round.objects.count()) == (409, 1)
    assert "which differs in overlap" in changed.json()["detail"]
    other = caller.post(ROUNDS, {**body, "launch_key": str(uuid.uuid4())}).json()
    assert other["number"] == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 121}, "name"),
        ({"contestants": []}, "at least one contestant"),
        ({"contestants": [999_999]}, "no contestant 999999"),
        ({"contestants": ["x"]}, "contestants"),
        ({"contestants": 5}, "contestants"),
        ({"overlap": 0}, "overlap"),
        ({"overlap": 21}, "overlap"),
        ({"completions_per_comparison": 9}, "completions_per_comparison"),
        ({"samples_per_contestant": 0}, "samples_per_contestant"),
        ({"train_prompts": -1}, "train_prompts"),
        ({"audience": "everybody"}, "audience"),
        ({"kind": "magic"}, "kind"),
        ({"deadline": "soon"}, "deadline"),
        ({"launch_key": "x"}, "launch_key"),
        ({"training_plan": [{"method": "magic"}]}, "magic"),
        ({"training_plan": [{"method": "dpo", "options": {"beta": 99}}]}, "beta is 99.0, out of range"),
        ({"training_plan": [{"method": "dpo", "options": {"gamma": 1}}]}, "gamma"),
        ({"training_plan": [{"method": "dpo"}, {"method": "dpo"}]}, "Two steps are called"),
        ({"training_plan": [{"method": "dpo"}], "train_prompts": 0}, "Training needs train prompts"),
        ({"status": "closed"}, "Unknown field 'status'"),
        ({"overlaps": 3}, "Unknown field 'overlaps'"),
        ({"launch": True}, "no prompt for this round"),
    ],
)
def test_a_round_that_can_not_work_is_refused_and_none_stays_behind(researcher, writers, changes, said):
    answer = researcher.post(ROUNDS, wanted(writers, **changes))
    assert answer.status_code == 400
    assert said in json.dumps(answer.json())
    assert not Round.objects.exists()


def test_contestants_that_can_not_write_or_are_not_ours_are_refused(cast, base, researcher):
    (person,) = add_contestants(cast, "a person")
    refused = researcher.post(ROUNDS, wanted([person.pk]))
    assert (refused.status_code, "has no checkpoint" in refused.json()["detail"]) == (400, True)
    other = open_project(slug="coffee", name="Coffee", user=cast.researcher)
    elsewhere = add_contestants(cast, "there")[0]
    type(elsewhere).objects.filter(pk=elsewhere.pk).update(project=other)
    refused = researcher.post(ROUNDS, wanted([elsewhere.pk]))
    assert refused.json()["fields"] == {"contestants": [f"The project has no contestant {elsewhere.pk}."]}
    assert not Round.objects.exists()


# --- reading ---


def test_rounds_are_listed_page_by_page_with_how_far_they_are(cast, round, base, researcher):
    to_ranking(round)
    rank(cast, [cast.anna])
    for number in range(3):
        draft(cast, base, name=f"Draft {number}")
    rows = all_pages(researcher, ROUNDS, page_size=2)
    assert [row["number"] for row in rows] == [4, 3, 2, 1]
    assert (rows[-1]["slots_all"], rows[-1]["slots_done"], rows[-1]["trained"]) == (2 * PROMPTS, PROMPTS, 0)
    assert [row["number"] for row in all_pages(researcher, ROUNDS, status="ranking")] == [1]
    assert all_pages(researcher, ROUNDS, kind="demonstration") == []
    assert len(all_pages(researcher, ROUNDS, audience="people", page_size=1)) == 4


def test_contestants_are_listed_by_their_key_in_whatever_order_they_came(round, writers, researcher):
    round.contestants.clear()
    for pk in sorted(writers, reverse=True):
        round.contestants.add(pk)
    (row,) = all_pages(researcher, ROUNDS)
    assert row["contestants"] == researcher.get(f"{ROUNDS}/1").json()["contestants"] == sorted(writers)


@pytest.mark.parametrize("query", [{"state": "draft"}, {"status": "asleep"}, {"order": "name"}])
def test_a_filter_that_is_not_allowed_is_refused(researcher, query):
    assert researcher.get(ROUNDS, **query).status_code == 400


@BOTH_WAYS
def test_a_round_tells_what_its_page_tells(cast, round, by):
    to_training(cast, round)
    answer = Caller(cast.researcher, by=by).get(f"{ROUNDS}/1")
    assert answer.status_code == 200
    told = answer.json()
    state = told["state"]
    assert told["status"] == "training"
    assert state["completions_made"] == state["completions_wanted"] == PROMPTS * 4
    assert state["slots"] == {"open": 0, "held": 0, "filled": 2 * PROMPTS, "closed": 0}
    assert (state["judgments"]["all"], state["annotators"]) == (2 * PROMPTS, 2)
    assert state["datasets"][0]["counts"]["judgments"] == 2 * PROMPTS
    assert {run["step"] for run in state["runs"]} == {"reward", "dpo"}
    assert [job["status"] for job in state["jobs"]] == ["succeeded"]
    assert state["prompts"]["train"] + state["prompts"]["held_out"] == PROMPTS


def test_a_draft_tells_that_nothing_is_there_yet(round, researcher):
    state = researcher.get(f"{ROUNDS}/1").json()["state"]
    assert (state["jobs"], state["datasets"], state["comparisons"]) == ([], [], 0)


# --- helping along ---


@BOTH_WAYS
def test_a_draft_is_launched_and_again_is_left_as_it_is(cast, round, by):
    caller = Caller(cast.researcher, by=by)
    for _ in range(2):
        answer = caller.post(f"{ROUNDS}/1/launch")
        assert (answer.status_code, answer.json()["status"]) == (200, "generating")
    assert AuditEvent.objects.filter(action="round launched").get().actor == cast.researcher


def test_a_draft_without_prompts_is_not_launched(cast, base, researcher):
    draft(cast, base)
    answer = researcher.post(f"{ROUNDS}/1/launch")
    assert (answer.status_code, "no prompt" in answer.json()["detail"]) == (400, True)
    assert Round.objects.get().status == "draft"


@BOTH_WAYS
def test_a_failed_step_is_retried(cast, round, by):
    launch(round)
    advance(round)
    round.generation_jobs.update(status=WorkStatus.FAILED, error="no memory")
    advance(round)
    caller = Caller(cast.researcher, by=by)
    assert "no memory" in caller.get(f"{ROUNDS}/1").json()["failure"]
    assert caller.post(f"{ROUNDS}/1/retry").json()["failure"] == ""
    assert round.generation_jobs.get().status == WorkStatus.QUEUED
    again = caller.post(f"{ROUNDS}/1/retry")
    assert (again.status_code, again.json()) == (409, {"detail": "Nothing has failed in this round."})


@BOTH_WAYS
def test_a_failed_step_is_skipped(cast, round, by):
    Round.objects.filter(pk=round.pk).update(status="training", failure="too few pairs")
    answer = Caller(cast.researcher, by=by).post(f"{ROUNDS}/1/skip")
    assert (answer.status_code, answer.json()["status"]) == (200, "evaluating")
    assert Caller(cast.researcher, by=by).post(f"{ROUNDS}/1/skip").status_code == 409


@BOTH_WAYS
def test_ranking_is_ended_once(cast, round, by):
    to_ranking(round)
    caller = Caller(cast.researcher, by=by)
    assert caller.post(f"{ROUNDS}/1/end-ranking").status_code == 200
    assert set(round.slots.values_list("state", flat=True)) == {"closed"}
    Round.objects.update(status="closed")
    assert caller.post(f"{ROUNDS}/1/end-ranking").status_code == 409


@BOTH_WAYS
def test_a_round_is_cancelled_and_again_stays_cancelled(cast, round, by):
    launch(round)
    caller = Caller(cast.researcher, by=by)
    for _ in range(2):
        answer = caller.post(f"{ROUNDS}/1/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert caller.post(f"{ROUNDS}/1/launch").status_code == 409
    assert AuditEvent.objects.filter(action="round cancelled").count() == 1


# --- demonstrations ---


@BOTH_WAYS
def test_a_demonstration_round_is_opened_and_launched(cast, by):
    add_prompts(cast, 12)
    caller = Caller(cast.researcher, by=by)
    body = {"name": "Ideal answers", "kind": "demonstration", "launch": True}
    made = caller.post(ROUNDS, body).json()
    assert (made["kind"], made["overlap"], made["held_out_prompts"]) == ("demonstration", 1, 0)
    assert advance(Round.objects.get()) == "ranking"
    assert set(Comparison.objects.values_list("kind", flat=True)) == {"demonstration"}
    state = caller.get(f"{ROUNDS}/1").json()["state"]
    assert state["slots"]["open"] == Round.objects.get().prompts.filter(split="train").count() > 0


@pytest.mark.parametrize("what", ["contestants", "training_plan", "audience"])
def test_a_demonstration_round_takes_no_contestants_no_plan_and_only_people(cast, researcher, writers, what):
    changes = {"contestants": writers, "training_plan": [{"method": "dpo"}], "audience": "rehearsal"}
    answer = researcher.post(ROUNDS, {"name": "x", "kind": "demonstration", what: changes[what]})
    assert answer.status_code == 400
    assert not Round.objects.exists()


# --- who may ---


@BOTH_WAYS
@pytest.mark.parametrize("who", ["anna", "reviewer", "stranger"])
def test_rounds_are_not_there_for_others_and_nothing_happens(cast, round, writers, who, by):
    caller = Caller(getattr(cast, who), by=by)
    missing = caller.get("/api/v1/projects/nowhere/rounds")
    answers = [caller.get(ROUNDS), caller.get(f"{ROUNDS}/1"), caller.post(ROUNDS, wanted(writers))]
    answers += [caller.post(f"{ROUNDS}/1/{action}") for action in ACTIONS]
    for answer in [*answers, missing]:
        assert (answer.status_code, answer.json()) == (404, missing.json())
    assert Round.objects.get().status == "draft"


@pytest.mark.parametrize("action", ACTIONS)
def test_acting_on_a_round_takes_a_post_and_the_csrf_token(cast, round, researcher, action):
    assert researcher.get(f"{ROUNDS}/1/{action}").status_code == 405
    forged = Caller(cast.researcher, by="session", csrf=False)
    assert forged.post(f"{ROUNDS}/1/{action}").status_code == 403
    assert researcher.post(f"{ROUNDS}/7/{action}").status_code == 404
    assert Round.objects.get().status == "draft"


def test_a_round_is_not_found_through_another_project(cast, round):
    open_project(slug="coffee", name="Coffee", user=cast.researcher)
    assert Caller(cast.researcher).get("/api/v1/projects/coffee/rounds/1").status_code == 404


def test_a_plan_sent_back_as_it_was_answered_makes_the_same_round(cast, base, researcher, writers):
    made = researcher.post(ROUNDS, wanted(writers, training_plan=PLAN)).json()
    copied = {name: made[name] for name in ("name", "contestants", "training_plan", "overlap", "kind")}
    assert researcher.post(ROUNDS, copied).json()["training_plan"] == made["training_plan"]


def test_a_contestant_named_twice_counts_once(cast, base, researcher):
    alone = register_policy(checkpoint=base).pk
    refused = researcher.post(ROUNDS, wanted([alone, alone], samples_per_contestant=1))
    assert (refused.status_code, "can't be compared" in refused.json()["detail"]) == (400, True)
