"""Simulated annotators over HTTP, against a small server in this file that keeps the annotator's contract.

That the real site keeps the same contract is shown where the site is tested; here the server can be made to fail.
"""

import ast
import json
import secrets
import sys
import threading
import uuid
from collections.abc import Iterator
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

import annotation.rehearsal
from annotation.rehearsal.annotator import Habits, SimulatedAnnotator
from annotation.rehearsal.browser import Browser
from annotation.rehearsal.client import AnnotatorClient, RehearsalError, drive

PASSWORDS = {"rehearsal-1": "secret-one", "rehearsal-2": "secret-two"}
PROMPT = "How do bees make honey?"
TEXTS = ["Bees turn the nectar of flowers into honey.", "Honey is", "It is. " * 20, "The sun is a star, and"]
NEVER_SKIPS = Habits(skip_chance=0.0)


class Site:
    """The state of the stub: accounts, comparisons with an overlap of two, and what came in."""

    def __init__(self, comparisons: int) -> None:
        self.lock = threading.Lock()
        self.sessions: dict[str, str] = {}
        self.tokens: set[str] = set()
        self.open = {name: [str(uuid.uuid4()) for _ in range(comparisons)] for name in PASSWORDS}
        self.judgments: dict[str, dict[str, Any]] = {}  # submission key -> body
        self.skips: list[dict[str, Any]] = []
        self.trouble: list[str] = []  # what goes wrong with the next submissions, first one first
        self.seen: list[tuple[str, str, dict[str, Any] | None]] = []
        self.completions = TEXTS


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement
    site: Site

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/sign-in/":
            token = self.new_token()
            form = f'<form><input type="hidden" name="csrfmiddlewaretoken" value="{token}"></form>'
            self.answer(200, form, cookies=[f"csrftoken={token}; Path=/"])
        elif self.path == "/p/bees/annotate/" and self.user():
            self.answer(200, "<main>the shell of the page</main>")
        else:
            self.answer(404, "not found")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/sign-in/":
            return self.sign_in({name: values[0] for name, values in parse_qs(body).items()})
        content = json.loads(body)
        with self.site.lock:
            self.site.seen.append((self.user(), self.path, content))
            if not self.user() or self.headers["X-CSRFToken"] not in self.site.tokens:
                return self.answer(403, {"detail": "Sign in first."})
            if self.path == "/api/v1/projects/bees/claim":
                return self.claim(self.site.open[self.user()])
            parts = self.path.split("/")
            assert parts[:6] == ["", "api", "v1", "projects", "bees", "assignments"], self.path
            return {"submit": self.submit, "skip": self.skip}[parts[7]](parts[6], content)

    def sign_in(self, form: dict[str, str]) -> None:
        if form["csrfmiddlewaretoken"] not in self.site.tokens or "Referer" not in self.headers:
            return self.answer(403, "CSRF")
        if PASSWORDS.get(form["username"]) != form["password"]:
            return self.answer(200, "<form>wrong password</form>")
        session, token = secrets.token_hex(8), self.new_token()
        self.site.sessions[session] = form["username"]
        cookies = [f"session={session}; HttpOnly; Path=/", f"csrftoken={token}; Path=/"]
        self.answer(302, "", cookies=cookies, headers={"Location": form["next"]})

    def claim(self, mine: list[str]) -> None:
        if not mine:
            return self.answer(204, "")
        self.answer(
            200,
            {
                "assignment": mine[0],
                "round": {"name": "one", "rehearsal": True},
                "prompt": {"messages": [{"role": "user", "text": PROMPT, "html": f"<p>{PROMPT}</p>"}]},
                "completions": [
                    {"position": position, "text": text, "html": f"<p>{text}</p>"}
                    for position, text in enumerate(self.site.completions, start=1)
                ],
                "lease_until": "2030-01-01T00:00:00Z",
                "draft": None,
            },
        )

    def submit(self, assignment: str, content: dict[str, Any]) -> None:
        trouble = self.site.trouble.pop(0) if self.site.trouble else ""
        if trouble == "busy":
            return self.answer(503, {"detail": "restarting"}, headers={"Retry-After": "0"})
        if trouble == "session ended":
            self.end_session()
            return self.answer(403, {"detail": "Sign in first."})
        if trouble == "lease lost":
            return self.answer(409, {"detail": "You have judged this comparison already."})
        known = self.site.judgments.setdefault(content["submission_key"], content)
        assert known == content, "the same key came with another body"
        mine = self.site.open[self.user()]
        if assignment in mine:
            mine.remove(assignment)
        if trouble == "broken after recording":
            self.close_connection = True
            return self.connection.close()
        self.answer(200, {"recorded": True, "counted": True})

    def skip(self, assignment: str, content: dict[str, Any]) -> None:
        self.site.skips.append(content)
        self.site.open[self.user()].remove(assignment)
        self.answer(204, "")

    def session(self) -> str:
        cookies = SimpleCookie(self.headers.get("Cookie", ""))
        return cookies["session"].value if "session" in cookies else ""

    def user(self) -> str:
        """Who is signed in, or ""."""
        return self.site.sessions.get(self.session(), "")

    def end_session(self) -> None:
        del self.site.sessions[self.session()]

    def new_token(self) -> str:
        token = secrets.token_hex(8)
        self.site.tokens.add(token)
        return token

    def answer(
        self,
        status: int,
        content: Any,
        cookies: list[str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        for cookie in cookies or []:
            self.send_header("Set-Cookie", cookie)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 204:
            self.wfile.write(body)


@pytest.fixture
def site() -> Iterator[tuple[Site, str]]:
    state = Site(comparisons=5)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"site": state}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def rehearse(address: str, **options: Any) -> dict[str, int]:
    settings: dict[str, Any] = {"seed": 1, "idle_seconds": 0, "habits": NEVER_SKIPS, **options}
    return drive(address, "bees", list(PASSWORDS.items()), **settings)


def test_two_annotators_judge_everything_there_is(site: tuple[Site, str]) -> None:
    state, address = site
    counts = rehearse(address)
    assert counts["judgments"] == len(state.judgments) == 10
    assert counts["errors"] == counts["skipped"] == 0
    assert state.open == {"rehearsal-1": [], "rehearsal-2": []}


def test_what_is_sent_is_what_the_contract_asks_for(site: tuple[Site, str]) -> None:
    state, address = site
    counts = rehearse(address, habits=Habits(skip_chance=0.0, tie_within=1.0))
    for body in state.judgments.values():
        uuid.UUID(body["submission_key"])
        assert body["active_seconds"] >= 0
        assert body["outcome"] == "ranked"
        assert len(body["ranks"]) == len(TEXTS)
        assert set(body["ranks"]) == set(range(1, max(body["ranks"]) + 1))
    assert counts["ties"] == sum(len(set(body["ranks"])) < 4 for body in state.judgments.values()) > 0


def test_the_ranks_are_those_of_the_simulated_annotator_in_the_order_shown(site: tuple[Site, str]) -> None:
    state, address = site
    rehearse(address, seed=7)
    expected = {SimulatedAnnotator(name, 7, NEVER_SKIPS).judge(PROMPT, TEXTS).ranks for name in PASSWORDS}
    assert {tuple(body["ranks"]) for body in state.judgments.values()} == expected


def test_all_bad_carries_no_ranks(site: tuple[Site, str]) -> None:
    state, address = site
    counts = rehearse(address, habits=Habits(skip_chance=0.0, all_bad_below=99))
    assert counts["all_bad"] == counts["judgments"] == 10
    assert all("ranks" not in body and body["outcome"] == "all_bad" for body in state.judgments.values())


def test_a_skip_is_no_judgment_and_gives_a_reason(site: tuple[Site, str]) -> None:
    state, address = site
    counts = rehearse(address, habits=Habits(skip_chance=1.0))
    assert counts == {"judgments": 0, "ties": 0, "all_bad": 0, "skipped": 10, "errors": 0}
    assert all(skip["reason"] for skip in state.skips)


def test_a_page_with_nothing_to_compare_is_skipped(site: tuple[Site, str]) -> None:
    state, address = site
    state.completions = TEXTS[:1]
    assert rehearse(address)["skipped"] == 10


def test_the_limit_holds_for_all_annotators_together(site: tuple[Site, str]) -> None:
    state, address = site
    assert rehearse(address, max_judgments=3)["judgments"] == 3
    assert len(state.judgments) == 3


def test_a_connection_that_breaks_after_the_judgment_was_recorded_doubles_nothing(
    site: tuple[Site, str],
) -> None:
    state, address = site
    state.trouble = ["broken after recording"] * 2
    counts = rehearse(address)
    keys = [
        content["submission_key"] for _, path, content in state.seen if path.endswith("/submit") and content
    ]
    assert len(keys) == 12, "two were sent again"
    assert counts["judgments"] == len(state.judgments) == len(set(keys)) == 10
    assert counts["errors"] == 0


def test_a_busy_site_is_asked_again(site: tuple[Site, str]) -> None:
    state, address = site
    state.trouble = ["busy", "busy"]
    assert rehearse(address)["judgments"] == len(state.judgments) == 10


def test_an_ended_session_is_opened_anew_and_the_judgment_arrives(site: tuple[Site, str]) -> None:
    state, address = site
    state.trouble = ["session ended"]
    counts = rehearse(address)
    assert counts["judgments"] == len(state.judgments) == 10
    assert counts["errors"] == 0


def test_a_lost_lease_is_counted_and_the_annotator_goes_on(site: tuple[Site, str]) -> None:
    state, address = site
    state.trouble = ["lease lost"]
    counts = rehearse(address)
    assert counts["errors"] == 1
    assert counts["judgments"] == len(state.judgments) == 9
    assert len(state.skips) == 1, "the page that was refused does not come back"


def test_a_site_that_refuses_everything_ends_the_rehearsal_with_its_own_words(site: tuple[Site, str]) -> None:
    state, address = site
    state.open = {name: [str(uuid.uuid4()) for _ in range(40)] for name in PASSWORDS}
    state.trouble = ["lease lost"] * 80
    with pytest.raises(RehearsalError, match="judged this comparison already"):
        rehearse(address)


def test_work_that_comes_while_an_annotator_waits_is_done(site: tuple[Site, str]) -> None:
    state, address = site
    state.open["rehearsal-1"] = []
    state.open["rehearsal-2"] = []

    def bring_work() -> None:
        with state.lock:
            state.open["rehearsal-1"].append(str(uuid.uuid4()))

    later = threading.Timer(0.2, bring_work)
    later.start()
    assert rehearse(address, idle_seconds=1)["judgments"] == 1
    later.join()


def test_the_order_to_stop_is_obeyed(site: tuple[Site, str]) -> None:
    state, address = site
    stop = threading.Event()
    stop.set()
    assert rehearse(address, stop=stop)["judgments"] == 0
    assert not any(path.endswith("/claim") for _, path, _ in state.seen)


def test_progress_is_told_after_each_judgment(site: tuple[Site, str]) -> None:
    _, address = site
    told: list[int] = []
    rehearse(address, on_progress=lambda counts: told.append(counts["judgments"]))
    assert told == list(range(1, 11))


def test_a_wrong_password_says_who_could_not_sign_in(site: tuple[Site, str]) -> None:
    _, address = site
    with pytest.raises(RehearsalError, match="rehearsal-1 could not sign in"):
        drive(address, "bees", [("rehearsal-1", "wrong")], seed=1)


def test_a_project_that_is_not_there_says_so(site: tuple[Site, str]) -> None:
    _, address = site
    with pytest.raises(RehearsalError, match="Check the project's slug"):
        drive(address, "wasps", list(PASSWORDS.items()), seed=1)


def test_a_site_that_is_not_there_says_so() -> None:
    browser = Browser("http://127.0.0.1:9", patience=0.2)
    with pytest.raises(RehearsalError, match="can't be reached"):
        AnnotatorClient(browser, "bees", "rehearsal-1", "secret-one").sign_in()


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://x", "http://"])
def test_an_address_without_a_scheme_or_host_is_refused(address: str) -> None:
    with pytest.raises(RehearsalError, match="Give one like"):
        Browser(address)


def test_simulated_annotators_import_nothing_but_the_standard_library_and_themselves() -> None:
    """They must not reach the database: what they know comes from the annotator's page."""
    files = list(Path(annotation.rehearsal.__file__).parent.glob("**/*.py"))
    assert len(files) >= 4
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file.name} imports relatively"
                names = [node.module or ""]
            else:
                continue
            for name in names:
                allowed = name.split(".")[0] in sys.stdlib_module_names or name.startswith(
                    "annotation.rehearsal."
                )
                assert allowed, f"{file.name} imports {name}"


def test_the_texts_of_the_page_are_all_that_a_claim_keeps(site: tuple[Site, str]) -> None:
    _, address = site
    client = AnnotatorClient(Browser(address), "bees", "rehearsal-1", "secret-one")
    client.sign_in()
    page = client.claim()
    client.browser.close()
    assert page is not None
    assert set(vars(page)) == {"assignment", "prompt_text", "completions"}
    assert page.prompt_text == PROMPT
    assert page.completions == tuple(TEXTS)
