"""What must never happen on a page, whatever it shows: a text's script, a dialog, a request elsewhere, inline code."""

import re
from html.parser import HTMLParser

from playwright.sync_api import BrowserContext, Dialog, Error, Page, Request, Response

# Run in the page: what a text has smuggled into the document, whoever put it there.
LOOK = r"""
() => {
  const found = [];
  const say = (element, what) => found.push(`${what}: ${element.outerHTML.slice(0, 160)}`);
  const ours = (address) => new URL(address, location).origin === location.origin;
  const isWeb = (address) => /^(https?|mailto):$/.test(new URL(address, location).protocol);
  for (const element of document.querySelectorAll("*")) {
    for (const { name } of element.attributes) {
      if (/^(on|(data-)?hx-on|srcdoc|ping|background|xlink:)/i.test(name)) say(element, name);
    }
    if (element.matches("iframe, frame, object, embed, applet, portal, base, meta[http-equiv]")) {
      say(element, "forbidden");
    }
    if (element.matches("script") && !(element.src && ours(element.src))) say(element, "script");
    if (element.matches("link") && !ours(element.href)) say(element, "link");
    if (element.matches("form") && !(ours(element.getAttribute("action") || ""))) say(element, "form");
    if (element.matches("[formaction]") && !ours(element.getAttribute("formaction"))) say(element, "formaction");
    if (element.matches("img, video, audio, source, track, image, use") ) say(element, "media");
    if (element.matches("a[href]")) {
      if (!isWeb(element.href)) say(element, "address");
      else if (!ours(element.href) && !(element.target === "_blank" && element.relList.contains("noopener"))) {
        say(element, "link out");
      }
    }
    if (element.matches(".prose *")) {
      const foreign = "[id], [name], [style], form, input, button, select, svg, math, style, details, dialog, template";
      if (element.matches(foreign)) say(element, "in a text");
    }
  }
  return found;
}
"""

SCRIPT_ADDRESS = re.compile(r"\s*(javascript|data|vbscript):", re.IGNORECASE)


class Inline(HTMLParser):
    """Inline script and style in HTML as it was served."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        bad = [name for name in values if re.match(r"on|style$|srcdoc$|(data-)?hx-on", name)]
        bad += [name for name, value in values.items() if SCRIPT_ADDRESS.match(value or "")]
        if tag in ("style", "base", "iframe", "object", "embed") or (
            tag == "script" and not values.get("src")
        ):
            bad.append(tag)
        if bad:
            self.found.append(f"{bad} in {self.get_starttag_text()[:200]}")


class Watch:
    """Watches every page of a browser context; `troubles` is what went wrong, in words."""

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self.origin, self.troubles = origin, []
        self.ran: set[int] = set()  # numbers of the payloads that ran
        self._html: list[Response] = []
        context.expose_binding("__xss", lambda source, number=None: self._ran(number))
        context.on("dialog", self._dialog)
        context.on("request", self._request)
        context.on("response", self._response)
        context.on("console", lambda message: self._console(message.text))
        context.on("weberror", lambda error: self._tell(f"script error: {error.error}"))
        context.on("page", lambda page: page.on("popup", lambda popup: self._tell(f"popup {popup.url}")))

    def open(self, page: Page, address: str) -> None:
        """Go there, and read what was served."""
        self._html.clear()
        response = page.goto(f"{self.origin}{address}")
        self._read(response.url, response.headers, response.text())

    def look(self, page: Page) -> None:
        """Look at the page as it is, and at all HTML that came since it was opened."""
        while self._html:
            response = self._html.pop()
            try:
                text = response.text()
            except Error:  # the browser keeps no body of a page it has left
                continue
            self._read(response.url, response.headers, text)
        self.troubles += [f"{found} on {page.url}" for found in page.evaluate(LOOK)]

    def _read(self, address: str, headers: dict[str, str], html: str) -> None:
        inline = Inline()
        inline.feed(html)
        self.troubles += [f"inline: {found} on {address}" for found in inline.found]
        policy = headers.get("content-security-policy", "")
        if "default-src 'none'" not in policy or "unsafe" in policy:
            self._tell(f"no strict CSP on {address}: {policy!r}")

    def _tell(self, trouble: str) -> None:
        self.troubles.append(trouble)

    def _ran(self, number: int | None) -> None:
        self.ran.add(number)
        self._tell(f"payload {number} ran")

    def _dialog(self, dialog: Dialog) -> None:
        self._tell(f"dialog {dialog.message!r}")
        dialog.dismiss()

    def _request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.origin}/", "about:")):
            self._tell(f"request to {request.url[:120]}")

    def _response(self, response: Response) -> None:
        is_html = "text/html" in response.headers.get("content-type", "")
        is_whole = response.frame.parent_frame is None and response.status not in (204, 301, 302)
        if is_html and is_whole and response.request.resource_type in ("document", "fetch", "xhr"):
            self._html.append(response)

    def _console(self, text: str) -> None:
        if "Content Security Policy" in text:
            self._tell(f"CSP: {text[:200]}")
