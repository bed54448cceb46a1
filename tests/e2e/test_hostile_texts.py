"""Whatever a person, an import or a model writes: no page runs it, asks elsewhere for it, or shows inline code.

Each of more than 300 payloads stands in every text that is long enough for it, and every page is opened in a real
browser.
"""

import re
from collections.abc import Callable, Iterator

import pytest
from django.test import Client
from django.urls import URLPattern, get_resolver, reverse
from playwright.sync_api import Browser, Page, expect

from annotation.models import Assignment
from annotation.services.claims import save_draft
from rankloop.accounts.models import User
from tests.cast import Cast, assemble, open_ranking
from tests.e2e.annotating import DESKTOP, next_after, press, shown
from tests.e2e.conftest import wait_until_served
from tests.e2e.hostile import BREAKOUTS, ELSEWHERE, PAYLOADS
from tests.e2e.hostile_stage import ALL, GROUPS, Stage, name_flags, set_up
from tests.e2e.watch import Watch

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

Opened = Callable[[User | None], tuple[Page, Watch]]
CALL = re.compile(r"__xss\((\d+)\)")
# One answer to all that an address or a form may be asked.
SMUGGLED = "\"'`></title></textarea></script><img src=x onerror=__xss(4)><svg/onload=__xss(5)>{{7*7}}"
# What any of the pages may be asked.
QUERY = "page={0}&a={0}&b={0}&split={0}&show={0}&version={0}&since={0}&revise={0}&next={0}&sort={0}&seen={0}&q={0}"


@pytest.fixture
def cast(live_server: object) -> Cast:
    return assemble()


@pytest.fixture
def opened(browser: Browser, live_server: object) -> Iterator[Opened]:
    """A page of its own in which a user is signed in, and its watch."""
    contexts = []

    def open_(user: User | None) -> tuple[Page, Watch]:
        context = browser.new_context(**DESKTOP)
        contexts.append(context)
        context.set_default_timeout(20_000)
        if user is not None:
            client = Client()
            client.force_login(user)
            for name, cookie in client.cookies.items():
                context.add_cookies([{"name": name, "value": cookie.value, "url": live_server.url}])
        watch = Watch(context, live_server.url)
        return context.new_page(), watch

    yield open_
    for context in contexts:
        context.close()
    wait_until_served()


def test_there_are_enough_payloads_and_no_two_are_equal() -> None:
    assert len(set(PAYLOADS)) == len(PAYLOADS) >= 300
    assert len({payload for payload in PAYLOADS if CALL.search(payload) or ELSEWHERE in payload}) >= 300


# --- the watch itself ---


def test_payloads_shown_without_care_run_and_the_watch_sees_it(opened: Opened, live_server: object) -> None:
    page, watch = opened(None)
    careless = f"<p onclick=x style='color:red'>{PAYLOADS[0]}</p><main></main>"
    page.route("**/careless/", lambda route: route.fulfill(content_type="text/html", body=careless))
    watch.open(page, "/careless/")
    # Without those that lead away from the page, and with it from those after them.
    staying = [
        text for text in PAYLOADS if "http-equiv" not in text and "<base" not in text and len(text) < 500
    ]
    page.evaluate(
        """(texts) => {
          for (const text of texts) document.body.appendChild(document.createElement("div")).innerHTML = text;
        }""",
        staying,
    )
    for _ in range(100):  # images that fail, and dialogs in the way, take their time
        if len(watch.ran) > 60:
            break
        page.wait_for_timeout(100)
    watch.look(page)
    assert 1 in watch.ran, "a script in the served HTML"
    assert len(watch.ran) > 60
    inline = "inline: ['onclick', 'style']"
    for kind in ("dialog", f"request to http://{ELSEWHERE}", inline, "no strict CSP", "onerror:"):
        assert any(kind in trouble for trouble in watch.troubles), kind


def test_a_page_that_forgot_to_clean_is_found_out_though_the_csp_holds(
    cast: Cast, opened: Opened, live_server: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotation.selectors.board.safe_html", lambda text: text)
    round = open_ranking(cast, comparisons=1, completions=2)
    round.comparisons.get().completions.update(text="<img src=x onerror=__xss(1)>")
    page, watch = opened(cast.anna)
    watch.open(page, "/p/tea/annotate/")
    shown(page)
    watch.look(page)
    assert watch.ran == set()
    assert any("CSP" in trouble for trouble in watch.troubles)
    assert any(trouble.startswith("onerror") for trouble in watch.troubles)


# --- the ranking page ---


@pytest.mark.slow
def test_the_ranking_page_in_every_mode(cast: Cast, opened: Opened, live_server: object) -> None:
    stage = set_up(cast)
    page, watch = opened(cast.anna)
    watch.open(page, "/p/tea/annotate/")
    page.wait_for_selector("#board[aria-busy=false]")
    read = [_ranking(page, watch, stage, number) for number in range(len(GROUPS))]
    assert_shown("\n".join(read))

    for _ in range(2):
        assignment = shown(page)
        expect(page.locator("#board")).to_have_class(re.compile("is-pair"))
        press(page, "ved")
        watch.look(page)
        press(page, "Escape 1 Enter")
        next_after(page, assignment)
    _demonstration(page, watch)
    page.keyboard.press("g")
    expect(page.locator("#guideline-changes ins").first).to_be_visible()
    watch.look(page)
    assert watch.troubles == []


def _ranking(page: Page, watch: Watch, stage: Stage, number: int) -> str:
    """One comparison: notes and differences are opened; what was there to read."""
    assignment = shown(page)
    name_flags(stage.cast.project, number)
    if number == 1:
        _keep_draft(page, assignment)
    press(page, "ven")  # shown, unfolded, with notes
    if number % 4 == 0:
        press(page, "Escape d")
        expect(page.locator("#differences-left-text")).not_to_be_empty()
    watch.look(page)
    text = page.locator("#completions").inner_text() + page.locator("#messages").inner_text()
    press(page, "Escape a Enter")
    # Quicker than `next_after`, which looks only now and then: there are many comparisons.
    page.wait_for_selector(f"#board[aria-busy=false]:not([data-assignment='{assignment}'])")
    return text


def _keep_draft(page: Page, assignment: str) -> None:
    notes = [
        {"position": n, "flags": [], "aspects": {}, "comment": ALL[:1900], "better": ALL[:19_000]}
        for n in range(1, 9)
    ]
    draft = {
        "places": [1, SMUGGLED],
        "strength": SMUGGLED,
        "notes": notes,
        "answer": ALL,
        "active_seconds": SMUGGLED,
    }
    save_draft(assignment=Assignment.objects.get(pk=assignment), draft=draft)
    page.reload()
    assert shown(page) == assignment


def _demonstration(page: Page, watch: Watch) -> None:
    shown(page)
    answer = page.get_by_label("The answer you would want to be given")
    for text in (*PAYLOADS[::25], ALL[:19_000]):
        answer.fill(text)
        with page.expect_response("**/preview"):
            pass
        watch.look(page)
    expect(page.locator("#kept")).to_have_text("Your steps are kept.")
    kept = answer.input_value()
    page.reload()
    assert shown(page)
    expect(answer).to_have_value(kept)
    watch.look(page)


def assert_shown(text: str) -> None:
    """Nearly every payload was there to read, as text. The others stand in an address or a title of Markdown's."""
    wanted = {int(number) for payload in PAYLOADS for number in CALL.findall(payload)}
    missing = wanted - {int(number) for number in CALL.findall(text)}
    assert len(missing) < len(wanted) * 0.1, [PAYLOADS[number - 1] for number in sorted(missing)]


# --- every other page ---


@pytest.mark.slow
def test_every_page_of_the_site(cast: Cast, opened: Opened, live_server: object) -> None:
    stage = set_up(cast)
    page, watch = opened(cast.admin)
    client = Client()
    client.force_login(cast.admin)
    read, visited = [], 0
    for name, parts in addresses():
        path = reverse(name, kwargs={part: stage.addresses[part] for part in parts})
        answer = client.get(path)
        if answer.status_code == 405 or "text/html" not in answer.headers["Content-Type"]:
            continue  # only for sending, or data
        assert answer.status_code in (200, 302), (name, answer.status_code)
        waiting, seen = [path, f"{path}?{QUERY.format(SMUGGLED)}"], set()
        if name == "compare":
            a, b = (
                stage.ranking.comparisons.first().completions.values_list("contestant", flat=True).distinct()
            )
            waiting.append(f"{path}?a={a}&b={b}")
        if name == "compare-runs":
            waiting.append(f"{path}?" + "&".join(f"run={pk}" for pk in stage.runs))
        while waiting and len(seen) < MOST_VISITS:
            address = waiting.pop(0)
            seen.add(address)
            watch.open(page, address)
            if len(seen) == 1 and page.locator("script").count():
                page.wait_for_load_state("networkidle")
            watch.look(page)
            read.append(page.locator("body").inner_text())
            # The other pages of a list, its filters and orders: the same address, asked otherwise.
            for link in dict.fromkeys(page.evaluate(SAME_ADDRESS)):
                if "__xss" not in link and link not in seen and link not in waiting:
                    waiting.append(link)
        visited += len(seen)
    assert watch.troubles == []
    assert_shown("\n".join(read))
    assert visited > 60


def addresses() -> list[tuple[str, list[str]]]:
    """Name and parts of every address of the site but the API's: a new page is opened here without being told of."""
    found = []

    def walk(patterns: list, before: str, parts: list[str]) -> None:
        for pattern in patterns:
            route, own = before + str(pattern.pattern), [*parts, *pattern.pattern.converters]
            if isinstance(pattern, URLPattern):
                if not route.startswith(("api/v1/", "^api/")):
                    found.append((pattern.name, own))
            else:
                walk(pattern.url_patterns, route, own)

    walk(get_resolver().url_patterns, "", [])
    return found


SAME_ADDRESS = """
[...document.querySelectorAll("a[href]")].filter((a) => a.pathname === location.pathname && a.search)
  .map((a) => a.pathname + a.search)
"""
MOST_VISITS = 14  # of one address: the other pages of a list, its filters and orders
FORMS = [
    "home",
    "new-prompt",
    "project-settings",
    "edit-guideline",
    "new-round",
    "account",
    "change-password",
    "people",
    "withdraw",
    "review",
]


def test_what_a_form_gives_back_when_it_refuses(cast: Cast, opened: Opened, live_server: object) -> None:
    stage = set_up(cast)
    User.objects.filter(pk=cast.admin.pk).update(is_staff=True)  # who may open projects
    page, watch = opened(cast.admin)
    nobody, watch_out = opened(None)
    parts = dict(addresses())
    for name in FORMS:
        path = reverse(name, kwargs={part: stage.addresses[part] for part in parts[name]})
        watch.open(page, path)
        _send(page)
        watch.look(page)
    for path in (reverse("sign-in") + f"?next={SMUGGLED}", reverse("join", args=[stage.addresses["token"]])):
        watch_out.open(nobody, path)
        _send(nobody)
        watch_out.look(nobody)
    assert watch.troubles == watch_out.troubles == []


def _send(page: Page) -> None:
    """Write something hostile into all that takes a text, and send the last form with such a field."""
    long = "\n".join([SMUGGLED, *BREAKOUTS]).replace("@", "__xss(6)")
    with page.expect_navigation():
        page.evaluate(
            """([short, long]) => {
              const fields = [...document.querySelectorAll("main form input:not([type]), main form input[type=text],"
                + "main form input[type=password], main form input[type=number], main form textarea")];
              for (const field of fields) {
                if (field.type === "number") field.type = "text";
                field.value = field.matches("textarea") ? long : short;
              }
              const form = fields.at(-1)?.form;
              if (!form) throw new Error("no form on " + location.pathname);
              form.noValidate = true;
              form.querySelector("button[type=submit], button:not([type])").click();
            }""",
            [SMUGGLED, long],
        )
