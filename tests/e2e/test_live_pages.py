"""The researchers' pages renew themselves while work goes on."""

import uuid
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from annotation.services.claims import claim_comparison
from annotation.services.judgments import submit_judgment
from annotation.submissions import Submission
from tests.cast import PASSWORD, Cast, assemble, open_ranking
from training.models import RunMetric, TrainingRun, WorkStatus
from training.selectors import runs

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

OpenPage = Callable[..., Page]


@pytest.fixture
def cast(live_server: object) -> Cast:
    return assemble()


def open_signed_in(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_label("Username").fill("researcher")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(address)


def test_the_page_of_a_round_follows_its_ranking(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    open_ranking(cast, comparisons=2, overlap=1)
    page = open_page()
    open_signed_in(page, f"{live_server.url}/p/tea/rounds/1/")
    expect(page.get_by_text("0 of 2 places filled")).to_be_visible()
    page.get_by_role("link", name="Cancel round").focus()

    assignment = claim_comparison(project=cast.project, annotator=cast.anna)
    submit_judgment(assignment=assignment, submission=Submission(uuid.uuid4(), "ranked", (1, 2, 3, 4)))
    expect(page.get_by_text("1 of 2 places filled")).to_be_visible()
    expect(page.get_by_role("link", name="Cancel round")).to_be_focused()


def test_the_page_of_a_run_that_is_over_draws_measurements_of_every_page(
    cast: Cast, live_server: object, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "METRICS_PER_PAGE", 2)
    run = TrainingRun.objects.create(
        project=cast.project, step="dpo", method="dpo", status=WorkStatus.SUCCEEDED, attempt=1
    )
    for name in ("loss", "kl", "reward"):
        RunMetric.objects.bulk_create(
            RunMetric(run=run, attempt=1, step=step, name=name, value=1 / step) for step in (1, 2)
        )
    page = open_page()
    open_signed_in(page, f"{live_server.url}/p/tea/runs/{run.pk}/")
    for name in ("loss", "kl", "reward"):
        expect(page.locator(f"#curve-{name} canvas")).to_be_visible()


def test_the_page_of_a_run_draws_new_measurements_and_stops_when_it_is_over(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    run = TrainingRun.objects.create(
        project=cast.project, step="dpo", method="dpo", status=WorkStatus.RUNNING, attempt=1
    )
    page = open_page()
    open_signed_in(page, f"{live_server.url}/p/tea/runs/{run.pk}/")
    expect(page.get_by_text("No measurement yet.")).to_be_visible()

    RunMetric.objects.bulk_create(
        RunMetric(run=run, attempt=1, step=step, name="loss", value=1 / step) for step in (1, 2, 3)
    )
    expect(page.locator("#curve-loss canvas")).to_be_visible()
    TrainingRun.objects.update(status=WorkStatus.FAILED, error="The loss became nan. Lower the rate.")
    expect(page.get_by_text("The loss became nan. Lower the rate.")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel run")).to_have_count(0)
