"""Opening the showroom's pages in a browser, each as the one who sees it there."""

from typing import Any

from django.conf import settings
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, Route
from playwright.sync_api import Page as Tab

from rankloop.accounts.models import User
from tests.showroom.pages import Page

SIZES: dict[str, dict[str, Any]] = {
    "1440": {"viewport": {"width": 1440, "height": 900}},
    "390": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}
SCHEMES = ("light", "dark")

# Whether what a page fetches by itself is there.
_COMPLETE = """board => (board ? document.querySelector("#board[aria-busy=false]:not([hidden])")
    : !document.querySelector("#idle") || !document.querySelector("#idle-title").textContent.includes("…"))
  && ![...document.querySelectorAll("[hx-trigger=load]")].some((part) => part.textContent.includes("…"))
  && (!document.querySelector("#curves") || document.querySelector("#curves:not([aria-busy]) canvas"))"""


def open_tab(browser: Browser, **options: Any) -> Tab:
    """A tab in which nothing that is only looked at changes what the next one sees."""
    context = browser.new_context(**options)
    context.set_default_timeout(20_000)
    for address in ("**/draft", "**/guideline/read"):
        context.route(address, lambda route: route.fulfill(status=204))
    context.route("**/claim", _claim_one)
    return context.new_page()


def _claim_one(route: Route) -> None:
    """Nothing is fetched ahead: whose turn it is would depend on when it is given back."""
    body = route.request.post_data_json or {}
    route.fulfill(status=204) if body.get("prefetch") else route.continue_()


def visit(tab: Tab, site: str, page: Page) -> None:
    """Open the page as its user and bring it into its state."""
    leave(tab)
    _be(tab.context, site, page.user)
    tab.goto(site + page.address)
    tab.wait_for_function(_COMPLETE, arg=page.is_board)
    for key in page.keys.split():
        tab.keyboard.press(key)
    if page.typed:
        tab.locator("#answer").fill(page.typed)
        tab.wait_for_timeout(700)  # the preview follows
    if page.keys:
        tab.wait_for_timeout(150)  # a dialog may fetch what it shows


def leave(tab: Tab) -> None:
    """Close the page, so that what it sends last is sent as its own user."""
    tab.goto("about:blank")


def _be(context: BrowserContext, site: str, username: str) -> None:
    context.clear_cookies()
    if username:
        name = settings.SESSION_COOKIE_NAME
        client = Client()
        client.force_login(User.objects.get(username=username))
        context.add_cookies([{"name": name, "value": client.cookies[name].value, "url": site}])
