"""What the tests of the ranking page share: signing in, finding things on it, and reading what was recorded."""

from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from annotation.models import Assignment, Judgment
from tests.cast import PASSWORD

OpenPage = Callable[..., Page]
DESKTOP = {"viewport": {"width": 1440, "height": 1000}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def sign_in(page: Page, site: str, username: str = "anna", path: str = "/p/tea/annotate/") -> None:
    page.goto(f"{site}{path}")
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{site}{path}")


def shown(page: Page) -> str:
    """Id of the assignment on the board, once there is one."""
    board = page.locator("#board[aria-busy=false]")
    expect(board).to_be_visible()
    return board.get_attribute("data-assignment") or ""


def next_after(page: Page, assignment: str) -> str:
    """Id of the assignment that follows."""
    expect(page.locator("#board")).not_to_have_attribute("data-assignment", assignment)
    return shown(page)


def card(page: Page, name: int | str) -> Locator:
    """The card of a completion: by number, or A and B in a pair."""
    return page.get_by_role("article", name=f"Completion {name}", exact=True)


def press(page: Page, keys: str) -> None:
    """Press keys one after the other, as a person would: letters and digits, or names between spaces."""
    for key in keys.split(" ") if " " in keys else keys:
        page.keyboard.press(key)


def newest(assignment: str) -> Judgment:
    return Judgment.objects.get(assignment=assignment, superseded_by=None)


def ranks_of(assignment: str) -> list[int]:
    """What was recorded, in the order in which this annotator saw the completions."""
    judgment = newest(assignment)
    ranks = dict(judgment.ranking.values_list("completion_id", "rank"))
    return [ranks[completion] for completion in judgment.assignment.shown_order]


def said_of(assignment: str, position: int):
    """The row about the completion shown at a position."""
    shown_order = Assignment.objects.get(pk=assignment).shown_order
    return newest(assignment).ranking.get(completion=shown_order[position - 1])


def steps_are_kept(page: Page) -> None:
    expect(page.locator("#kept")).to_have_text("Your steps are kept.")


def all_done(page: Page) -> None:
    expect(page.get_by_role("heading", name="All done for now")).to_be_visible()
