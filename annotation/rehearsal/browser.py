"""A browser reduced to what a rehearsal needs: one kept-alive connection, cookies, CSRF tokens and patience.

Standard library only. Every request of a rehearsal may be sent twice without harm (a claim gives back one's
own open lease, a submission carries its key), so a broken connection or a server that is just restarting is
answered by sending the same request again.
"""

import html
import http.client
import json
import re
import time
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlencode, urlsplit

__all__ = ["Answer", "Browser", "RehearsalError"]

FORM_TOKEN = re.compile(r"""name=["']csrfmiddlewaretoken["'][^>]*?value=["']([^"']+)["']""")
TIMEOUT_SECONDS = 60.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 4.0


class RehearsalError(Exception):
    """The rehearsal can't go on. The message says what happened and what to do."""


@dataclass(frozen=True)
class Answer:
    """What came back: the status, the address redirected to (or ""), and the body as text."""

    status: int
    location: str
    text: str

    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def detail(self) -> str:
        """The server's own words about an error, for a message."""
        try:
            return str(self.json()["detail"])
        except (ValueError, KeyError, TypeError):
            return self.text[:200] or http.client.responses.get(self.status, "no text")


class Browser:
    """One visitor of one site. Not for use by two threads at once.

    `patience` is how long, in seconds, one request is tried again while the server can't be reached, says
    5xx, or asks to slow down (429); then RehearsalError.
    """

    def __init__(self, base_url: str, patience: float = 30.0) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RehearsalError(f"{base_url!r} is no address. Give one like http://127.0.0.1:8000.")
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.prefix = parts.path.rstrip("/")
        self.patience = patience
        self.cookies: dict[str, str] = {}
        self.form_token = ""  # of the last page that had a form
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)

    def get(self, path: str) -> Answer:
        return self._send("GET", path, None, {"Accept": "text/html"})

    def post_form(self, path: str, fields: dict[str, str]) -> Answer:
        """Send a form as a page would, with the token of the last page seen."""
        body = urlencode({**fields, "csrfmiddlewaretoken": self.form_token}).encode()
        return self._send("POST", path, body, {"Content-Type": "application/x-www-form-urlencoded"})

    def post_json(self, path: str, content: dict[str, Any]) -> Answer:
        """Send JSON as the page's script would: session cookie, CSRF token in a header."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return self._send("POST", path, json.dumps(content).encode(), headers)

    def close(self) -> None:
        self._connection.close()

    def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        give_up_at = time.monotonic() + self.patience
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                answer, retry_after = self._send_once(method, path, body, headers)
                if answer.status < 500 and answer.status != 429:
                    return answer
                trouble = f"answers {answer.status}: {answer.detail}"
            except (http.client.HTTPException, OSError) as error:
                self._connection.close()  # the next request opens a new one
                retry_after, trouble = 0.0, f"can't be reached ({error or type(error).__name__})"
            pause = max(pause, retry_after)
            if time.monotonic() + pause > give_up_at:
                raise RehearsalError(
                    f"{self.origin}{path} {trouble}. Tried for {self.patience:g} seconds. "
                    "Check that the site is running and look at its log."
                )
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _send_once(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[Answer, float]:
        sent = {**headers, "Referer": self.origin + self.prefix + path}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if method == "POST":
            sent |= {"Origin": self.origin, "X-CSRFToken": self._csrf_token()}
        self._connection.request(method, self.prefix + path, body=body, headers=sent)
        response = self._connection.getresponse()
        text = response.read().decode("utf-8", "replace")  # to the end, or the connection can't be used again
        self._keep_cookies(response.headers.get_all("Set-Cookie") or [])
        if (found := FORM_TOKEN.search(text)) is not None:
            self.form_token = html.unescape(found.group(1))
        wait = response.headers.get("Retry-After", "")
        answer = Answer(response.status, response.headers.get("Location", ""), text)
        return answer, float(wait) if wait.isdigit() else 0.0

    def _csrf_token(self) -> str:
        """The token in the cookie, whatever the cookie's prefix, else that of the last form."""
        named = (value for name, value in self.cookies.items() if name.endswith("csrftoken"))
        return next(named, self.form_token)

    def _keep_cookies(self, set_cookie_headers: list[str]) -> None:
        for header in set_cookie_headers:
            try:
                parsed = SimpleCookie(header)
            except CookieError:
                continue
            for name, morsel in parsed.items():
                if morsel.value and morsel["max-age"] != "0":
                    self.cookies[name] = morsel.value
                else:
                    self.cookies.pop(name, None)
