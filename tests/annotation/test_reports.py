"""Reports of annotators: who sees them, and how they are resolved."""

import pytest
from django.test import Client

from annotation.models import Assignment, Completion, Report
from annotation.selectors.review import waiting_for_review
from annotation.services.claims import claim_comparison
from annotation.services.reports import report_comparison
from annotation.services.review import resolve_report
from rankloop.audit.models import AuditEvent
from rankloop.errors import Conflict, Refused
from tests.cast import Cast, assemble, open_ranking
from tests.pages import text_of

pytestmark = pytest.mark.django_db
PAGE = "/p/tea/review/"
API = "/api/v1/projects/tea/reports"


@pytest.fixture
def cast() -> Cast:
    return assemble()


@pytest.fixture
def report(cast: Cast) -> Report:
    open_ranking(cast, comparisons=2)
    assignment = claim_comparison(project=cast.project, annotator=cast.anna)
    return report_comparison(
        assignment=assignment, category="personal", text="There is a phone number in it."
    )


def test_a_report_shows_its_texts_in_the_order_its_annotator_saw(
    client: Client, cast: Cast, report: Report
) -> None:
    shown = report.assignment.shown_order[::-1]
    Assignment.objects.filter(pk=report.assignment_id).update(shown_order=shown)
    for number, pk in enumerate(shown, 1):
        Completion.objects.filter(pk=pk).update(text=f"Text at place {number}.")
    client.force_login(cast.reviewer)
    page = text_of(client.get(PAGE))
    assert "Personal data reported by anna in round 1" in page
    assert "There is a phone number in it." in page
    assert "How do I brew tea" in page
    places = [page.index(f"Text at place {number}.") for number in range(1, 5)]
    assert places == sorted(places)
    (listed,) = client.get(API).json()["results"]
    assert listed["completions"] == [f"Text at place {number}." for number in range(1, 5)]
    assert (listed["category"], listed["annotator"], listed["round"]) == ("personal", "anna", 1)
    assert listed["messages"] == report.assignment.comparison.prompt.messages


@pytest.mark.parametrize("who", ["anna", "stranger"])
def test_reports_are_not_there_for_others(client: Client, cast: Cast, report: Report, who: str) -> None:
    client.force_login(getattr(cast, who))
    assert client.get(API).status_code == 404
    sent = client.post(f"{API}/{report.pk}/resolve", {"note": "Fine."}, "application/json")
    assert sent.status_code == 404
    assert client.post(PAGE, {"report": report.pk, "note": "Fine."}).status_code == 404
    report.refresh_from_db()
    assert report.resolved_at is None


def test_a_report_of_another_project_is_not_there(client: Client, cast: Cast, report: Report) -> None:
    from annotation.services.members import open_project

    open_project(slug="coffee", name="Coffee", user=cast.stranger)
    client.force_login(cast.stranger)
    address = "/api/v1/projects/coffee/reports"
    assert client.get(address).json()["results"] == []
    for pk in (report.pk, 999_999):
        assert client.post(f"{address}/{pk}/resolve", {"note": "x"}, "application/json").status_code == 404


def test_resolving_takes_a_note_and_is_recorded_once(client: Client, cast: Cast, report: Report) -> None:
    client.force_login(cast.reviewer)
    assert waiting_for_review(cast.project) == 1
    empty = client.post(PAGE, {"report": report.pk, "note": " "})
    assert empty.status_code == 400
    assert "Say in a few words what was done" in text_of(empty)
    for _ in range(2):
        assert client.post(PAGE, {"report": report.pk, "note": "Left out."}).status_code == 302
    report.refresh_from_db()
    assert (report.resolution, report.resolved_by) == ("Left out.", cast.reviewer)
    assert waiting_for_review(cast.project) == 0
    event = AuditEvent.objects.get(action="report resolved")
    assert (event.actor, event.project, event.details) == (cast.reviewer, "tea", {"note": "Left out."})
    page = text_of(client.get(PAGE))
    assert "Nothing is reported" in page
    assert "Resolved lately" in page
    assert "Left out." in page


def test_the_second_of_two_who_resolve_it_is_told_what_was_done(cast: Cast, report: Report) -> None:
    same = Report.objects.get(pk=report.pk)
    resolve_report(report=report, user=cast.reviewer, note="Left out.")
    with pytest.raises(Conflict, match="reviewer has resolved this report already: Left out"):
        resolve_report(report=same, user=cast.researcher, note="Nothing wrong.")
    with pytest.raises(Refused, match="few words"):
        resolve_report(report=same, user=cast.researcher, note="")
    report.refresh_from_db()
    assert (report.resolution, report.resolved_by) == ("Left out.", cast.reviewer)


def test_the_api_resolves_and_lists_what_was_resolved(client: Client, cast: Cast, report: Report) -> None:
    client.force_login(cast.reviewer)
    address = f"{API}/{report.pk}/resolve"
    assert client.post(address, {}, "application/json").status_code == 400
    done = client.post(address, {"note": "Left out."}, "application/json").json()
    assert (done["resolution"], done["resolved_by"]) == ("Left out.", "reviewer")
    client.force_login(cast.researcher)
    assert client.post(address, {"note": "Other."}, "application/json").status_code == 409
    assert client.get(API).json()["results"] == []
    assert len(client.get(f"{API}?resolved=true").json()["results"]) == 1


def test_every_text_is_escaped(client: Client, cast: Cast, report: Report) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    Report.objects.filter(pk=report.pk).update(text=evil)
    Completion.objects.update(text=evil)
    prompt = report.assignment.comparison.prompt
    prompt.messages = [{"role": "user", "content": evil}]
    prompt.save()
    client.force_login(cast.reviewer)
    html = client.get(PAGE).content.decode()
    assert html.count("&lt;script&gt;alert(2)") == 6
    report.refresh_from_db()
    resolve_report(report=report, user=cast.reviewer, note=evil)
    html += client.get(PAGE).content.decode()
    assert "<img" not in html
    assert "<script>" not in html


def test_a_report_says_that_a_phrase_was_masked(client: Client, cast: Cast, report: Report) -> None:
    client.force_login(cast.reviewer)
    assert "was masked for them" not in text_of(client.get(PAGE))
    Assignment.objects.update(leak_masked=True)
    assert "was masked for them" in text_of(client.get(PAGE))


def test_a_report_of_a_demonstration_has_no_completions(client: Client, cast: Cast, report: Report) -> None:
    Assignment.objects.update(shown_order=[])
    client.force_login(cast.reviewer)
    assert "in the order" not in text_of(client.get(PAGE))
    assert client.get(API).json()["results"][0]["completions"] == []
