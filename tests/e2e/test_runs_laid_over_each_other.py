"""Several runs in one chart, and in what they differ: chosen, drawn and read in a browser, by keyboard too."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.cast import Cast, assemble
from tests.e2e.test_live_pages import open_signed_in
from training.models import RunMetric, TrainingRun, WorkStatus

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

OpenPage = Callable[..., Page]
# The colours drawn in a chart, without what is nearly transparent; a line of each run has its own.
COLOURS = """(name) => {
  const canvas = document.querySelector(`#curve-${name} canvas`);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const counted = {};
  for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 250) {
    const colour = "#" + [0, 1, 2].map((j) => data[i + j].toString(16).padStart(2, "0")).join("");
    counted[colour] = (counted[colour] ?? 0) + 1;
  }
  return counted;
}"""
RUN_COLOURS = ["#2a56b8", "#b3470b", "#1d6b45"]


@pytest.fixture
def cast(live_server: object) -> Cast:
    return assemble()


def add_run(cast: Cast, name: str, level: float, **fields: Any) -> TrainingRun:
    """A run that is over, with a curve of its own height, and a reward when it is online."""
    options = fields.pop("options", {"steps": 8, "learning_rate": 0.0001})
    values = {"method": "dpo", "status": WorkStatus.SUCCEEDED, "attempt": 1, **fields}
    run = TrainingRun.objects.create(
        project=cast.project, step=name, recipe={"options": options, "threads": 1}, **values
    )
    names = {"loss": level, "held_out/accuracy": level / 2, **({"reward": 1} if run.method == "ppo" else {})}
    RunMetric.objects.bulk_create(
        RunMetric(run=run, attempt=1, step=step, name=name, value=value + (-0.1) ** step)
        for step in range(1, 9)
        for name, value in names.items()
    )
    return run


def drawn(page: Page, chart: str) -> list[str]:
    """The colours of runs that are drawn in a chart."""
    found = page.evaluate(COLOURS, chart)
    return [colour for colour in RUN_COLOURS if found.get(colour, 0) > 20]


def test_the_lines_of_two_runs_are_drawn_in_one_chart_each_in_its_colour(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    runs = [
        add_run(cast, "dpo", 0.7),
        add_run(cast, "ppo", 0.3, method="ppo", options={"steps": 8, "gamma": 1.0}),
    ]
    page = open_page(viewport={"width": 1200, "height": 900})
    open_signed_in(page, f"{live_server.url}/p/tea/runs/compare/?run={runs[0].pk}&run={runs[1].pk}")
    expect(page.locator("#curve-loss .u-legend")).to_contain_text("2. ppo")
    expect(page.locator("#curve-loss .u-legend")).to_contain_text("1. dpo")
    assert drawn(page, "loss") == RUN_COLOURS[:2]
    assert drawn(page, "reward") == RUN_COLOURS[1:2]  # only one of them measured it
    assert drawn(page, "held_out-accuracy") == RUN_COLOURS[:2]
    # Names are aligned across methods: one chart a metric, in the group it belongs to.
    assert page.locator("#curve-loss").count() == 1
    group = page.locator(".curve-group", has=page.locator("#curve-reward"))
    expect(group.get_by_role("heading", level=3)).to_have_text("Reward, KL and length")


def test_the_table_shows_what_differs_and_with_a_switch_everything(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    runs = [
        add_run(cast, "dpo", 0.7),
        add_run(cast, "dpo", 0.3, options={"steps": 8, "learning_rate": 0.0005}),
    ]
    page = open_page()
    open_signed_in(page, f"{live_server.url}/p/tea/runs/compare/?run={runs[0].pk}&run={runs[1].pk}")
    row = page.locator(".differences tr", has=page.get_by_role("rowheader", name="learning_rate", exact=True))
    expect(row.get_by_role("cell")).to_have_text(["0.0001", "0.0005"])
    same = page.locator(".differences tr.same", has_text="steps")
    expect(same).to_be_hidden()
    expect(page.get_by_role("rowheader", name="Inputs")).to_be_hidden()
    switch = page.get_by_label("Show what is equal, too")
    switch.focus()
    page.keyboard.press("Space")
    expect(same).to_be_visible()
    expect(same.get_by_role("cell")).to_have_text(["8", "8"])
    page.keyboard.press("Space")
    expect(same).to_be_hidden()


def test_runs_are_ticked_and_compared_by_keyboard_alone(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    runs = [add_run(cast, name, 0.5) for name in ("one", "two", "three")]
    page = open_page()
    open_signed_in(page, f"{live_server.url}/p/tea/runs/")
    button = page.get_by_role("button", name="Compare")
    expect(button).to_be_disabled()
    for run in runs[:2]:
        page.get_by_label(f"Compare {run}").focus()
        page.keyboard.press("Space")
    expect(page.get_by_text("2 are ticked.")).to_be_visible()
    expect(button).to_be_enabled()
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Compare runs")).to_be_visible()
    expect(page.locator("#curve-loss .u-legend")).to_contain_text(
        "1. two"
    )  # the newest stands first in the list
    expect(page.locator("#curve-loss .u-legend")).to_contain_text("2. one")

    page.get_by_label("Smooth").focus()
    before = page.locator("#curve-loss canvas").evaluate("(canvas) => canvas.toDataURL()")
    page.keyboard.press("Space")
    expect(page.get_by_label("Smooth")).to_be_checked()
    page.wait_for_function(
        "(before) => document.querySelector('#curve-loss canvas').toDataURL() !== before", arg=before
    )
    page.go_back()
    expect(page.get_by_role("button", name="Compare")).to_be_visible()


def test_the_overlay_follows_runs_that_are_still_at_work_and_loses_nothing_when_it_is_closed(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    over = add_run(cast, "over", 0.7)
    live = add_run(cast, "live", 0.3, status=WorkStatus.RUNNING)
    address = f"{live_server.url}/p/tea/runs/compare/?run={over.pk}&run={live.pk}"
    page = open_page()
    open_signed_in(page, address)
    expect(page.locator("#curve-loss .u-legend")).to_contain_text("2. live")
    expect(page.locator("#curve-kl")).to_have_count(0)
    RunMetric.objects.create(run=live, attempt=1, step=9, name="kl", value=2.0)
    expect(page.locator("#curve-kl canvas")).to_be_visible()
    page.close()

    RunMetric.objects.create(run=live, attempt=1, step=10, name="reward", value=1.0)
    again = open_page()
    open_signed_in(again, address)
    for metric in ("loss", "kl", "reward"):
        expect(again.locator(f"#curve-{metric} canvas")).to_be_visible()
    assert TrainingRun.objects.get(pk=live.pk).status == WorkStatus.RUNNING


def test_the_order_of_the_queue_is_changed_by_keyboard_and_the_focus_stays(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    first, second = (add_run(cast, name, 0.5, status=WorkStatus.QUEUED) for name in ("first", "second"))
    page = open_page()
    open_signed_in(page, f"{live_server.url}/p/tea/runs/")
    places = page.get_by_role("table").first.get_by_role("link")
    expect(places).to_have_text([str(first), str(second)])
    page.get_by_role("button", name=f"Raise {second}").focus()
    page.keyboard.press("Enter")
    expect(places).to_have_text([str(second), str(first)])
    # What happens elsewhere comes in by itself, and leaves the focus where it is.
    page.get_by_role("button", name=f"Cancel {first}").focus()
    TrainingRun.objects.filter(pk=second.pk).update(status=WorkStatus.RUNNING)
    expect(places).to_have_text([str(first)])
    expect(page.get_by_role("button", name=f"Cancel {first}")).to_be_focused()
