"""The progress page and the statistics API: what is counted, for whom, and who may see it."""

import re
import uuid
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from annotation.models import Comparison, Project, Round, Slot
from annotation.selectors import progress as selector
from annotation.selectors.progress import progress_of_project
from annotation.services.claims import claim_comparison, skip_comparison
from annotation.services.judgments import Submission, submit_judgment
from annotation.services.members import open_project
from tests.annotation.judging import comparisons_of, judge, revise
from tests.cast import Cast, add_simulated, assemble

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
PAGE = "/p/tea/progress/"
API = "/api/v1/projects/tea/statistics"


@pytest.fixture(autouse=True)
def today():
    """It is noon; judgments are written in the past by moving the clock further."""
    with patch("django.utils.timezone.now", return_value=NOW):
        yield


@pytest.fixture
def cast() -> Cast:
    return assemble()


def text_of(answer) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode()))


# --- what is counted ---


def test_counted_surplus_and_every_outcome_are_told_apart(cast):
    one, two, three, four = comparisons_of(cast, 4, completions=2, overlap=1)
    judge(one, cast.anna, (1, 2), seconds=30)
    judge(one, cast.ben, (1, 2), counted=False, seconds=0)
    judge(two, cast.anna, outcome="all_bad", seconds=10)
    judge(three, cast.anna, outcome="cannot_judge", seconds=20, when=NOW - timedelta(days=1))
    found = progress_of_project(cast.project)
    assert (found.judgments, found.counted, found.surplus, found.today) == (4, 3, 1, 3)
    assert (found.ranked, found.all_bad, found.cannot_judge, found.demonstrated) == (2, 1, 1, 0)
    anna, ben = found.annotators
    assert (anna.annotator, anna.judgments, anna.surplus, anna.today) == ("anna", 3, 0, 2)
    assert (anna.active_seconds, anna.median_seconds, found.active_seconds) == (60, 20, 60)
    assert (anna.all_bad, anna.cannot_judge, anna.last_judgment) == (pytest.approx(1 / 3), 1, NOW)
    assert (ben.annotator, ben.surplus, ben.all_bad, ben.median_seconds) == ("ben", 1, 0, None)
    assert four.slots.get().state == "open"


def test_only_the_newest_judgment_counts_and_a_withdrawn_one_not_at_all(cast):
    one, two = comparisons_of(cast, 2, completions=2, overlap=1)
    revise(judge(one, cast.anna, (1, 2)), "all_bad")
    revise(judge(two, cast.anna, (1, 2)), "withdrawn")
    found = progress_of_project(cast.project)
    assert (found.judgments, found.ranked, found.all_bad) == (1, 0, 1)
    assert [row.judgments for row in found.annotators] == [1]
    assert (found.compared, found.earlier_preferred.rate) == (0, None)


def test_days_are_in_utc_and_empty_ones_are_there(cast):
    one, two, three = comparisons_of(cast, 3, completions=2, overlap=2)
    late = datetime(2026, 11, 23, 23, 59, tzinfo=UTC)
    judge(one, cast.anna, (1, 2), when=late, seconds=5)
    judge(one, cast.ben, (1, 2), when=late + timedelta(minutes=2))
    judge(two, cast.anna, (1, 2), when=late, seconds=6)
    judge(three, cast.anna, (1, 2), when=NOW - timedelta(days=40))
    days = progress_of_project(cast.project).days
    assert (len(days), days[0].day, days[-1].day) == (30, NOW.date() - timedelta(days=29), NOW.date())
    by_day = {str(day.day): (day.counted, day.annotators, day.active_seconds) for day in days if day.counted}
    assert by_day == {"2026-11-23": (2, 1, 11), "2026-11-24": (1, 1, 10)}


def test_people_and_simulated_annotators_never_meet_in_one_figure(cast):
    robot, other = add_simulated(cast, 2)
    one = comparisons_of(cast, 1, completions=2)[0]
    two = comparisons_of(cast, 1, completions=2, audience="rehearsal")[0]
    judge(one, cast.anna, (1, 2))
    judge(one, cast.ben, (1, 2))
    judge(two, robot, (1, 2))
    judge(two, other, (2, 1))
    people = progress_of_project(cast.project)
    simulated = progress_of_project(cast.project, source="rehearsal")
    assert [row.annotator for row in people.annotators] == ["anna", "ben"]
    assert {row.annotator for row in simulated.annotators} == {"rehearsal-1", "rehearsal-2"}
    assert (people.agreement.share, simulated.agreement.share) == (1.0, 0.0)
    assert [round.number for round in people.rounds] == [1]
    assert [round.number for round in simulated.rounds] == [2]
    assert people.has_rehearsal and simulated.has_rehearsal
    assert (people.counted, simulated.counted) == (2, 2)


def test_another_project_is_not_looked_at(cast):
    other = open_project(slug="coffee", name="Coffee", user=cast.admin)
    judge(comparisons_of(cast, 1, completions=2)[0], cast.anna, (1, 2))
    found = progress_of_project(other)
    assert (found.judgments, found.rounds, found.annotators, found.skips) == (0, [], [], [])


# --- agreement, ties, positions ---


def test_agreement_ties_and_everyones_share_are_over_pairs_of_completions(cast):
    one, two, three = comparisons_of(cast, 3, completions=3, overlap=2)
    judge(one, cast.anna, (1, 2, 3), shown=(2, 0, 1))
    judge(one, cast.ben, (1, 3, 2), shown=(1, 2, 0))
    judge(two, cast.anna, (1, 1, 2))
    judge(two, cast.ben, (1, 1, 2))
    judge(three, cast.anna, (1, 2, 3))
    found = progress_of_project(cast.project)
    assert (found.agreement.comparisons, found.agreement.pairs, found.agreement.annotators) == (2, 6, 2)
    assert found.agreement.share == pytest.approx(5 / 6)
    assert found.compared == 5
    by_name = {row.annotator: row for row in found.annotators}
    assert (by_name["anna"].ties, by_name["ben"].ties) == (pytest.approx(1 / 9), pytest.approx(1 / 6))
    for row in by_name.values():
        assert (row.shared_pairs, row.agreement) == (6, pytest.approx(5 / 6))


def test_the_position_is_that_on_the_page_not_that_of_the_id(cast):
    one, two, three = comparisons_of(cast, 3, completions=3, overlap=2)
    judge(one, cast.anna, (3, 1, 2), shown=(1, 2, 0))  # just as it was shown: 1, 2, 3
    judge(one, cast.ben, (1, 2, 3), shown=(2, 1, 0))  # the other way round
    judge(two, cast.anna, (2, 1, 1), shown=(1, 0, 2))  # 1, 2, 1: 1 + 0.5 + 0 of three pairs
    found = progress_of_project(cast.project).earlier_preferred
    assert found.rate == pytest.approx((1 + 0 + 0.5) / 3)
    assert (found.judgments, found.prompts, found.annotators) == (3, 2, 2)
    judge(three, cast.anna, outcome="all_bad")
    judge(three, cast.ben, outcome="cannot_judge")
    assert progress_of_project(cast.project).earlier_preferred == found


def test_rounds_of_different_sizes_are_compared_together(cast):
    pair = comparisons_of(cast, 1, completions=2)[0]
    four = comparisons_of(cast, 1, completions=4)[0]
    for annotator in (cast.anna, cast.ben):
        judge(pair, annotator, (1, 2))
        judge(four, annotator, (2, 1, 3, 4), shown=(1, 0, 2, 3))
    found = progress_of_project(cast.project)
    assert (found.agreement.alpha, found.agreement.pairs) == (1.0, 7)
    assert found.earlier_preferred.rate == 1.0


def test_comparisons_chosen_by_hand_and_surplus_bend_no_figure(cast):
    one, two = comparisons_of(cast, 2, completions=2, overlap=1)
    Comparison.objects.filter(pk=two.pk).update(kind="gold")
    judge(one, cast.anna, (1, 2))
    judge(one, cast.ben, (2, 1), counted=False)
    judge(two, cast.anna, (1, 2))
    found = progress_of_project(cast.project)
    assert (found.judgments, found.compared, found.agreement.comparisons) == (3, 1, 0)
    assert found.annotators[0].agreement is None


def test_only_the_newest_rankings_are_compared_and_the_page_says_so(client, cast, monkeypatch):
    monkeypatch.setattr(selector, "MOST_COMPARED", 2)
    monkeypatch.setattr("annotation.views.progress.MOST_COMPARED", 2)
    one, two = comparisons_of(cast, 2, completions=2, overlap=2)
    judge(one, cast.anna, (2, 1))
    judge(two, cast.anna, (1, 2))
    client.force_login(cast.reviewer)
    assert "come from the newest 2 rankings" in text_of(client.get(PAGE))
    judge(two, cast.ben, (1, 2))
    found = progress_of_project(cast.project)
    assert (found.compared, found.judgments, found.earlier_preferred.rate) == (2, 3, 1.0)


# --- work left ---


def test_places_are_left_while_a_round_is_ranked(cast):
    one = comparisons_of(cast, 3, completions=2, overlap=2)[0]
    claim_comparison(project=cast.project, annotator=cast.anna)  # held: still to be filled
    judge(one, cast.ben, (1, 2))
    comparisons_of(cast, 2, completions=2, overlap=1)
    Round.objects.filter(number=2).update(status="cancelled")
    Slot.objects.filter(round__number=2).update(state="closed")
    found = progress_of_project(cast.project)
    assert [(r.number, r.status, r.filled, r.left, r.closed) for r in found.rounds] == [
        (2, "cancelled", 0, 0, 2),
        (1, "ranking", 1, 5, 0),
    ]
    assert found.forecast.remaining == 5


def test_the_forecast_comes_from_counted_judgments_of_the_days_before(cast):
    comparisons = comparisons_of(cast, 12, completions=2, overlap=1)
    for number, comparison in enumerate(comparisons[:6]):
        judge(comparison, cast.anna, (1, 2), when=NOW - timedelta(days=1 + number // 2))
        judge(comparison, cast.ben, (1, 2), counted=False, when=NOW - timedelta(days=1 + number // 2))
    found = progress_of_project(cast.project).forecast
    assert (found.remaining, found.per_day, found.days) == (6, 2.0, 3)
    assert found.earliest == found.on == found.latest == NOW.date() + timedelta(days=3)


def test_a_paused_project_has_no_forecast(cast):
    comparisons_of(cast, 1)
    Project.objects.update(is_paused=True)
    found = progress_of_project(Project.objects.get()).forecast
    assert (found.on, found.remaining, found.why_not) == (None, 2, "No forecast: the project is paused.")


def test_skips_are_counted_by_reason_and_for_nobody(client, cast, monkeypatch):
    monkeypatch.setattr(selector, "MOST_REASONS", 2)
    comparisons_of(cast, 6, completions=2)
    reasons = ["too long", "too long", "", "<script>alert(1)</script>", "tired"]
    for reason in reasons:
        assignment = claim_comparison(project=cast.project, annotator=cast.anna)
        skip_comparison(assignment=assignment, reason=reason)
    last = claim_comparison(project=cast.project, annotator=cast.anna)
    submit_judgment(assignment=last, submission=Submission(uuid.uuid4(), "ranked", (1, 2)))
    found = progress_of_project(cast.project)
    assert [(skip.reason, skip.times) for skip in found.skips] == [
        ("too long", 2),
        ("no reason given", 1),
        ("other reasons", 2),
    ]
    monkeypatch.setattr(selector, "MOST_REASONS", 9)
    client.force_login(cast.reviewer)
    body = client.get(PAGE).content.decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in body and "<script>alert" not in body
    told = client.get(API).json()
    assert not any("skip" in name for row in told["annotators"] for name in row)


# --- page and API ---


@pytest.mark.parametrize("address", [PAGE, API])
@pytest.mark.parametrize(
    ("who", "status"),
    [("anna", 404), ("stranger", 404), ("reviewer", 200), ("researcher", 200), ("admin", 200)],
)
def test_it_is_for_reviewers_and_up(client: Client, cast: Cast, address: str, who: str, status: int):
    client.force_login(getattr(cast, who))
    assert client.get(address).status_code == status


def test_visitors_sign_in_first(client, cast):
    assert client.get(PAGE).url.startswith("/sign-in/")
    assert client.get(API).status_code in (401, 403)


def test_a_missing_project_and_a_foreign_one_give_the_same_404(client, cast):
    client.force_login(cast.stranger)
    for mine, missing in ((PAGE, "/p/nowhere/progress/"), (API, "/api/v1/projects/nowhere/statistics")):
        one, other = client.get(mine), client.get(missing)
        assert one.status_code == other.status_code == 404


def test_the_tab_is_there_for_those_who_may_open_it(client, cast):
    for who, there in (("anna", False), ("reviewer", True)):
        client.force_login(getattr(cast, who))
        assert (f'href="{PAGE}"' in client.get("/p/tea/").content.decode()) is there


def test_the_page_and_the_api_tell_the_same(client, cast):
    one, two = comparisons_of(cast, 2, completions=2, overlap=2)
    judge(one, cast.anna, (1, 2), seconds=4000)
    judge(one, cast.ben, (1, 1))
    judge(two, cast.anna, (1, 2))
    judge(two, cast.ben, (1, 2))
    client.force_login(cast.reviewer)
    told = client.get(API).json()
    page = text_of(client.get(PAGE))
    assert told["counted"] == 4 and "judgments counted 4" in page
    assert f"Krippendorff's alpha {told['agreement']['alpha']:.2f}" in page
    assert told["agreement"]["reading"] in page
    assert told["earlier_preferred"]["rate"] == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert "What is shown earlier is preferred in 88 %" in page
    assert [row["annotator"] for row in told["annotators"]] == ["anna", "ben"]
    assert "1 h 6 min" in page
    assert (len(told["days"]), told["days"][-1]["counted"]) == (30, 4)
    assert told["rounds"] == [
        {"number": 1, "name": "Round 1", "status": "ranking", "filled": 4, "left": 0, "closed": 0}
    ]
    assert told["forecast"]["why_not"] in page
    assert not any(name.endswith("_id") or name == "id" for row in told["annotators"] for name in row)


def test_an_unknown_source_is_refused_with_what_there_is(client, cast):
    client.force_login(cast.reviewer)
    answer = client.get(API, {"source": "imported"})
    assert answer.status_code == 400
    assert "source" in answer.json()["fields"]
    assert client.get(PAGE, {"source": "imported"}).status_code == 404


def test_the_switch_to_simulated_annotators_shows_when_there_are_any(client, cast):
    robot = add_simulated(cast, 1)[0]
    client.force_login(cast.reviewer)
    assert "?source=rehearsal" not in client.get(PAGE).content.decode()
    judge(comparisons_of(cast, 1, completions=2, audience="rehearsal")[0], robot, (1, 2))
    people = client.get(PAGE)
    assert "?source=rehearsal" in people.content.decode()
    assert "rehearsal-1" not in text_of(people)
    simulated = text_of(client.get(PAGE, {"source": "rehearsal"}))
    assert "rehearsal-1" in simulated
    assert "nothing about what people prefer" in simulated


def test_an_empty_page_says_what_comes_next(client, cast):
    client.force_login(cast.reviewer)
    page = client.get(PAGE)
    assert "It begins as soon as a researcher launches a round." in text_of(page)
    assert "Launch round" not in text_of(page)
    client.force_login(cast.researcher)
    assert "Launch round" in text_of(client.get(PAGE))
    comparisons_of(cast, 1)
    assert "2 places wait to be filled." in text_of(client.get(PAGE))


def test_names_of_rounds_are_escaped(client, cast):
    comparisons_of(cast, 1)
    Round.objects.update(name="<img src=x onerror=alert(1)>")
    client.force_login(cast.reviewer)
    body = client.get(PAGE).content.decode()
    assert "<img" not in body and "&lt;img src=x" in body


def test_more_judgments_and_annotators_take_no_more_queries(client, cast):
    comparisons = comparisons_of(cast, 4, completions=3, overlap=2)
    judge(comparisons[0], cast.anna, (1, 2, 3))
    client.force_login(cast.reviewer)

    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as seen:
            assert client.get(PAGE).status_code == 200
        return len(seen)

    few = queries()
    for comparison in comparisons[1:]:
        judge(comparison, cast.anna, (1, 2, 3))
        judge(comparison, cast.ben, (1, 1, 1))
    judge(comparisons_of(cast, 1, completions=2)[0], cast.researcher, (1, 2))
    assert queries() == few <= 11
