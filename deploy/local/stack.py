"""The local stack: PostgreSQL, the web server, three workers and beat, kept running until told to stop.

    with Stack(home, port=8000) as stack:
        stack.url            # http://127.0.0.1:8000
        stack.environ        # what a process of the product needs, e.g. for `manage.py`
        stack.pids["web"]    # to be killed in a test; the stack starts it again

One thread starts every child, watches them and starts again what crashed: the kernel ends a child with the
thread that started it, so this thread lives exactly as long as the stack. However this process ends, its
children do too:

    Ctrl-C, SIGTERM   in order: web, beat, workers (runs save a checkpoint first), PostgreSQL last
    kill -9           by the kernel: PostgreSQL shuts down, granian ends its workers, the rest is killed. A killed
                      worker does no harm (its leases run out), and a recipe's lifeline closes with its worker
"""

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local.home import Home
from deploy.local.ports import claim_port
from deploy.local.postgres import Server, check_database
from deploy.local.processes import ROOT, StackError, end, has_ended, send, spawn, tail, wait_until

PARTS = ("web", "beat", "worker-short", "worker-generation", "worker-training")
CONCURRENCY = {"short": 4, "generation": 1, "training": 1}
CRASHES, WITHIN_SECONDS = 5, 60.0
BACKOFF_SECONDS = 0.5  # before the first new start; twice as long before each further one
WEB_GRACE_SECONDS = 8.0
WORKER_GRACE_SECONDS = 60.0  # to end a step and save; what takes longer goes on from its last checkpoint
SITE_SECONDS = 120.0  # how long the site may take to answer for the first time
LOG_LIMIT = 10_000_000  # bytes; a longer log is set aside at the next start


@dataclass
class Part:
    """One process of the stack."""

    name: str
    program: list[str]
    log: Path
    death_signal: signal.Signals  # what the kernel sends it when this process ends
    process: subprocess.Popen[bytes] | None = None
    start_at: float = 0.0  # not before this moment of the monotonic clock


class Stack:
    """The whole product on one machine, with its state in `home` and its site on 127.0.0.1:`port`.

    `port` 0 takes any free one, None the first free one from 8000 on. `parts` are those of PARTS to run
    beside the database. `environ` (default: ours) is what the processes get, with the product's own variables
    added; DATABASE_URL in it replaces the embedded server, CELERY_BROKER_URL the broker. `say` is told in a
    sentence what is going on.
    """

    def __init__(
        self,
        home: Path,
        port: int | None = 0,
        *,
        parts: Collection[str] = PARTS,
        environ: Mapping[str, str] | None = None,
        command: str = "stack",
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.home = Home(Path(home).resolve())
        self.port = port or 0  # known once started
        self._port_wanted = port
        self.environ: dict[str, str] = dict(os.environ if environ is None else environ)
        self.failure: Exception | None = None
        self._command, self._say = command, say
        self._parts_wanted = [name for name in PARTS if name in parts]
        self._parts: list[Part] = []
        self._server: Server | None = None
        self._crashes: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=CRASHES))
        self._up, self._stopping = threading.Event(), threading.Event()
        self._hurry = False
        # A daemon: should a program end without stopping its stack, it doesn't hang; the kernel ends the stack.
        self._thread = threading.Thread(target=self._live, name="rankloop-stack", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database_url(self) -> str:
        return self.environ["DATABASE_URL"]

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by part, with "postgres" when the server is the embedded one."""
        running = {part.name: part.process.pid for part in self._parts if part.process is not None}
        if self._server is not None and self._server.process is not None:
            running["postgres"] = self._server.process.pid
        return running

    def start(self) -> None:
        """Start everything, return once the site answers. Raises StackError; nothing is left running then."""
        self._thread.start()
        # In short waits, so that Ctrl-C is heard while starting.
        while not self._up.wait(0.2):
            pass
        if self.failure is not None:
            self.stop()
            raise self.failure

    def stop(self) -> None:
        """Stop everything in order and wait for it. Harmless when it is stopped already."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def hurry(self) -> None:
        """While stopping: wait for nothing but PostgreSQL."""
        self._hurry = True

    def check(self) -> None:
        """Raise StackError if the stack had to give up."""
        if self.failure is not None:
            raise self.failure

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- everything below runs in the stack's own thread ---

    def _live(self) -> None:
        with ExitStack() as held:
            try:
                self.home.prepare()
                held.enter_context(self.home.locked(self._command))
                self.port, claim = claim_port(self._port_wanted)
                held.enter_context(claim)
                self._bring_up()
                self._up.set()
                while not self._stopping.wait(0.2):
                    self._tend()
            except Exception as error:  # told to whoever waits for us, in another thread
                self.failure = error
            finally:
                try:
                    self._bring_down()
                finally:
                    self._up.set()

    def _bring_up(self) -> None:
        database_url = self.environ.get("DATABASE_URL")
        if database_url:
            check_database(database_url)
        else:
            self._say("Starting PostgreSQL")
            self._server = Server(self.home.data, self.home.sockets, self._log("postgres"))
            self._server.start()
            database_url = self._server.url
        self.environ = self.home.environment(self.environ, database_url, self.port)
        self._say("Bringing the database up to date")
        self._prepare()
        if self._stopping.is_set():
            return
        self._parts = [self._part(name) for name in self._parts_wanted]
        if self._parts:
            self._say(f"Starting {', '.join(self._parts_wanted)}")
        for part in self._parts:
            self._start(part)
        if "web" in self._parts_wanted:
            self._await_site()

    def _prepare(self) -> None:
        """Bring the database up to date, and beside that collect the files the site serves."""
        tasks = {"migrate": self._manage("migrate")}
        if "web" in self._parts_wanted:
            tasks["collectstatic"] = self._manage("collectstatic")
        while not all(map(has_ended, tasks.values())):
            if self._stopping.wait(0.05):
                break
        for name, child in tasks.items():
            end(child, (signal.SIGTERM, 5))  # harmless once it has ended
            if child.returncode != 0 and not self._stopping.is_set():
                log = self._log(name)
                raise StackError(f"manage.py {name} failed. The end of {log}:\n{tail(log)}")

    def _manage(self, name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(ROOT / "manage.py"), name, "--no-input", "--no-color"]
        return spawn(
            command, death_signal=signal.SIGKILL, environ=self.environ, log=self._log(name), cwd=ROOT
        )

    def _part(self, name: str) -> Part:
        log, python = self._log(name), [sys.executable, "-m"]
        if name == "web":
            threads = self.environ.get("RANKLOOP_WEB_THREADS", "1")
            program = [*python, "granian", "--interface", "wsgi", "rankloop.wsgi:application"]
            program += ["--host", "127.0.0.1", "--port", str(self.port), "--http", "1", "--no-ws"]
            program += ["--workers", self.environ.get("RANKLOOP_WEB_WORKERS", "4")]
            # No --backpressure: it counts open connections, and browsers keep several each. Threads that wait
            # for requests a while longer keep their database connections.
            program += ["--blocking-threads", threads, "--blocking-threads-idle-timeout", "600"]
            # Its workers are not our children: on SIGTERM granian ends them, by force after these seconds.
            program += ["--respawn-failed-workers", "--workers-kill-timeout", "4"]
            return Part(name, program, log, death_signal=signal.SIGTERM)
        celery = [*python, "celery", "-A", "rankloop.celery"]
        if name == "beat":
            schedule = str(self.home.path / "beat" / "schedule")
            program = [*celery, "beat", "--loglevel", "INFO", "--schedule", schedule]
            return Part(name, program, log, death_signal=signal.SIGTERM)
        queue = name.removeprefix("worker-")
        program = [*celery, "worker", "--queues", queue, "--hostname", f"{queue}-{self.port}@%h"]
        # Threads: a task waits for the database or for a recipe's own process, and forks and torch don't mix.
        program += ["--pool", "threads", "--concurrency", str(CONCURRENCY[queue]), "--loglevel", "INFO"]
        program += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        # No gentler signal will do: celery's pool waits for its threads, and one of them may train for hours.
        return Part(name, program, log, death_signal=signal.SIGKILL)

    def _start(self, part: Part) -> None:
        part.process = spawn(
            part.program, death_signal=part.death_signal, environ=self.environ, log=part.log, cwd=ROOT
        )

    def _tend(self) -> None:
        """Start again what has ended, a little later each time. Raises StackError if that keeps happening."""
        server = self._server
        if server is not None and server.process is not None and has_ended(server.process):
            self._note_crash("postgres", server.process.returncode)
            server.start()
        for part in self._parts:
            if part.process is not None and has_ended(part.process):
                delay = self._note_crash(part.name, part.process.returncode)
                part.process, part.start_at = None, time.monotonic() + delay
            elif part.process is None and time.monotonic() >= part.start_at:
                self._start(part)

    def _note_crash(self, name: str, code: int) -> float:
        """Seconds to wait before a new start. Raises StackError when there were too many crashes of late."""
        log, now, crashes = self._log(name), time.monotonic(), self._crashes[name]
        crashes.append(now)
        recent = sum(now - crash < WITHIN_SECONDS for crash in crashes)
        if recent == CRASHES:
            raise StackError(
                f"{name} ended {CRASHES} times within a minute, so everything was stopped. "
                f"The end of {log}:\n{tail(log)}"
            )
        self._say(f"{name} ended with code {code}; starting it again. Its log is {log}")
        return float(BACKOFF_SECONDS * 2 ** (recent - 1))

    def _await_site(self) -> None:
        deadline = time.monotonic() + SITE_SECONDS
        while not self._stopping.is_set():
            self._tend()
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                connection.request("GET", "/sign-in/")
                status = connection.getresponse().status
            except (OSError, http.client.HTTPException):
                status = None
            finally:
                connection.close()
            if status is not None and status < 500:
                return
            if status is not None or time.monotonic() > deadline:
                log = self._log("web")
                what = f"answers with error {status}" if status else "does not answer"
                raise StackError(f"The site at {self.url} {what}. The end of {log}:\n{tail(log)}")
            time.sleep(0.05)

    def _bring_down(self) -> None:
        self._end(("web", "beat"), WEB_GRACE_SECONDS)
        self._end(PARTS, WORKER_GRACE_SECONDS)
        if self._server is not None:
            self._server.stop()

    def _end(self, names: Collection[str], grace: float) -> None:
        running = [part.process for part in self._parts if part.name in names and part.process is not None]
        for process in running:
            send(process, signal.SIGTERM)
        wait_until(lambda: self._hurry or all(map(has_ended, running)), grace)
        for process in running:
            end(process)

    def _log(self, name: str) -> Path:
        log = self.home.logs / f"{name}.log"
        if log.exists() and log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
        return log
