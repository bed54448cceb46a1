"""Pictures of every page, and deploy/PAGES.md around them.

    python3 deploy/dev.py pictures [NAME ...]     all of them, or those whose name begins so

A throw-away stack with the showroom in it (tests/showroom), 390 and 1440 pixels wide, light and dark.
"""

import base64
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "deploy" / "pictures"
LIST = ROOT / "deploy" / "PAGES.md"
MOST_HIGH = 2400
README_PICTURE = "annotate-four"


def main(names: Sequence[str]) -> None:
    from deploy.local.stack import Stack

    with (
        tempfile.TemporaryDirectory(prefix="rankloop-pictures-") as home,
        Stack(Path(home), 0, parts=["web"]) as stack,
    ):
        os.environ.update(stack.environ)
        os.environ["DJANGO_SETTINGS_MODULE"] = "rankloop.settings"
        # Playwright's loop runs in this thread, and Django would take that for asynchronous code.
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
        import django

        django.setup()
        from tests.showroom.filling import fill
        from tests.showroom.pages import pages

        listed = pages(fill(Path(home) / "showroom"))
        take(listed, names, stack.url)
        LIST.write_text(page_list(listed))


def take(listed: Sequence[Any], names: Sequence[str], site: str) -> None:
    """Write the pictures of the pages whose name begins with one of `names`; of all when there is none."""
    from playwright.sync_api import sync_playwright

    from tests.e2e.conftest import ARGUMENTS, CHROMIUM
    from tests.showroom.browsing import SCHEMES, SIZES, leave, open_tab, visit

    wanted = [page for page in listed if not names or page.name.startswith(tuple(names))]
    (FOLDER / "pages").mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        for size, options in SIZES.items():
            tab = open_tab(browser, reduced_motion="reduce", **options)
            for page in wanted:
                visit(tab, site, page)
                for scheme in SCHEMES:
                    tab.emulate_media(color_scheme=scheme)
                    picture(tab, FOLDER / "pages" / f"{page.name}-{size}-{scheme}.webp", options["viewport"])
                tab.emulate_media(color_scheme="light")
                if page.name == README_PICTURE and size == "1440":
                    tab.screenshot(path=FOLDER / "ranking.png")
            leave(tab)
            tab.context.close()
        browser.close()


def picture(tab: Any, file: Path, viewport: dict[str, int]) -> None:
    """The whole page, from the top, as far down as is sensible. What is fixed to the screen stays at its edge."""
    high = tab.evaluate("document.documentElement.scrollHeight")
    tab.set_viewport_size({**viewport, "height": min(max(high, viewport["height"]), MOST_HIGH)})
    tab.evaluate("scrollTo(0, 0)")
    # Half as large as JPEG; Playwright's own screenshot can't.
    session = tab.context.new_cdp_session(tab)
    taken = session.send("Page.captureScreenshot", {"format": "webp", "quality": 50})
    file.write_bytes(base64.b64decode(taken["data"]))
    session.detach()
    tab.set_viewport_size(viewport)


def page_list(listed: Sequence[Any]) -> str:
    """deploy/PAGES.md."""
    parts = [
        "# Every page\n\nAt 1440 and 390 pixels, light and dark, with the data of tests/showroom. Made anew by\n\n"
        "    python3 deploy/dev.py pictures\n"
    ]
    for page in listed:
        thumbnails = "\n".join(
            f'<a href="pictures/pages/{page.name}-{size}-{scheme}.webp">'
            f'<img src="pictures/pages/{page.name}-{size}-{scheme}.webp" width="{width}" '
            f'alt="{page.name}, {size} pixels, {scheme}"></a>'
            for size, width in (("1440", 300), ("390", 90))
            for scheme in ("light", "dark")
        )
        parts.append(f"## {page.name}\n\n{page.about}\n\n{thumbnails}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main(sys.argv[1:])
