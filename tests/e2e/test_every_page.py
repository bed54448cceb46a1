"""Every page of tests/showroom: by axe-core, at 200 % zoom, and without motion."""

# ruff: noqa: E501 -- the scripts that run in the page

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser
from playwright.sync_api import Page as Tab

from tests.e2e.conftest import wait_until_served
from tests.showroom.browsing import SCHEMES, SIZES, leave, open_tab, visit
from tests.showroom.filling import Room, fill
from tests.showroom.pages import pages

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

AXE = (Path(__file__).parent / "vendor" / "axe-4.14.1.min.js").read_text()
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
LOOK = """([rules, tags]) => axe.run(document, {
    runOnly: rules ? {type: "rule", values: rules} : {type: "tag", values: tags}, resultTypes: ["violations"]
}).then((found) => found.violations.map(({id, impact, nodes}) => (
    {id, impact, where: nodes.map((node) => node.target.join(" ")).slice(0, 4)})))"""
# Light and dark differ in nothing but colours.
OF_COLOURS = ["color-contrast", "link-in-text-block"]

FITS = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - window.innerWidth"
# Of what is on the screen: text that its own box hides, and parts that stick out of the page.
CUT = """() => [...document.querySelectorAll("main *, header *, dialog[open] *")].filter((element) => {
    const clipped = (e) => e && (getComputedStyle(e).clipPath !== "none" || clipped(e.parentElement));
    const box = element.getBoundingClientRect(), style = getComputedStyle(element);
    if (!box.width || !box.height || element.closest(".visually-hidden, svg, .uplot, select, option") || clipped(element)) return false;
    const scrolls = (e) => e && (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
    const isHidden = /hidden|clip/.test(style.overflowX) && style.textOverflow !== "ellipsis";
    if (isHidden && element.scrollWidth > element.clientWidth + 1) return true;
    return (box.right > window.innerWidth + 1 || box.left < -1) && !scrolls(element);
}).map((element) => `${element.tagName} ${element.id || element.className} ${element.textContent.trim().slice(0, 40)}`).slice(0, 4)"""
MOVING = """() => document.getAnimations().filter((one) => {
    const {duration, iterations} = one.effect.getComputedTiming();
    return one.playState === "running" && duration * iterations > 10;
}).map((one) => `${one.effect.target.tagName} ${one.effect.target.className}`)"""
DECLARED = """() => [...document.querySelectorAll("*")].filter((element) => {
    const {transitionDuration, animationName, animationDuration} = getComputedStyle(element);
    const longest = (list) => Math.max(...list.split(",").map(parseFloat));
    return longest(transitionDuration) > 0.01 || (animationName !== "none" && longest(animationDuration) > 0.01);
}).map((element) => `${element.tagName} ${element.id || element.className}`).slice(0, 4)"""


@pytest.fixture
def room(live_server: object, tmp_path: Path) -> Iterator[Room]:
    yield fill(tmp_path)
    wait_until_served()


def violations(tab: Tab) -> list[str]:
    """What axe-core finds in light, and what of it that has to do with colours in dark."""
    found = []
    tab.evaluate(AXE)
    for scheme in SCHEMES:
        tab.emulate_media(color_scheme=scheme)
        rules = OF_COLOURS if scheme == "dark" else None
        found += [
            f"({scheme}): {each['id']}, {each['impact']}: {each['where']}"
            for each in tab.evaluate(LOOK, [rules, WCAG])
            if each["impact"] in ("serious", "critical")
        ]
    tab.emulate_media(color_scheme="light")
    return found


def misfits(tab: Tab) -> list[str]:
    """What is too wide, cut off or in motion."""
    too_wide, cut = tab.evaluate(FITS), tab.evaluate(CUT)
    moving = tab.evaluate(MOVING) + tab.evaluate(DECLARED)
    if too_wide > 0 or cut or moving:
        return [f"{too_wide} px too wide, cut {cut}, moving {moving}"]
    return []


@pytest.mark.parametrize("size", SIZES)
def test_every_page_fits_and_axe_finds_no_serious_violation_in_light_or_dark(
    size: str, room: Room, live_server: Any, browser: Browser
) -> None:
    tab = open_tab(browser, reduced_motion="reduce", **SIZES[size])
    bad = []
    for page in pages(room):
        visit(tab, live_server.url, page)
        bad += [f"{page.name}: {found}" for found in misfits(tab) + violations(tab)]
    leave(tab)
    tab.context.close()
    assert not bad, "\n".join(bad)


def test_every_page_holds_at_200_percent_zoom_and_without_motion(
    room: Room, live_server: Any, browser: Browser
) -> None:
    zoomed = {"viewport": {"width": 720, "height": 500}, "device_scale_factor": 2}
    tab = open_tab(browser, reduced_motion="reduce", **zoomed)
    bad = []
    for page in pages(room):
        visit(tab, live_server.url, page)
        bad += [f"{page.name}: {found}" for found in misfits(tab)]
    leave(tab)
    tab.context.close()
    assert not bad, "\n".join(bad)
