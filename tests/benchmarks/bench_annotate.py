"""Claim and submit over HTTP, by 1, 4 and 16 annotators at once, on a cold local stack with 20,000 comparisons.

    python3 deploy/dev.py bench annotate [--quick] [--json FILE]

Session cookie, CSRF token and full texts included; overlap 2, four completions. The last row works as the ranking page
does: the next comparison is fetched ahead, and a draft is kept before each submission. Every acknowledged submission
key goes into a ledger, and the rows are checked against it afterwards. Beside it: claim and submit by bare psycopg,
which is the limit, and the claim of an annotator who has done everything that is left.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SLUG = "bench"
PASSWORD = "a long enough password"


@dataclass
class Record:
    """What one annotator saw: seconds of each claim and submit, and the keys that were acknowledged."""

    claims: list[float] = field(default_factory=list)
    submits: list[float] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)


class Annotator:
    """One signed-in annotator on a kept connection."""

    def __init__(self, port: int, username: str) -> None:
        from annotation.rehearsal.browser import Browser

        browser = Browser(f"http://127.0.0.1:{port}")
        browser.get("/sign-in/")
        answer = browser.post_form("/sign-in/", {"username": username, "password": PASSWORD, "next": "/"})
        if answer.status not in (302, 303):
            raise SystemExit(f"sign-in failed with {answer.status}")
        browser.get("/")
        cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        token = next(value for name, value in browser.cookies.items() if "csrf" in name)
        self.headers = {"Cookie": cookies, "X-CSRFToken": token, "Content-Type": "application/json"}
        self.connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self.connection.connect()

    def send(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        self.connection.request(method, f"/api/v1/projects/{SLUG}/{path}", json.dumps(body), self.headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def claim(self, record: Record, **asked: Any) -> dict[str, Any] | None:
        """The next board, or None when nothing is left."""
        start = time.perf_counter()
        status, body = self.send("POST", "claim", asked)
        record.claims.append(time.perf_counter() - start)
        if status not in (200, 204):
            raise SystemExit(f"claim answered {status}: {body[:300]!r}")
        return json.loads(body) if status == 200 else None

    def submit(self, board: dict[str, Any], record: Record, ranks: list[int]) -> None:
        key = str(uuid.uuid4())
        sent = {"submission_key": key, "outcome": "ranked", "ranks": ranks, "active_seconds": 3.5}
        start = time.perf_counter()
        status, body = self.send("POST", f"assignments/{board['assignment']}/submit", sent)
        record.submits.append(time.perf_counter() - start)
        if status != 200:
            raise SystemExit(f"submit answered {status}: {body[:300]!r}")
        record.acknowledged.append(key)

    def change(self, method: str, board: dict[str, Any], what: str, body: dict[str, Any]) -> None:
        status, said = self.send(method, f"assignments/{board['assignment']}/{what}", body)
        if status != 204:
            raise SystemExit(f"{what} answered {status}: {said[:300]!r}")

    def work(self, cycles: int, record: Record) -> None:
        """Claim and submit `cycles` times, or until nothing is left."""
        for _ in range(cycles):
            board = self.claim(record)
            if board is None:
                return
            self.submit(board, record, any_ranks(board))

    def work_as_the_page(self, cycles: int, record: Record, think: Callable[[], bool] = bool) -> None:
        """Fetch the next one ahead, think, keep a draft, submit; at the end give back what is unused.

        `think` takes its time and says whether to stop.
        """
        board, ahead = self.claim(record), None
        for _ in range(cycles):
            if board is None:
                return
            ahead = self.claim(record, prefetch=True, holding=board["assignment"])
            if think():
                break
            ranks = any_ranks(board)
            self.change("PUT", board, "draft", {"places": ranks, "active_seconds": 3.5})
            self.submit(board, record, ranks)
            board, ahead = ahead or self.claim(record), None
        for unused in (board, ahead):
            if unused is not None:
                self.change("POST", unused, "release", {})


def any_ranks(board: dict[str, Any]) -> list[int]:
    ranks = list(range(1, len(board["completions"]) + 1))
    random.shuffle(ranks)
    return ranks


def load(
    comparisons: int,
    *,
    annotators: int = 16,
    sizes: Sequence[int] = (4,),
    words: tuple[int, int] = (20, 60),
) -> None:
    """A project with that many comparisons, each of its own prompt, and the annotators.

    Comparisons have `sizes` completions in turn, each of so many `words`.
    """
    from annotation.models import Comparison, Completion, Membership, Prompt, Round
    from annotation.services.comparisons import add_comparisons
    from annotation.services.contestants import register_contestant
    from annotation.services.members import add_member, open_project
    from rankloop.accounts.models import User

    vocabulary = (
        "tea",
        "water",
        "leaf",
        "steep",
        "pour",
        "warm",
        "cup",
        "minutes",
        "before",
        "gently",
        "kettle",
        "then",
    )
    draw = random.Random(0)

    def text(length: int) -> str:
        return " ".join(draw.choice(vocabulary) for _ in range(length)).capitalize() + "."

    admin = User.objects.create_user("bench-admin", password=PASSWORD)
    project = open_project(slug=SLUG, name="Benchmark", user=admin)
    for number in range(annotators):
        user = User.objects.create_user(f"bench-{number}", password=PASSWORD)
        add_member(project=project, user=user, role=Membership.Role.ANNOTATOR)
    contestants = [
        register_contestant(project=project, name=f"c{n}", weights=f"c{n}", decoding={})
        for n in range(max(sizes))
    ]
    round = Round.objects.create(
        project=project, number=1, name="Benchmark", status=Round.Status.RANKING, overlap=2
    )
    prompts = Prompt.objects.bulk_create(
        (
            Prompt(
                project=project,
                messages=[{"role": "user", "content": f"{number}: {text(30)}"}],
                content_hash=f"{number:064x}",
                split="train",
            )
            for number in range(comparisons)
        ),
        batch_size=5000,
    )
    rows = Completion.objects.bulk_create(
        (
            Completion(prompt=prompt, contestant=contestant, sample_index=0, text=text(draw.randint(*words)))
            for number, prompt in enumerate(prompts)
            for contestant in contestants[: sizes[number % len(sizes)]]
        ),
        batch_size=5000,
    )
    ids = iter(row.pk for row in rows)
    add_comparisons(
        round=round,
        comparisons=[Comparison(round=round, prompt=p, ordinal=n) for n, p in enumerate(prompts, 1)],
        groups=[list(islice(ids, sizes[number % len(sizes)])) for number in range(comparisons)],
    )


def drive(port: int, annotators: int, cycles: int, ahead: bool) -> tuple[float, list[Record]]:
    """Let that many annotators do `cycles` cycles each, side by side; seconds and what each saw.

    In a process of its own, as the clients' work should cost the server nothing but its share of the cores.
    """
    program = [
        sys.executable,
        "-m",
        "tests.benchmarks.bench_annotate",
        "--drive",
        f"{port},{annotators},{cycles},{int(ahead)}",
    ]
    answer = json.loads(subprocess.run(program, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    return answer["seconds"], [Record(**record) for record in answer["records"]]


def drive_here(port: int, annotators: int, cycles: int, ahead: int) -> None:
    """The process behind `drive`."""
    workers = [Annotator(port, f"bench-{number}") for number in range(annotators)]
    records = [Record() for _ in workers]
    threads = [
        threading.Thread(target=worker.work_as_the_page if ahead else worker.work, args=(cycles, record))
        for worker, record in zip(workers, records, strict=True)
    ]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "records": [vars(record) for record in records]}))


def check_rows(acknowledged: list[str]) -> dict[str, int]:
    """Rows against the ledger: judgments beyond the overlap or twice by one person, lost ones, doubled ones."""
    from django.db.models import Count, F

    from annotation.models import Comparison, Judgment

    counted = Comparison.objects.annotate(
        counted=Count("judgments"), people=Count("judgments__annotator", distinct=True)
    )
    over = (
        counted.filter(counted__gt=F("round__overlap")).count() + counted.exclude(counted=F("people")).count()
    )
    keys = [str(key) for key in Judgment.objects.values_list("submission_key", flat=True)]
    return {
        "over_assigned": over,
        "lost": len(set(acknowledged) - set(keys)),
        "doubled": len(keys) - len(set(keys)) + len(set(keys) - set(acknowledged)),
    }


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {name: round(cuts[which - 1] * 1000, 2) for name, which in (("p50", 50), ("p95", 95), ("p99", 99))}


def bare_psycopg(database_url: str, annotator: str, cycles: int) -> float:
    """Cycles per second of one connection that runs the claim and the writes of a submit, and nothing else."""
    import psycopg

    from annotation.models import Round
    from annotation.services.claims import _CLAIM_NEXT
    from rankloop.accounts.models import User

    user = User.objects.get(username=annotator).pk
    round = Round.objects.get().pk
    with psycopg.connect(database_url, autocommit=True) as connection:
        start = time.perf_counter()
        for _ in range(cycles):
            after = 0
            assignment, *_ = connection.execute(
                _CLAIM_NEXT, {"round": round, "annotator": user, "minutes": 15, "after": after}
            ).fetchone()
            with connection.transaction():
                slot, comparison = connection.execute(
                    "UPDATE annotation_slot SET state = 'filled' WHERE assignment_id = %s RETURNING id, comparison_id",
                    [assignment],
                ).fetchone()
                (order,) = connection.execute(
                    "UPDATE annotation_assignment SET state = 'submitted' WHERE id = %s RETURNING shown_order",
                    [assignment],
                ).fetchone()
                (judgment,) = connection.execute(
                    """INSERT INTO annotation_judgment (assignment_id, comparison_id, annotator_id, slot_id, outcome,
                       reason, active_seconds, source, blind, submission_key, body_hash, created_at)
                       VALUES (%s, %s, %s, %s, 'ranked', '', 1, 'person', true, %s, '', now()) RETURNING id""",
                    [assignment, comparison, user, slot, uuid.uuid4()],
                ).fetchone()
                connection.execute(
                    """INSERT INTO annotation_rankedcompletion
                       (judgment_id, comparison_id, completion_id, rank, flags, aspects, comment)
                       SELECT %s, %s, completion, rank, '{}', '{}', ''
                       FROM unnest(%s::bigint[]) WITH ORDINALITY AS shown (completion, rank)""",
                    [judgment, comparison, order],
                )
        return cycles / (time.perf_counter() - start)


def nothing_left(port: int, annotator: str) -> dict[str, float]:
    """Claims (204) of an annotator who has judged every comparison that still has an open slot; milliseconds."""
    from django.db import connection

    from annotation.models import Slot
    from rankloop.accounts.models import User

    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO annotation_assignment
               (id, comparison_id, annotator_id, state, lease_until, claimed_at, position, shown_order, reason)
               SELECT gen_random_uuid(), comparison_id, %s, 'submitted', now(),
                      now() + (max(position) - 3000000000) * interval '1 microsecond', max(position), '{}', ''
               FROM annotation_slot WHERE state = 'open' GROUP BY comparison_id
               ON CONFLICT (comparison_id, annotator_id) DO UPDATE SET state = 'submitted'
               WHERE annotation_assignment.state = 'expired'""",
            [User.objects.get(username=annotator).pk],
        )
        cursor.execute("ANALYZE annotation_assignment")
    client = Annotator(port, annotator)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        status, _ = client.send("POST", "claim", {})
        times.append(time.perf_counter() - start)
        if status != 204:
            raise SystemExit(f"expected nothing left, and got {status}")
    return {**percentiles(times), "open_slots": Slot.objects.filter(state="open").count()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer cycles")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--comparisons", type=int, default=20_000)
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        return drive_here(*(int(part) for part in options.drive.split(",")))

    from deploy.local.stack import Stack

    with (
        tempfile.TemporaryDirectory(prefix="rankloop-bench-") as home,
        Stack(Path(home), 0, parts=["web"]) as stack,
    ):
        os.environ.update(stack.environ)
        _set_up_django()
        start = time.perf_counter()
        load(options.comparisons)
        print(f"{options.comparisons} comparisons loaded in {time.perf_counter() - start:.0f} s", flush=True)
        figures = _measure(stack, quick=options.quick)
    _print(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _set_up_django() -> None:
    sys.path.insert(1, str(ROOT / "platform"))
    os.environ["DJANGO_SETTINGS_MODULE"] = "rankloop.settings"
    import django

    django.setup()


def _measure(stack: Any, *, quick: bool) -> dict[str, Any]:
    acknowledged: list[str] = []
    runs = []
    plan = [(1, 300), (4, 150), (16, 60)] if quick else [(1, 1500), (4, 750), (16, 300)]
    for annotators, cycles, ahead in [*((*row, False) for row in plan), (*plan[-1], True)]:
        seconds, records = drive(stack.port, annotators, cycles, ahead)
        acknowledged += [key for record in records for key in record.acknowledged]
        runs.append(
            {
                "annotators": annotators,
                "with_drafts_and_prefetching": ahead,
                "cycles_per_second": round(sum(len(r.acknowledged) for r in records) / seconds, 1),
                "claim_ms": percentiles([t for r in records for t in r.claims]),
                "submit_ms": percentiles([t for r in records for t in r.submits]),
                **check_rows(acknowledged),
            }
        )
    return {
        "runs": runs,
        "bare_psycopg_cycles_per_second": round(
            bare_psycopg(stack.database_url, "bench-15", 200 if quick else 1000), 1
        ),
        "nothing_left_claim_ms": nothing_left(stack.port, "bench-14"),
    }


def _print(figures: dict[str, Any]) -> None:
    row: Callable[..., None] = lambda *cells: print("".join(f"{cell!s:>14}" for cell in cells))  # noqa: E731
    row(
        "annotators",
        "cycles/s",
        "claim p50",
        "p95",
        "p99",
        "submit p50",
        "p95",
        "p99",
        "over",
        "lost",
        "doubled",
    )
    for run in figures["runs"]:
        row(
            f"{run['annotators']}{' as the page' if run['with_drafts_and_prefetching'] else ''}",
            run["cycles_per_second"],
            *run["claim_ms"].values(),
            *run["submit_ms"].values(),
            run["over_assigned"],
            run["lost"],
            run["doubled"],
        )
    print(
        f"claim + submit by bare psycopg, one connection: {figures['bare_psycopg_cycles_per_second']} cycles/s"
    )
    print(f"claim with nothing left: {figures['nothing_left_claim_ms']} ms")


if __name__ == "__main__":
    main()
