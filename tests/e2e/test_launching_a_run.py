"""Launching a training run by keyboard alone: choose, look at what the model would learn, accept, launch."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.cast import Cast, add_prompts, assemble
from tests.e2e.test_live_pages import open_signed_in
from tests.training.stage import draft, rank, to_ranking
from training import looking_over
from training.models import TrainingRun, WorkStatus
from training.services.checkpoints import register_base
from training.services.snapshots import snapshot_rounds

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def cast(live_server: object, settings, tmp_path, tiny_model) -> Cast:
    """The cast with a ranked round on a model whose tokenizer is real."""
    settings.ARTIFACTS_URL, settings.RUNS_FOLDER = str(tmp_path / "artifacts"), tmp_path / "runs"
    cast = assemble()
    add_prompts(cast, 12)
    round = draft(cast, register_base(project=cast.project, folder=tiny_model, name="tiny"), overlap=1)
    to_ranking(round)
    rank(cast, [cast.anna])
    snapshot_rounds(project=cast.project, rounds=[round])
    return cast


def press_until(page: Page, key: str, selector: str) -> None:
    """Press a key until the focus is there."""
    for _ in range(120):
        page.keyboard.press(key)
        if page.evaluate("selector => document.activeElement?.matches(selector)", selector):
            return
    pytest.fail(f"{selector} was not reached by {key}")


def test_a_run_is_chosen_looked_at_accepted_and_launched_by_keyboard(
    cast: Cast, live_server: object, open_page: Callable[..., Page]
) -> None:
    page = open_page()
    open_signed_in(page, f"{live_server.url}/p/tea/runs/")
    press_until(page, "Tab", "main a.button")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="New training run")).to_be_visible()
    press_until(page, "Tab", "a[href*='preset=cpu-smoke']")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Steps", exact=True)).to_have_value("4")
    press_until(page, "Tab", "#id_name")
    page.keyboard.type("By keyboard")
    press_until(page, "Tab", "#id_option_max_length")
    page.keyboard.press("Control+a")
    page.keyboard.type("100")
    press_until(page, "Tab", "main button[type=submit].big")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Looking it over")).to_be_visible()

    looking_over.check_run(TrainingRun.objects.get().pk)
    expect(page.get_by_role("heading", name="Ready to launch")).to_be_visible()
    example = page.locator("pre.tokens").first
    expect(example.locator(".special").first).to_have_text("<|im_start|>")
    expect(example.locator("mark").first).to_be_visible()
    colours = "mark => [getComputedStyle(mark).backgroundColor, getComputedStyle(mark.parentElement).backgroundColor]"
    learnt, around = example.locator("mark").first.evaluate(colours)
    assert learnt != around
    assert example.locator("del").count() > 0  # what max_length cuts off

    press_until(page, "Tab", "#accept")
    page.keyboard.press("Space")
    press_until(page, "Tab", "#launch")
    page.keyboard.press("Enter")
    expect(page.get_by_text("is launched and waits for a worker")).to_be_visible()
    run = TrainingRun.objects.get()
    assert (run.status, run.step, run.recipe["options"]["max_length"]) == (
        WorkStatus.QUEUED,
        "By keyboard",
        100,
    )
