"""Simulated annotators at work: sign in like a browser, claim, judge, submit, until nothing is left.

They know only what the annotator's page and its API carry: the texts of the messages and of the completions,
in the order shown. No name of a contestant, no id but the assignment's, no database.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from annotation.rehearsal.annotator import Habits, SimulatedAnnotator, Verdict
from annotation.rehearsal.browser import Answer, Browser, RehearsalError

__all__ = ["AnnotatorClient", "Page", "RehearsalError", "drive"]

log = logging.getLogger(__name__)

MOST_REFUSALS_IN_A_ROW = 10
COUNTED = ("judgments", "ties", "all_bad", "skipped", "errors")

Counts = dict[str, int]


@dataclass(frozen=True)
class Page:
    """One comparison as an annotator sees it. `completions[i]` is the text in position i + 1."""

    assignment: str
    prompt_text: str
    completions: tuple[str, ...]


class AnnotatorClient:
    """One annotator's way through the site. Raises RehearsalError when the site won't let them work."""

    def __init__(self, browser: Browser, slug: str, username: str, password: str) -> None:
        self.browser = browser
        self.username = username
        self._password = password
        self._page_address = f"/p/{quote(slug)}/annotate/"
        self._api_address = f"/api/v1/projects/{quote(slug)}"

    def sign_in(self) -> None:
        """Sign in by the form and open the annotate page, as a person would."""
        self.browser.get("/sign-in/")
        fields = {"username": self.username, "password": self._password, "next": self._page_address}
        answer = self.browser.post_form("/sign-in/", fields)
        if answer.status not in (302, 303):
            raise RehearsalError(
                f"{self.username} could not sign in at {self.browser.origin} (status {answer.status}). "
                "Check the address, the password, and whether sign-in is throttled."
            )
        page = self.browser.get(self._page_address)
        if page.status != 200:
            raise RehearsalError(
                f"{self.username} can't open {self._page_address} (status {page.status}). "
                "Check the project's slug and that the account is an annotator there."
            )

    def claim(self) -> Page | None:
        """The next comparison, or my own open one; None when nothing is left."""
        answer = self._post("claim", {})
        if answer.status == 204:
            return None
        if answer.status != 200:
            raise RehearsalError(f"No claim for {self.username}: {answer.status}, {answer.detail}")
        board = answer.json()
        return Page(
            assignment=board["assignment"],
            prompt_text="\n\n".join(message["text"] for message in board["prompt"]["messages"]),
            completions=tuple(
                shown["text"] for shown in sorted(board["completions"], key=lambda shown: shown["position"])
            ),
        )

    def submit(self, page: Page, verdict: Verdict, active_seconds: float) -> Answer:
        """Send a verdict, under one key for all attempts: a repeat after a broken connection is harmless."""
        content: dict[str, Any] = {
            "submission_key": str(uuid.uuid4()),
            "outcome": verdict.outcome,
            "active_seconds": round(active_seconds, 3),
        }
        if verdict.outcome == "ranked":
            content["ranks"] = list(verdict.ranks)
        return self._post(f"assignments/{page.assignment}/submit", content)

    def skip(self, page: Page, reason: str) -> Answer:
        return self._post(f"assignments/{page.assignment}/skip", {"reason": reason})

    def _post(self, address: str, content: dict[str, Any]) -> Answer:
        """Post to the project's API; when the session has ended, sign in again and repeat, once."""
        answer = self.browser.post_json(f"{self._api_address}/{address}", content)
        if answer.status in (302, 401, 403):
            self.sign_in()
            answer = self.browser.post_json(f"{self._api_address}/{address}", content)
        return answer


class _Rehearsal:
    """What the threads of one drive share: the counts, the limit, and the order to stop."""

    def __init__(
        self,
        limit: int | None,
        pace_seconds: float,
        idle_seconds: float,
        stop: threading.Event,
        on_progress: Callable[[Counts], None],
    ) -> None:
        self.pace_seconds = pace_seconds
        self.idle_seconds = idle_seconds
        self.stop = stop
        self.counts: Counts = dict.fromkeys(COUNTED, 0)
        self.failures: list[RehearsalError] = []
        self._left = limit
        self._lock = threading.Lock()
        self._on_progress = on_progress

    def take_one(self) -> bool:
        """Reserve one judgment of the limit; false when there is none left."""
        with self._lock:
            if self._left is None:
                return True
            self._left -= 1
            return self._left >= 0

    def give_one_back(self) -> None:
        with self._lock:
            if self._left is not None:
                self._left += 1

    def count(self, *names: str) -> None:
        with self._lock:
            for name in names:
                self.counts[name] += 1
            self._on_progress(dict(self.counts))

    def work(self, client: AnnotatorClient, annotator: SimulatedAnnotator) -> None:
        """One annotator's thread: from sign-in until nothing is left, the limit is reached or it must stop."""
        try:
            client.sign_in()
            self._judge_until_done(client, annotator)
        except RehearsalError as error:
            log.warning("%s gives up: %s", client.username, error)
            self.failures.append(error)
            self.count("errors")
        finally:
            client.browser.close()

    def _judge_until_done(self, client: AnnotatorClient, annotator: SimulatedAnnotator) -> None:
        idle_since: float | None = None
        refusals = 0
        while not self.stop.is_set() and self.take_one():
            page = client.claim()
            if page is None:
                self.give_one_back()
                idle_since = idle_since or time.monotonic()
                left = self.idle_seconds - (time.monotonic() - idle_since)
                if left <= 0:
                    return
                self.stop.wait(min(left, max(0.2, self.idle_seconds / 10)))
                continue
            idle_since = None
            refused = self._judge(client, annotator, page)
            refusals = refusals + 1 if refused else 0
            if refusals == MOST_REFUSALS_IN_A_ROW:
                raise RehearsalError(
                    f"The site refused {refusals} answers in a row, the last with: {refused}"
                )

    def _judge(self, client: AnnotatorClient, annotator: SimulatedAnnotator, page: Page) -> str:
        """Judge one page. Returns why the site refused the answer, or "" when it took it."""
        began = time.monotonic()
        verdict = Verdict("skip")
        if len(page.completions) >= 2:
            verdict = annotator.judge(page.prompt_text, page.completions)
        self.stop.wait(self.pace_seconds)
        if verdict.outcome == "skip":
            answer = client.skip(page, "A simulated annotator passed.")
        else:
            answer = client.submit(page, verdict, time.monotonic() - began)
        if answer.status >= 300:
            # The lease was lost, or the comparison is no longer open: an annotator would go on to the next. The
            # skip keeps the next claim from bringing the same page again; its own answer does not matter.
            log.warning("%s: answer refused with %s, %s", client.username, answer.status, answer.detail)
            self.give_one_back()
            self.count("errors")
            client.skip(page, "The answer of a simulated annotator was refused.")
            return answer.detail
        if verdict.outcome == "skip":
            self.give_one_back()
            self.count("skipped")
        elif verdict.outcome == "all_bad":
            self.count("judgments", "all_bad")
        else:
            self.count("judgments", *(["ties"] if verdict.has_tie else []))
        return ""


def drive(
    base_url: str,
    slug: str,
    credentials: Sequence[tuple[str, str]],
    seed: int,
    max_judgments: int | None = None,
    pace_seconds: float = 0.0,
    idle_seconds: float = 5.0,
    habits: Habits | None = None,
    stop: threading.Event | None = None,
    on_progress: Callable[[Counts], None] = lambda counts: None,
) -> Counts:
    """Let one annotator per (username, password) judge in a project until there is nothing left.

    Each ends after `idle_seconds` without anything to judge. `max_judgments` limits all of them together; `stop`
    ends them after the judgment in hand; each waits `pace_seconds` before it answers. `on_progress` is called with
    the counts after each change, from the annotators' threads, one at a time.

    Returns {"judgments", "ties" (judgments with at least one), "all_bad" (of the judgments), "skipped", "errors"
    (answers the site refused, annotators who had to give up)}. Raises RehearsalError when none of them could work.
    """
    if not credentials:
        raise RehearsalError("A rehearsal needs at least one annotator.")
    rehearsal = _Rehearsal(max_judgments, pace_seconds, idle_seconds, stop or threading.Event(), on_progress)
    threads = [
        threading.Thread(
            target=rehearsal.work,
            args=(
                AnnotatorClient(Browser(base_url), slug, username, password),
                SimulatedAnnotator(username, seed, habits),
            ),
            name=username,
            daemon=True,
        )
        for username, password in credentials
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        rehearsal.stop.set()
        for thread in threads:
            thread.join()
        raise
    if len(rehearsal.failures) == len(threads) and rehearsal.counts["judgments"] == 0:
        raise rehearsal.failures[0]
    return rehearsal.counts
