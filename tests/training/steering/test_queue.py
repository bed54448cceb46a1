"""The queue of runs: its order, its places, its filters."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from annotation.services.members import open_project
from rankloop.audit.models import AuditEvent
from rankloop.errors import Conflict, Refused
from tests.api import Caller
from tests.pages import text_of
from tests.training.stage import to_training, train
from tests.training.steering.stage import RUNS, add_run
from training.models import RunMetric, TrainingRun, WorkStatus
from training.recipes.options import METHODS
from training.selectors.runs import queue_of, remaining_seconds, waiting
from training.services.steering import change_priority
from training.services.work import to_claim

pytestmark = pytest.mark.django_db


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


def test_every_method_is_known_to_the_filter(site):
    form = site.get("/p/tea/runs/").context["form"]
    assert [name for name, _ in form.fields["method"].choices][1:] == list(METHODS)
