"""From Enter to the next comparison readable, in a real browser, while 16 others work; and what a view transfers.

    python3 deploy/dev.py bench page [--quick] [--json FILE]

A cold local stack. The others are in a process of their own: each fetches the next one ahead, thinks for 2 to 6 s,
keeps a draft and submits. One annotator ranks in Chromium, pairs (a digit, Enter) and fours (digits, Enter) in turn,
with a person's pauses, so that drafts and prefetching happen as they would.

    next_ms        from the moment Enter was pressed (the event's own time stamp) to the second animation frame after
                   the next comparison stands in the page: its texts are painted then, and the board is not busy
    submit_ms      of that, the request that sends the judgment
    drawn_ms       of that, until the next comparison stands in the page; the rest is layout, paint and frames
    first_view_kb  bytes received (headers, bodies as compressed) for everything up to the first comparison and the
                   prefetch of the second, by a signed-in person whose browser has nothing cached
    next_kb        bytes received from one Enter to the next one (submit, prefetch, draft), less the texts: all texts
                   and their HTML in the boards that came meanwhile, compressed together by gzip. The largest of all.
"""

import argparse
import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_annotate import ROOT, SLUG, Annotator, Record, _set_up_django, load, percentiles

OTHERS = 16
THINKING = (2.0, 6.0)  # seconds
CHROMIUM = "/usr/bin/chromium"
# In the page, before its own modules: when Enter was pressed, when the board changed, when that could be read.
TRACE = """
(() => {
  const trace = { steps: [], submits: [] };
  window.benchTrace = trace;
  let pressed = null;
  addEventListener("keydown", (event) => { if (event.key === "Enter") pressed = event.timeStamp; }, true);
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (entry.name.endsWith("/submit")) trace.submits.push(entry.duration);
  }).observe({ type: "resource", buffered: true });
  const isReadable = (board) => !board.hidden && board.getAttribute("aria-busy") === "false"
    && [...board.querySelectorAll(".completion > .prose")].every((prose) => prose.innerText.trim().length > 10);
  const twoFrames = (board, changed) => requestAnimationFrame(() => requestAnimationFrame(() => {
    if (!isReadable(board)) return twoFrames(board, changed);
    trace.steps.push({ changed: changed - pressed, readable: performance.now() - pressed });
  }));
  addEventListener("DOMContentLoaded", () => {
    const board = document.getElementById("board");
    new MutationObserver(() => { const now = performance.now(); if (pressed !== null) twoFrames(board, now); })
      .observe(board, { attributeFilter: ["data-assignment"] });
  });
})();
"""


class Received:
    """Bytes that the browser has received, and the boards among them."""

    def __init__(self, page: Any) -> None:
        self.bytes, self._requests, self._boards = 0, 0, []
        self._cdp = page.context.new_cdp_session(page)
        self._cdp.on("Network.requestWillBeSent", self._sent)
        self._cdp.on("Network.loadingFinished", self._finished)
        self._cdp.send("Network.enable")
        self._claims: set[str] = set()

    def _sent(self, event: dict[str, Any]) -> None:
        self._requests += 1
        if event["request"]["url"].endswith("/claim"):
            self._claims.add(event["requestId"])

    def _finished(self, event: dict[str, Any]) -> None:
        self.bytes += event["encodedDataLength"]
        if event["requestId"] in self._claims:
            self._boards.append(event["requestId"])

    def take(self) -> tuple[int, int, int]:
        """Requests, bytes, and bytes of texts (compressed) since last asked."""
        texts = []
        for request in self._boards:
            body = self._cdp.send("Network.getResponseBody", {"requestId": request})["body"]
            board = json.loads(body) if body else None
            if board:
                texts += [*board["prompt"]["messages"], *board["completions"]]
        joined = "\n".join(f"{text['text']}\n{text['html']}" for text in texts)
        taken = self._requests, self.bytes, len(gzip.compress(joined.encode(), 6)) if joined else 0
        self.bytes, self._requests, self._boards = 0, 0, []
        return taken


@contextmanager
def others_at_work(port: int) -> Iterator[None]:
    """16 annotators in a process of their own, which ends with the block (or with us: its input closes then)."""
    program = [sys.executable, "-m", "tests.benchmarks.bench_page", "--others", str(port)]
    with subprocess.Popen(
        program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        if child.stdout.readline().strip() != "working":
            raise SystemExit("the other annotators could not begin")
        try:
            yield
        except BaseException:
            child.kill()
            raise
        if child.poll() is not None:
            raise SystemExit("the other annotators gave up")
        said = child.communicate("")[0]
    print(f"the others meanwhile: {said.strip()}")


def others(port: int) -> None:
    """The process behind `others_at_work`."""
    stopped = threading.Event()
    workers = [Annotator(port, f"bench-{number}") for number in range(OTHERS)]
    records = [Record() for _ in workers]

    def think() -> bool:
        return stopped.wait(random.uniform(*THINKING))

    def work(worker: Annotator, record: Record) -> None:
        try:
            worker.work_as_the_page(sys.maxsize, record, think)
        except BaseException:
            os._exit(1)  # a smaller crowd would make for better figures

    threads = [threading.Thread(target=work, args=pair) for pair in zip(workers, records, strict=True)]
    for thread in threads:
        thread.start()
    print("working", flush=True)
    sys.stdin.read()
    stopped.set()
    for thread in threads:
        thread.join()
    submits = [second for record in records for second in record.submits]
    print(f"{len(submits)} judgments, submit {percentiles(submits)} ms")


def rank_in_browser(port: int, transitions: int) -> dict[str, Any]:
    """One annotator in Chromium; the figures."""
    from playwright.sync_api import sync_playwright

    from tests.e2e.conftest import ARGUMENTS

    cookies = dict(
        part.split("=", 1) for part in Annotator(port, f"bench-{OTHERS}").headers["Cookie"].split("; ")
    )
    site = f"http://127.0.0.1:{port}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = browser.new_context(viewport={"width": 1440, "height": 1000})
        context.add_cookies([{"name": name, "value": value, "url": site} for name, value in cookies.items()])
        context.add_init_script(TRACE)
        page = context.new_page()
        received = Received(page)
        page.goto(f"{site}/p/{SLUG}/annotate/")
        page.wait_for_selector("#board[aria-busy=false]")
        page.wait_for_load_state("networkidle")
        requests, first_view, _ = received.take()
        views = []
        for done in range(1, transitions + 1):
            page.wait_for_timeout(random.uniform(800, 1200))
            is_pair = "is-pair" in page.get_attribute("#board", "class").split()
            for key in random.choice("1234567") if is_pair else random.sample("1234", 4):
                page.keyboard.press(key)
                page.wait_for_timeout(random.uniform(60, 150))
            page.wait_for_timeout(random.uniform(0, 1000))
            if done > 1:
                views.append(received.take())
            else:
                received.take()
            page.keyboard.press("Enter")
            # Asked from outside: the CSP refuses playwright's own wait_for_function.
            while page.evaluate("benchTrace.steps.length") < done:
                page.wait_for_timeout(100)
        page.wait_for_load_state("networkidle")
        trace = page.evaluate("benchTrace")
        browser.close()
    next_bytes = [all_ - texts for _, all_, texts in views]
    return {
        "next_ms": middle_and_tail([step["readable"] for step in trace["steps"]]),
        "first_view_kb": round(first_view / 1000, 1),
        "next_kb": round(max(next_bytes) / 1000, 1),
        "submit_ms": middle_and_tail(trace["submits"]),
        "drawn_ms": middle_and_tail([step["changed"] for step in trace["steps"]]),
        "first_view_requests": requests,
        "next_kb_median": round(statistics.median(next_bytes) / 1000, 1),
        "next_texts_kb_median": round(statistics.median(texts for *_, texts in views) / 1000, 1),
        "transitions": transitions,
    }


def middle_and_tail(milliseconds: list[float]) -> dict[str, float]:
    """p50 and p95."""
    figures = percentiles([value / 1000 for value in milliseconds])
    return {name: round(figures[name], 1) for name in ("p50", "p95")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer comparisons")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--others", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.others:
        return others(options.others)

    from deploy.local.stack import Stack

    with (
        tempfile.TemporaryDirectory(prefix="rankloop-bench-") as home,
        Stack(Path(home), 0, parts=["web"]) as stack,
    ):
        os.environ.update(stack.environ)
        _set_up_django()
        load(4000, annotators=OTHERS + 1, sizes=(2, 4), words=(60, 200))
        with others_at_work(stack.port):
            figures = rank_in_browser(stack.port, 15 if options.quick else 60)
    for name, value in figures.items():
        print(f"{name:>22}: {value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
