"""One run of `bench_faults`, carried to its end through a plan of kills: when to strike, whom, and what is wrong after.

Moments are seen from outside: in the row, in the files of the attempt, in what the database says a worker waits for. A
lock on a table or a row holds a worker at a moment that would be over too soon.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any

import psycopg

from deploy.local.processes import is_running
from tests.benchmarks.faults_stage import LEASE_SECONDS, STEPS, Stage
from tests.processes import arguments_of, processes

BEGAN = time.monotonic()
PATIENCE = 90  # seconds in which a moment must come, on a machine that is busy
RETURN_SECONDS = LEASE_SECONDS + 12  # in which lost work must be back in the queue
ORPHAN_SECONDS = 10

# A plan is a list of (moment, whom to strike, what else). `worker` and `recipe` are killed. Of `stop` the worker is
# stopped past its lease, and wakes when the next one has got as far as `what else` says. Its recipe is stopped with it,
# as when a machine freezes; only where the next one shall end first does it go on alone.
Step = tuple[str, str, str]
BY_WORKER: list[Step] = [
    ("claiming", "worker", ""),
    ("claimed", "worker", ""),
    ("starting", "worker", ""),
    ("training", "worker", ""),
    ("writing a checkpoint", "worker", ""),
    ("copying", "worker", ""),
    ("training", "worker", "flip"),
    ("publishing", "worker", ""),
    ("training", "stop", "training"),
    ("last step", "worker", ""),
    ("registering", "worker", ""),
    ("registering", "stop", "ended"),
]
BY_RECIPE: list[Step] = [
    ("starting", "recipe", ""),
    ("training", "recipe", ""),
    ("writing a checkpoint", "recipe", ""),
    ("training", "stop", "claimed"),
    ("training", "worker", "truncate"),
    ("copying", "worker", ""),
    ("writing a checkpoint", "worker", "swap"),
    ("training", "worker", "forge"),
    ("publishing", "recipe", ""),
    ("output", "worker", ""),
    ("last step", "recipe", ""),
    ("training", "stop", "ended"),
]
QUICK: list[Step] = [
    ("claiming", "worker", ""),
    ("training", "worker", "flip"),
    ("writing a checkpoint", "worker", "forge"),
    ("training", "stop", "training"),
    ("registering", "worker", ""),
]


@dataclass
class Tally:
    """What the benchmark counts. All but `kills` must stay 0."""

    kills: int = 0
    lost: int = 0
    doubled: int = 0
    stale_writes: int = 0
    unequal_weights: int = 0
    orphans: int = 0
    moments: Counter = field(default_factory=Counter)
    missed: Counter = field(default_factory=Counter)


class Lost(Exception):
    """The run did not come back, or did not end."""


class KilledRun:
    """A run and the worker that has it at present."""

    def __init__(self, stage: Stage, run: Any, tally: Tally, draw: random.Random) -> None:
        self.stage, self.run, self.tally, self.draw = stage, run, tally, draw
        self.worker: subprocess.Popen | None = None
        self.stopped: subprocess.Popen | None = None
        self.frozen: list[int] = []  # the stopped worker, and its recipe where that was stopped with it
        self.taken_over = Path()  # the folder of the attempt whose worker was stopped

    def _say(self, text: str) -> None:
        print(
            f"{time.monotonic() - BEGAN:6.0f} s  {self.run.step}, attempt {self.run.attempt}: {text}",
            flush=True,
        )

    # --- from the outside ---

    def row(self) -> Any:
        self.run.refresh_from_db()
        return self.run

    @property
    def folder(self) -> Path:
        from training.worker import attempt_folder

        return attempt_folder(self.run)

    def progress(self) -> dict[str, Any]:
        try:
            return json.loads((self.folder / "progress.json").read_text())
        except (OSError, ValueError):
            return {}

    def processes(self) -> set[int]:
        """Workers and recipes of this run that are alive."""
        run = str(self.run.pk)
        return set(processes(lambda pid: any(run in argument for argument in arguments_of(pid))))

    def recipe(self) -> int | None:
        """The recipe of the present attempt."""
        return next(iter(self.recipes_in(self.folder)), None)

    def recipes_in(self, folder: Path) -> list[int]:
        """What runs in the folder of an attempt: it is among their arguments."""
        return processes(lambda pid: str(folder) in arguments_of(pid))

    def waits_for_a_lock(self) -> bool:
        with self._database() as database:
            return bool(
                database.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE %s AND wait_event_type = 'Lock'",
                    [f"%:{self.worker.pid}"],
                ).fetchone()
            )

    @contextmanager
    def _database(self) -> Iterator[psycopg.Connection]:
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as database:
            yield database

    def wait(self, happened: Callable[[], Any], seconds: float = PATIENCE, pause: float = 0.002) -> bool:
        """Whether it happened while the worker lived and the time lasted."""
        end = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > end or (self.worker and self.worker.poll() is not None):
                return bool(happened())
            time.sleep(pause)
        return True

    # --- to the end ---

    def carry(self, plan: list[Step], *, to_its_end: bool = True) -> None:
        """Follow the plan, then let the run end, and count what is wrong."""
        try:
            for moment, whom, more in plan:
                if self.row().is_over:
                    break
                self._strike(moment, whom, more)
            if to_its_end:
                self._end()
        except Lost as error:
            self.tally.lost += 1
            print(f"LOST: {self.run.method} {self.run.pk}: {error}", flush=True)
        finally:
            self._wake()
            if self.worker is not None:
                self.worker.kill()
                self.worker.wait()
        self._count_orphans(set())

    def _end(self) -> None:
        end = time.monotonic() + PATIENCE
        while not self.row().is_over:
            if time.monotonic() > end:
                raise Lost(f"it stays {self.run.status}: {self.run.error}")
            self._ensure_worker()
            self.wait(lambda: False, seconds=1, pause=0.05)
        self._wake()
        self.row()
        if self.run.status != "succeeded":
            raise Lost(f"it {self.run.status}: {self.run.error}")

    def _ensure_worker(self) -> None:
        if self.worker is None or self.worker.poll() is not None:
            self.worker = None
            if self.row().status == "queued":
                self.worker = self.stage.start_worker(self.run)

    def _claimed(self) -> None:
        """Return once a worker of ours has the run."""
        end = time.monotonic() + PATIENCE
        while True:
            self._ensure_worker()
            row = self.row()
            if row.is_over:
                return
            if self.worker and row.status == "running" and row.worker.endswith(f":{self.worker.pid}"):
                return
            if time.monotonic() > end:
                raise Lost(f"nobody could claim it: it is {row.status}")
            time.sleep(0.001)

    # --- moments ---

    def _strike(self, moment: str, whom: str, more: str) -> None:
        with self._until(moment) as came:
            if self.worker is None or self.row().is_over:
                return
            self.tally.moments[moment] += 1
            if not came:
                self.tally.missed[moment] += 1
            if whom == "recipe":
                struck = self.recipe()
                if struck is None:
                    return
                os.kill(struck, signal.SIGKILL)
            elif whom == "worker":
                struck = self.worker.pid
                self.worker.kill()
            else:
                self._stop(with_recipe=more != "ended")
            self.tally.kills += 1
            self._say(f"{whom} struck: {moment} {more}" + ("" if came else " (missed)"))
        if whom == "stop":
            self._returned()
            self._go_on_until(more)
            return
        if whom == "worker":
            self.worker.wait()
            self.worker = None
            self._count_orphans({self.stopped.pid} if self.stopped else set())
        elif not self._recipe_ended(struck):
            self.tally.orphans += 1
        if more:
            self._harm(more)
        self._returned()

    @contextmanager
    def _until(self, moment: str) -> Iterator[bool]:
        """Wait for a moment of the present attempt; the body is in it. Gives whether it came."""
        if moment == "claiming":
            with psycopg.connect(os.environ["DATABASE_URL"]) as database:
                database.execute("SELECT 1 FROM training_trainingrun WHERE id = %s FOR UPDATE", [self.run.pk])
                self._ensure_worker()
                yield self.wait(self.waits_for_a_lock, pause=0.02)
            return
        self._claimed()
        folder = self.folder
        if moment == "registering":
            self.wait(lambda: self.progress().get("step") == STEPS)
            with psycopg.connect(os.environ["DATABASE_URL"]) as database:
                database.execute("LOCK TABLE training_checkpoint IN SHARE MODE")
                yield self.wait(self.waits_for_a_lock, pause=0.02)
            return
        if moment == "starting":
            came = self.wait((folder / "log.txt").exists)
            # At any moment until it trains: a checkpoint would be progress, of which a poison run makes none.
            self.wait(self._is_loaded, seconds=self.draw.uniform(0, 4), pause=0.02)
        elif moment == "training":
            came = self.wait(lambda: self.progress().get("phase") == "training")
            begun = self.progress().get("step", 0)
            came = came and self.wait(
                lambda: self.progress().get("step", 0) > begun and self._has_checkpoint()
            )
            time.sleep(self.draw.uniform(0, 0.05))
        elif moment == "copying":
            ready = [folder / "unfinished", folder / "checkpoints"]
            came = self.wait(lambda: any(map(Path.exists, [*ready, folder / "config.json"])), pause=0.0001)
            came = not (folder / "config.json").exists()
        elif moment == "writing a checkpoint":
            self.wait(self._has_checkpoint)
            came = self.wait(lambda: self._has("unfinished/checkpoint-*/*"), pause=0.0002)
        elif moment == "publishing":
            self.wait(self._has_checkpoint)
            came = self.wait(lambda: self._has("unfinished/checkpoint-*/*manifest.json*"), pause=0.0001)
        elif moment == "last step":
            came = self.wait(lambda: self.progress().get("step") == STEPS)
        elif moment == "output":
            came = self.wait((folder / "output").exists, pause=0.0005)
        else:
            came = moment == "claimed"
        yield came

    def _is_loaded(self) -> bool:
        return self.progress().get("phase", "loading") != "loading"

    def _has_checkpoint(self) -> bool:
        return self._has("checkpoints/step-*/manifest.json")

    def _has(self, pattern: str) -> bool:
        """Whether the attempt has such a file. Path.glob fails when a folder vanishes while it looks; glob does not."""
        return bool(glob(pattern, root_dir=self.folder, include_hidden=True))

    # --- stopped workers ---

    def _stop(self, *, with_recipe: bool) -> None:
        self._wake()
        recipe = self.recipe() if with_recipe else None
        self.frozen = [self.worker.pid, *([recipe] if recipe else [])]
        for pid in self.frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        self.stopped, self.worker = self.worker, None
        self.taken_over = self.folder

    def _go_on_until(self, what: str) -> None:
        """Let another worker take over, as far as that; then wake the one that was stopped."""
        if what == "ended":
            self._end()
            return
        self._claimed()
        if what == "training":
            self.wait(lambda: self.progress().get("phase") == "training")
        self._wake()

    def _wake(self) -> None:
        """Let a stopped worker go on; it must notice, and leave nothing behind."""
        if self.stopped is None:
            return
        woken, self.stopped = self.stopped, None
        for pid in self.frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        try:
            woken.wait(ORPHAN_SECONDS)
        except subprocess.TimeoutExpired:
            self.tally.orphans += 1
            woken.kill()
            woken.wait()
        self.tally.orphans += sum(not self._recipe_ended(pid) for pid in self.recipes_in(self.taken_over))

    # --- what must be true after ---

    def _returned(self) -> None:
        """Return once the run is in the queue again, or over."""
        end = time.monotonic() + RETURN_SECONDS
        while self.row().status == "running":
            if time.monotonic() > end:
                raise Lost("nobody gave it back to the queue")
            time.sleep(0.05)
        if self.worker is not None:  # its recipe was killed
            self.worker.wait()
            self.worker = None

    def _count_orphans(self, known: set[int]) -> None:
        """Whoever of this run still lives so long after its worker was killed is one."""
        end = time.monotonic() + ORPHAN_SECONDS
        mine = known | ({self.worker.pid} if self.worker and self.worker.poll() is None else set())
        if self.stopped:  # the recipe of a stopped worker may go on
            mine |= set(self.recipes_in(self.taken_over))
        while left := self.processes() - mine:
            if time.monotonic() > end:
                self.tally.orphans += len(left)
                for pid in left:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.02)

    def _recipe_ended(self, pid: int) -> bool:
        end = time.monotonic() + ORPHAN_SECONDS
        while is_running(pid):
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    # --- what a power cut or a late writer does to files ---

    def _harm(self, how: str) -> None:
        """Do to the newest checkpoint of the dead attempt what its manifest must tell; or forge one, later on."""
        folders = sorted(self.folder.glob("checkpoints/step-*"), key=lambda f: int(f.name[5:]))
        if not folders:
            self.tally.missed[how] += 1
            return
        newest = folders[-1]
        weights = max(newest.glob("*.safetensors"), key=lambda file: file.stat().st_size)
        if how == "flip":
            flip_a_bit(weights)
        elif how == "truncate":
            os.truncate(weights, weights.stat().st_size // 2)
        elif how == "swap":
            others = [file for file in newest.iterdir() if file.is_file() and file != weights]
            other = max(others, key=lambda file: (file.suffix == ".safetensors", file.stat().st_size))
            content = weights.read_bytes()
            weights.write_bytes(other.read_bytes())
            other.write_bytes(content)
        else:
            self._forge(newest)

    def _forge(self, newest: Path) -> None:
        """A whole checkpoint of the last step, with other weights, written by the dead attempt after the takeover."""
        from training.recipes.run_dir import write_manifest

        forged = self.stage.home / f"forged-{self.run.pk}"
        shutil.copytree(newest, forged)
        for file in forged.glob("*.safetensors"):
            flip_a_bit(file)
        write_manifest(forged, {"step": STEPS})
        dead = self.folder
        self._returned()
        self._claimed()
        if self.wait((self.folder / "config.json").exists, pause=0.0005):
            (dead / "checkpoints").mkdir(exist_ok=True)
            os.rename(forged, dead / "checkpoints" / f"step-{STEPS}")
            # The attempt that has begun reads nothing of it, nor does the next.
            self.worker.kill()
            self.tally.kills += 1
            self.tally.moments["starting"] += 1
        self.worker.wait()
        self.worker = None
        self._count_orphans(set())


def flip_a_bit(file: Path) -> None:
    """Change one weight for the worse: the highest bit but one of the last byte."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 0x40
    file.write_bytes(bytes(content))
