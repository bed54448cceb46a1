"""The runs page: the queue and its order, continuing and duplicating runs, filters, and runs laid over each other."""

import json
import re
import uuid
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from annotation.models import Round
from annotation.services.members import open_project
from rankloop.audit.models import AuditEvent
from rankloop.errors import Conflict, Refused
from tests.api import Caller
from tests.cast import Cast
from tests.training.stage import add_base, status_of, to_training, train
from training.measurements import beside, catalogue, main_rate
from training.models import PreferenceDataset, RunInput, RunMetric, TrainingRun, WorkStatus
from training.recipes.options import METHODS, describe_options, parse_options
from training.selectors.runs import queue_of, remaining_seconds, waiting
from training.services.rounds import cancel_round
from training.services.runs import open_run
from training.services.steering import change_priority, continue_run, duplicate_run
from training.services.work import claim_work, to_claim

pytestmark = pytest.mark.django_db

RUNS = "/api/v1/projects/tea/runs"


@pytest.fixture
def site(client: Client, cast: Cast) -> Client:
    client.force_login(cast.researcher)
    return client


@pytest.fixture
def dataset(cast: Cast) -> PreferenceDataset:
    return PreferenceDataset.objects.create(project=cast.project, digest="d" * 64, counts={"judgments": 40})


def text_of(answer) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", answer.content.decode()))


def add_run(cast: Cast, name: str = "dpo", **fields) -> TrainingRun:
    return TrainingRun.objects.create(**{"project": cast.project, "step": name, "method": "dpo", **fields})


def whole_run(cast: Cast, base, dataset, method: str = "dpo", **fields) -> TrainingRun:
    """A run with inputs and options, as a launch makes it."""
    options = {**vars(parse_options(method, {})), **fields.pop("options", {})}
    run = open_run(
        project=cast.project,
        name=method,
        method=method,
        options=options,
        dataset=dataset,
        parent=base,
        reward_model=None,
        seed=7,
        user=cast.researcher,
    )
    TrainingRun.objects.filter(pk=run.pk).update(**fields)
    run.refresh_from_db()
    return run


# --- the queue ---


def test_what_waits_is_listed_in_the_order_in_which_it_is_claimed(cast):
    first, _, third = (add_run(cast, name) for name in ("first", "second", "third"))
    change_priority(run=third, priority=5, user=cast.researcher)
    assert [run.step for run in waiting()] == ["third", "first", "second"]
    add_run(cast, "draft", status=WorkStatus.DRAFT)
    TrainingRun.objects.filter(pk=first.pk).update(status=WorkStatus.RUNNING)
    assert [run.step for run in waiting()] == ["third", "second"]


def test_the_page_shows_what_runs_and_what_waits_at_which_place(site, cast):
    other = open_project(slug="coffee", name="Coffee", user=cast.stranger)
    add_run(cast, "foreign", project=other, priority=9)
    for name in ("one", "two"):
        add_run(cast, name)
    add_run(cast, "busy", status=WorkStatus.RUNNING, progress={"step": 3, "of": 8}, started_at=timezone.now())
    answer = site.get("/p/tea/runs/")
    page = text_of(answer)
    assert "step 3 of 8" in page and "foreign" not in page
    queue = queue_of(cast.project)
    assert [(each.position, each.run.step) for each in queue.waiting] == [(2, "one"), (3, "two")]
    assert [each.run.step for each in queue.running] == ["busy"]
    assert 'aria-label="Progress of busy' in answer.content.decode()


def test_raise_and_lower_bring_a_run_past_its_neighbour_and_pressing_twice_is_pressing_once(site, cast):
    runs = {name: add_run(cast, name) for name in ("one", "two", "three")}

    def press(button: str, name: str) -> None:
        content = site.get("/p/tea/runs/").content.decode()
        value = re.search(rf'id="{button}-{runs[name].pk}" name="priority" value="(-?\d+)"', content)[1]
        for _ in range(2):
            site.post(f"/p/tea/runs/{runs[name].pk}/priority/", {"priority": value, "from-list": "1"})

    press("raise", "two")
    assert [run.step for run in waiting()] == ["two", "one", "three"]
    press("raise", "three")
    assert [run.step for run in waiting()] == ["two", "three", "one"]
    press("lower", "two")
    # Past its neighbour, and past the older one whose priority it has then.
    assert [run.step for run in waiting()] == ["three", "one", "two"]
    press("lower", "two")
    assert [run.step for run in waiting()] == ["three", "one", "two"]
    events = AuditEvent.objects.filter(action="run priority changed")
    assert {event.actor for event in events} == {cast.researcher}
    changes = [(event.details["before"], event.details["after"]) for event in events.order_by("pk")]
    assert changes == [(0, 1), (0, 1), (1, 0)]


def test_what_is_claimed_next_is_what_the_page_says_is_first(cast):
    add_run(cast, "older")
    urgent = add_run(cast, "urgent")
    change_priority(run=urgent, priority=1, user=cast.researcher)
    assert waiting().first() == urgent
    assert to_claim(TrainingRun, 1) == [urgent]


def test_a_priority_out_of_range_or_of_a_run_that_does_not_wait_is_refused(site, cast):
    run = add_run(cast)
    with pytest.raises(Refused, match="from -1000 to 1000"):
        change_priority(run=run, priority=1001, user=cast.researcher)
    site.post(f"/p/tea/runs/{run.pk}/priority/", {"priority": "urgent"})
    TrainingRun.objects.update(status=WorkStatus.RUNNING)
    with pytest.raises(Conflict, match="does not wait any more"):
        change_priority(run=run, priority=3, user=cast.researcher)
    run.refresh_from_db()
    assert run.priority == 0
    assert not AuditEvent.objects.filter(action="run priority changed").exists()


def test_the_remaining_time_follows_the_pace_of_the_present_attempt(cast):
    now = timezone.now()
    run = add_run(
        cast,
        status=WorkStatus.RUNNING,
        attempt=2,
        started_at=now - timedelta(seconds=100),
        progress={"step": 30, "of": 40},
    )
    assert remaining_seconds(run, now=now) is None
    for attempt, step in ((1, 1), (1, 20), (2, 21), (2, 30)):
        RunMetric.objects.create(run=run, attempt=attempt, step=step, name="loss", value=1)
    assert remaining_seconds(run, now=now) == pytest.approx(100)  # ten steps took as long
    run.status = WorkStatus.SUCCEEDED
    assert remaining_seconds(run, now=now) is None


def test_a_long_queue_asks_as_much_of_the_database_as_a_short_one(cast, django_assert_num_queries):
    caller = Caller(cast.researcher, by="session")
    counts = []
    for more in (1, 4):
        for status in (WorkStatus.RUNNING, WorkStatus.QUEUED):
            for _ in range(more):
                add_run(cast, status=status)
        with django_assert_num_queries(10**6, exact=False) as captured:
            told = caller.get(f"{RUNS}/queue").json()
        counts.append(len(captured))
    assert (len(told["running"]), len(told["waiting"])) == (5, 5)
    assert counts[0] == counts[1]


def test_the_queue_is_renewed_only_when_it_has_changed(site, cast):
    run = add_run(cast)
    content = site.get("/p/tea/runs/").content.decode()
    seen = re.search(r"live/\?seen=(\w+)", content)[1]
    assert site.get("/p/tea/runs/live/", {"seen": seen}).status_code == 204
    change_priority(run=run, priority=2, user=cast.researcher)
    assert site.get("/p/tea/runs/live/", {"seen": seen}).status_code == 200
    TrainingRun.objects.update(status=WorkStatus.FAILED)
    assert "hx-get" not in site.get("/p/tea/runs/").content.decode()


# --- filters ---


def test_runs_are_filtered_by_method_state_and_round(site, cast, round, tmp_path):
    to_training(cast, round)
    train(round, tmp_path)
    add_run(cast, "by_hand", status=WorkStatus.FAILED)

    def listed(**query) -> list[str]:
        return [run.step for run in site.get("/p/tea/runs/", query).context["page"]]

    assert listed() == ["by_hand", "dpo", "reward"] or len(listed()) == 3
    assert sorted(listed(method="dpo")) == ["by_hand", "dpo"]
    assert listed(status="failed") == ["by_hand"]
    assert sorted(listed(round=round.number)) == ["dpo", "reward"]
    assert listed(method="reward", status="failed") == []
    assert "No run matches" in text_of(site.get("/p/tea/runs/", {"status": "queued"}))
    assert len(listed(status="tired", round="x")) == 3


# --- closing the page ---


def test_closing_the_page_changes_nothing_and_coming_back_shows_all_that_happened(cast, client):
    run = add_run(cast, status=WorkStatus.RUNNING, attempt=1, started_at=timezone.now())
    RunMetric.objects.create(run=run, attempt=1, step=1, name="loss", value=0.7)
    before = TrainingRun.objects.values().get(pk=run.pk)
    client.force_login(cast.researcher)
    for address in ("/p/tea/runs/", f"/p/tea/runs/{run.pk}/", f"/p/tea/runs/{run.pk}/metrics.json"):
        assert client.get(address).status_code == 200
    client.logout()  # the browser is closed, and with it everything it knew
    assert TrainingRun.objects.values().get(pk=run.pk) == before

    # Meanwhile the worker goes on.
    RunMetric.objects.create(run=run, attempt=1, step=2, name="loss", value=0.5)
    TrainingRun.objects.filter(pk=run.pk).update(progress={"step": 2, "of": 4})
    elsewhere = Client()
    elsewhere.force_login(cast.researcher)
    assert "step 2 of 4" in text_of(elsewhere.get("/p/tea/runs/"))
    rows = elsewhere.get(f"/p/tea/runs/{run.pk}/metrics.json").json()["rows"]
    assert rows == [["loss", 1, 0.7], ["loss", 2, 0.5]]


# --- continuing ---


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


# --- duplicating ---


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


# --- one run's page ---


def test_the_page_of_a_run_tells_each_option_with_its_help_and_which_was_changed(site, cast, base, dataset):
    run = whole_run(cast, base, dataset, options={"beta": 0.25})
    content = site.get(f"/p/tea/runs/{run.pk}/").content.decode()
    for option in describe_options("dpo"):
        assert f'<th scope="row">{option["name"]}</th>' in content
    row = content[content.index(">beta<") :].split("</tr>")[0]
    assert "0.25" in row and "not the default" in row and "Default: 0.1" in row
    assert content.count("not the default") == 1


def test_the_page_of_a_run_shows_what_stands_beside_its_result_and_what_happened_on_the_way(site, cast):
    metrics = {
        "accuracy": 0.71,
        "interval": [0.58, 0.83],
        "pairs": 38,
        "human_ceiling": {"agreement": 0.82, "interval": [0.7, 0.9], "accuracy": 0.74},
        "length_baseline": {"accuracy": 0.66, "interval": [0.5, 0.8], "pairs": 38},
        "calibration_error": 0.043,
        "at_start": {"accuracy": 0.47, "pairs": 38},
    }
    run = add_run(
        cast,
        method="reward",
        status=WorkStatus.SUCCEEDED,
        halvings=1,
        result={"ok": True, "metrics": metrics},
    )
    page = text_of(site.get(f"/p/tea/runs/{run.pk}/"))
    assert "Memory ran out once: micro-batch halved." in page
    for said in (
        "71 % of 38 pairs [58 %, 83 %]",
        "Human ceiling82 % [70 %, 90 %]",
        "The model on the same pairs74 %",
        "Length alone66 %",
    ):
        assert said in page
    assert "Calibration error0.043" in page and "Before training47 %" in page

    online = {
        "win_rate": 0.64,
        "interval": [0.5, 0.7],
        "prompts": 40,
        "kl": 4.2,
        "best_of_4_win_rate": 0.8,
        "best_of_4_reward": 1.5,
        "at_start": {"win_rate": 0.5},
        "stopped": "the KL to the reference reached 26.1 at step 19",
        "steps": 19,
    }
    TrainingRun.objects.update(method="ppo", halvings=3, result={"ok": True, "metrics": online})
    page = text_of(site.get(f"/p/tea/runs/{run.pk}/"))
    assert "Memory ran out 3 times" in page
    assert "computed together, the result stays the same." in page
    assert "It ended early, after step 19: the KL to the reference reached 26.1 at step 19." in page
    assert "the policy beats its parent on 64 % of 40 prompts" in page
    assert "Best-of-4, untrained80 %" in page and "Before training50 %" in page


def test_a_run_that_is_judged_by_its_loss_shows_that_with_its_interval(site, cast):
    metrics = {
        "loss": 1.25,
        "interval": [1.1, 1.4],
        "perplexity": 3.49,
        "answers": 12,
        "at_start": {"loss": 2.5},
    }
    run = add_run(cast, "sft", method="sft", status=WorkStatus.SUCCEEDED, result={"metrics": metrics})
    page = text_of(site.get(f"/p/tea/runs/{run.pk}/"))
    assert "Held-out loss1.25 [1.1, 1.4]" in page and "Held-out perplexity3.49" in page
    assert "Before training" not in page  # a loss is no share


@pytest.mark.parametrize("metrics", [{}, {"accuracy": "x", "interval": 3}, {"at_start": None, "kl": [1]}])
def test_results_that_lack_something_are_shown_without_it(site, cast, metrics):
    run = add_run(cast, status=WorkStatus.SUCCEEDED, result={"metrics": metrics})
    assert main_rate(metrics) is None and beside(metrics) == []
    assert site.get(f"/p/tea/runs/{run.pk}/").status_code == 200


def test_what_the_page_offers_goes_with_the_state(site, cast):
    run = add_run(cast, status=WorkStatus.RUNNING, attempt=1)
    for status, offered in (
        (WorkStatus.RUNNING, ["cancel", "duplicate"]),
        (WorkStatus.FAILED, ["continue", "duplicate"]),
        (WorkStatus.CANCELLED, ["continue", "duplicate"]),
        (WorkStatus.SUCCEEDED, ["duplicate"]),
    ):
        TrainingRun.objects.update(status=status)
        content = site.get(f"/p/tea/runs/{run.pk}/").content.decode()
        assert re.findall(r'<button type="submit"[^>]* id="(\w+)"', content) == offered


def test_a_run_that_can_not_go_on_is_not_offered_to(site, cast, round):
    never_began = add_run(cast, status=WorkStatus.CANCELLED)
    begun = add_run(cast, status=WorkStatus.CANCELLED, attempt=1)
    of_round = add_run(cast, round=round, status=WorkStatus.CANCELLED)

    def is_offered(run) -> bool:
        return 'id="continue"' in site.get(f"/p/tea/runs/{run.pk}/").content.decode()

    assert [is_offered(run) for run in (never_began, begun, of_round)] == [False, True, True]
    type(round).objects.filter(pk=round.pk).update(status="cancelled")
    assert not is_offered(of_round)


def test_every_group_of_curves_has_a_title_and_no_metric_stands_in_two():
    groups = catalogue()["groups"]
    names = [name for group in groups for name in group["names"]]
    assert len(names) == len(set(names))
    assert [group["title"] for group in groups] == [
        "Loss",
        "Reward, KL and length",
        "Preferences",
        "On held-out prompts",
        "Optimisation",
        "Others",
    ]


# --- several runs ---


@pytest.fixture
def two(cast, base, dataset) -> tuple[TrainingRun, TrainingRun]:
    """DPO and PPO on the same data, both over."""
    done = {"status": WorkStatus.SUCCEEDED, "created_at": timezone.now()}
    metrics = {"accuracy": 0.7, "interval": [0.6, 0.8]}
    dpo = whole_run(cast, base, dataset, options={"beta": 0.2}, result={"metrics": metrics}, **done)
    ppo = whole_run(
        cast, base, dataset, "ppo", result={"metrics": {"kl": 3.0, "at_start": {"kl": 0.0}}}, **done
    )
    return dpo, ppo


def compared(rows) -> dict[tuple[str, str], tuple[list, bool]]:
    return {(row.section, row.name): (row.values, row.differs) for row in rows}


def test_two_runs_are_laid_beside_each_other_with_what_differs_marked(site, two):
    dpo, ppo = two
    answer = site.get("/p/tea/runs/compare/", {"run": [dpo.pk, ppo.pk]})
    rows = compared(answer.context["rows"])
    assert rows["run", "method"] == (["DPO", "PPO"], True)
    assert rows["run", "seed"] == ([7, 7], False)
    assert rows["inputs", "base"] == (["tiny", "tiny"], False)
    assert rows["inputs", "data"] == (["dataset dddddddddddd"] * 2, False)
    assert rows["options", "beta"] == ([0.2, None], True)
    assert rows["options", "kl_target"][0][0] is None and rows["options", "kl_target"][1]
    assert rows["results", "at_start.kl"] == ([None, 0.0], True)
    curves = json.loads(answer.context["curves"])
    assert [each["address"] for each in curves] == [f"/p/tea/runs/{run.pk}/metrics.json" for run in two]
    same = re.findall(r'<tr class="same">\s*<th scope="row"[^>]*>([^<]+)<', answer.content.decode())
    assert "seed" in same and "beta" not in same and "method" not in same


def test_equal_runs_differ_in_nothing(site, cast, base, dataset):
    runs = [whole_run(cast, base, dataset) for _ in range(2)]
    assert "In nothing" in text_of(site.get("/p/tea/runs/compare/", {"run": [run.pk for run in runs]}))


def test_too_few_or_too_many_runs_say_how_many_to_tick(site, cast):
    runs = [add_run(cast, f"run_{n}") for n in range(7)]
    for ids in ([], [runs[0].pk], [runs[0].pk, runs[0].pk]):
        assert "Choose runs first" in text_of(site.get("/p/tea/runs/compare/", {"run": ids}))
    assert "You ticked 7" in text_of(site.get("/p/tea/runs/compare/", {"run": [run.pk for run in runs]}))
    assert site.get("/p/tea/runs/compare/", {"run": [run.pk for run in runs[:6]]}).context["rows"]


def test_a_foreign_a_missing_and_a_nonsensical_run_are_all_not_found(site, cast, two):
    other = open_project(slug="coffee", name="Coffee", user=cast.stranger)
    foreign = add_run(cast, project=other)
    for run in (foreign.pk, uuid.uuid4(), "7", "'><b>"):
        for address in ("/p/tea/runs/compare/", f"{RUNS}/compare"):
            assert site.get(address, {"run": [two[0].pk, run]}).status_code == 404


def test_names_and_values_of_runs_are_escaped_wherever_they_stand(site, cast):
    evil = "<img src=x>"
    runs = [
        add_run(
            cast,
            evil,
            method=f"{evil}{n}",
            recipe={"options": {evil: evil}},
            result={"metrics": {evil: evil}},
        )
        for n in range(2)
    ]
    for address in ("/p/tea/runs/", f"/p/tea/runs/{runs[0].pk}/", "/p/tea/runs/compare/"):
        content = site.get(address, {"run": [run.pk for run in runs]} if "compare" in address else {}).content
        assert b"<img" not in content and b"&lt;img" in content


# --- who may ---

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


# --- by API ---


@pytest.fixture(params=["token", "session"])
def caller(request, cast) -> Caller:
    return Caller(cast.researcher, by=request.param)


def test_the_queue_is_told_by_api(caller, cast):
    add_run(cast, "busy", status=WorkStatus.RUNNING)
    older, urgent = add_run(cast, "older"), add_run(cast, "urgent")
    answer = caller.post(f"{RUNS}/{urgent.pk}/priority", {"priority": 3})
    assert (answer.status_code, answer.json()["priority"]) == (200, 3)
    queue = caller.get(f"{RUNS}/queue").json()
    assert [(each["position"], each["run"]["id"]) for each in queue["waiting"]] == [
        (1, str(urgent.pk)),
        (2, str(older.pk)),
    ]
    assert [each["run"]["step"] for each in queue["running"]] == ["busy"]
    for body in ({"priority": 1001}, {"priority": "high"}, {}, {"priority": 1, "run": "x"}):
        assert caller.post(f"{RUNS}/{urgent.pk}/priority", body).status_code == 400


def test_a_run_is_continued_and_duplicated_by_api(caller, cast, base, dataset):
    run = whole_run(cast, base, dataset, status=WorkStatus.FAILED, attempt=1)
    assert caller.post(f"{RUNS}/{run.pk}/continue").json()["status"] == "queued"
    refused = caller.post(f"{RUNS}/{run.pk}/continue")
    assert refused.status_code == 409 and "is not over" in refused.json()["detail"]
    copied = caller.post(f"{RUNS}/{run.pk}/duplicate")
    assert copied.status_code == 201
    assert (copied.json()["status"], copied.json()["duplicate_of"]) == ("draft", str(run.pk))
    assert caller.get(f"{RUNS}/{copied.json()['id']}").json()["recipe"]["options"] == run.recipe["options"]


def test_differences_are_told_by_api(caller, two):
    dpo, ppo = two
    told = caller.get(f"{RUNS}/compare?run={dpo.pk}&run={ppo.pk}").json()
    assert [run["id"] for run in told["runs"]] == [str(dpo.pk), str(ppo.pk)]
    beta = next(row for row in told["rows"] if row["name"] == "beta")
    assert beta == {"section": "options", "name": "beta", "values": [0.2, None], "differs": True}
    assert caller.get(f"{RUNS}/compare?run={dpo.pk}").status_code == 400
    assert caller.get(f"{RUNS}/compare?run={dpo.pk}&run={ppo.pk}&sort=x").status_code == 400


def test_every_method_is_known_to_the_filter_and_the_cast_has_a_base(cast, stored, tmp_path, site):
    add_base(cast, tmp_path / "b")
    form = site.get("/p/tea/runs/").context["form"]
    assert [name for name, _ in form.fields["method"].choices][1:] == list(METHODS)
