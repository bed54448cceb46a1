"""The ranking page over time: reservations that run out, and whatever order the steps come in."""

import pytest
from playwright.sync_api import expect

from annotation.models import Assignment, Judgment
from annotation.services.claims import expire_leases
from tests.cast import Cast, assemble, open_ranking
from tests.e2e.annotating import OpenPage, shown, sign_in

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

# 400 walks of 40 random steps; returns what broke a rule, each with the walk that did.
RANDOM_WALKS = """
async () => {
  const { Order } = await import("/static/annotation/ranking/order.js");
  let seed = 7;
  const random = (below) => {
    seed = (seed * 16807) % 2147483647;
    return seed % below;
  };
  const problems = [];
  for (let walk = 0; walk < 400; walk += 1) {
    const count = 2 + random(7), order = new Order(count), taken = [];
    for (let step = 0; step < 40; step += 1) {
      const position = 1 + random(count), place = 1 + random(count);
      const sequence = order.tiers().flat().filter((other) => other !== position);
      sequence.splice(random(sequence.length + 1), 0, position);
      const steps = [
        ["setPlace", position, place], ["tieWithLast", position], ["toggleTie", position],
        ["move", position, -1], ["move", position, 1], ["drag", position, sequence], ["drag", position, []],
      ];
      const [name, ...values] = steps[random(steps.length)];
      const before = order.places.join(), remembered = order.history.length;
      order[name](...values);
      taken.push([name, ...values]);
      const given = order.places.filter((each) => each !== null);
      if (given.some((each) => !(each >= 1 && each <= count))) problems.push(["out of range", taken]);
      if (order.tiers().flat().length !== given.length) problems.push(["lost", taken]);
      if (order.isComplete && new Set(given).size !== Math.max(...given)) problems.push(["gaps", taken]);
      if (order.history.length > remembered) {
        const after = [...order.places];
        order.undo();
        if (order.places.join() !== before) problems.push(["undo", taken]);
        order[name](...values);
        if (order.places.join() !== after.join()) problems.push(["repeat", taken]);
      }
    }
  }
  return problems.slice(0, 3);
}
"""


@pytest.fixture
def cast(live_server: object) -> Cast:
    return assemble()


def test_whatever_the_steps_a_complete_ranking_has_no_gaps_and_each_step_can_be_undone(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    open_ranking(cast, comparisons=1)
    page = open_page()
    sign_in(page, live_server.url)
    shown(page)
    assert page.evaluate(RANDOM_WALKS) == []


def test_a_reservation_is_warned_of_can_be_kept_and_after_its_end_the_ranking_still_counts(
    cast: Cast, live_server: object, open_page: OpenPage
) -> None:
    open_ranking(cast, comparisons=1, completions=2)
    page = open_page()
    page.clock.install()
    sign_in(page, live_server.url)
    shown(page)
    page.keyboard.press("1")

    page.clock.fast_forward("14:10")  # of 15 minutes, without a sign of life
    expect(page.get_by_text("is reserved for you for about 1 more minute.")).to_be_visible()
    page.get_by_role("button", name="Keep it").click()
    expect(page.get_by_text("is reserved for you")).to_have_count(0)

    Assignment.objects.update(lease_until="2020-01-01T00:00Z")
    assert expire_leases() == 1
    page.clock.fast_forward("40:00")
    expect(page.get_by_text("Your reservation has run out.")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="All done for now")).to_be_visible()
    judgment = Judgment.objects.get()
    assert judgment.is_counted
    assert judgment.active_seconds < 15 * 60  # an hour went by; the work took less
