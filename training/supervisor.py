"""Running a recipe as its own process group, with RUN_DIR as the whole contract. Knows processes and files, no rows.

The recipe dies with its supervisor: the kernel signals it when the thread that started it ends (so call `start` from a
long-lived thread), and it watches the read end of a pipe whose other end only the supervisor holds, because the
kernel's signal does not reach grandchildren such as those of `accelerate launch`.

Each attempt has a folder of its own. `carry_over` gives a new one what the dead ones had finished, and first puts that
out of their reach: whatever a worker or a recipe that wakes up late still writes, nobody reads.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from training import resources
from training.recipes.run_dir import UNFINISHED, checkpoints_in, find_damage

# Given to a recipe to end its step and save a checkpoint after SIGTERM, before it is killed.
STOP_SECONDS = 300.0
_PR_SET_PDEATHSIG = 1
# In an attempt's folder: what it had published when the next attempt began.
TAKEN_OVER = "taken_over"
TEXTS = ("completions.jsonl", "samples.jsonl")  # that a new attempt goes on with


def dies_with(supervisor: int) -> Callable[[], None]:
    """A `preexec_fn`: the kernel kills the child when the thread that started it ends. `supervisor`: our process id."""
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:  # it died in between
            os._exit(1)

    return prepare


class Recipe:
    """One running recipe process. `poll` it, `read_lines` of its files, `interrupt` or `kill` it."""

    def __init__(self, method: str, run_dir: Path, *, stop_seconds: float = STOP_SECONDS) -> None:
        self.method = method
        self.run_dir = run_dir
        self.stop_seconds = stop_seconds
        self.offsets: dict[str, int] = {}  # how far each file has been read
        self.was_overdue = False  # it had not stopped in time after it was asked to, and was killed
        self._stop_by: float | None = None
        self._killed = False

    def start(self) -> None:
        """Start `python -m training.recipes.<method> RUN_DIR`, its output in log.txt.

        When config.json names settings of accelerate, it starts as many processes as those say.
        """
        reading, self._lifeline = os.pipe()
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
            "RANKLOOP_LIFELINE_FD": "0",  # what a launcher, too, hands on to the processes that it starts
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            # A launcher would kill its processes sooner than we kill the launcher.
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(max(1, int(self.stop_seconds))),
        }
        # The database and the site's secrets are no business of a recipe.
        for name in ("DATABASE_URL", "SECRET_KEY", "CELERY_BROKER_URL"):
            environment.pop(name, None)
        config = json.loads((self.run_dir / "config.json").read_text())
        if config.get("threads"):
            environment["OMP_NUM_THREADS"] = str(config["threads"])
        settings = config.get("accelerate")
        launcher = ["-m", "accelerate.commands.launch", "--config_file", settings] if settings else []
        self._by_launcher = bool(launcher)
        self._oom_kills = resources.oom_kills()
        with (self.run_dir / "log.txt").open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, *launcher, "-m", f"training.recipes.{self.method}", str(self.run_dir)],
                cwd=Path(__file__).resolve().parents[1],
                env=environment,
                stdin=reading,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=dies_with(os.getpid()),
            )
        os.close(reading)

    def poll(self) -> int | None:
        """Exit code, or None while it runs. What it left in its process group is ended with it.

        Until it is reaped its number, which is also the group's, can't belong to anybody else.
        """
        ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
        if self._process.returncode is None and os.waitid(os.P_PID, self._process.pid, ended) is not None:
            self._kill_group()
        return self._process.poll()

    def wait(self, seconds: float) -> int | None:
        """Exit code, or None when it still runs after that time."""
        end = time.monotonic() + seconds
        while (code := self.poll()) is None and time.monotonic() < end:
            time.sleep(min(0.02, seconds))
        return code

    def interrupt(self) -> None:
        """Ask it to save and stop. Asked again when `stop_seconds` have passed, it is killed with its whole group."""
        if self.poll() is not None:
            return
        if self._stop_by is None:
            self._stop_by = time.monotonic() + self.stop_seconds
            self._process.send_signal(signal.SIGTERM)
        elif time.monotonic() > self._stop_by:
            self.was_overdue = True
            self.kill()

    def kill(self) -> None:
        """End the whole process group at once. Nothing happens when it is over."""
        if self.poll() is None:
            self._killed = True
            self._kill_group()
            self._process.wait()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def killed_for_memory(self) -> bool:
        """Whether the kernel ended it because memory ran out: it was killed, not by us, and the kernel counts such."""
        code = self._process.returncode
        # A launcher outlives the process that was killed, and just fails.
        killed = (code == -signal.SIGKILL or (self._by_launcher and code > 0)) and not self._killed
        return killed and resources.oom_kills() > self._oom_kills

    def close(self) -> None:
        """Let go of the lifeline, after which the recipe can't be alive."""
        self.kill()
        os.close(self._lifeline)

    def read_lines(self, name: str) -> Iterator[dict[str, Any]]:
        """The lines that were added to a JSONL file of RUN_DIR since the last call; a torn last line waits."""
        path = self.run_dir / name
        if not path.is_file():
            return
        with path.open("rb") as file:
            file.seek(self.offsets.get(name, 0))
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.offsets[name] = self.offsets.get(name, 0) + len(line)
                yield json.loads(line)

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON file of RUN_DIR, `{}` when it is not there (yet)."""
        try:
            return json.loads((self.run_dir / name).read_text())
        except FileNotFoundError:
            return {}

    def result(self) -> dict[str, Any]:
        """What result.json says. Where the first of several processes doesn't know why, what another one says."""
        found = self.read_json("result.json")
        if found.get("ok") or found.get("kind") not in (None, "bug"):
            return found
        others = [self.read_json(file.name) for file in sorted(self.run_dir.glob("result-*.json"))]
        return next((other for other in others if other["kind"] != "bug"), found)

    def note(self, text: str) -> None:
        """Say something in the log, between what the recipe says."""
        with (self.run_dir / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"worker: {text}\n")

    def said(self, *, lines: int) -> str:
        """The last lines that the process itself has said."""
        return read_log(self.run_dir, lines=lines, start=self._log_start)


def read_log(run_dir: Path, *, lines: int = 40, start: int = 0) -> str:
    """The last lines of a run's log from byte `start` on, at most 64 kB; empty when there is none."""
    try:
        with (run_dir / "log.txt").open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(start, file.tell() - 65_536))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    # Progress bars overwrite their line: only what each finally said is kept.
    return "\n".join(line.rsplit("\r", 1)[-1] for line in text.rstrip().split("\n")[-lines:])


def carry_over(earlier: Sequence[Path], attempt: Path) -> list[str]:
    """Give a new attempt the newest good checkpoint of those before it, and the texts already made.

    `earlier` are the folders of the attempts before, the newest first. Returns what there is to say of it. A copy gets
    its name once every file in it has been checked, so one that was cut short is never taken for a checkpoint.
    """
    for previous in earlier:
        _take_over(previous)
    found = [
        (step, -age, folder)
        for age, previous in enumerate(earlier)
        for step, folder in checkpoints_in(previous / TAKEN_OVER)
    ]
    said = []
    for step, _, folder in sorted(found, reverse=True):
        where = f"step {step} of {folder.parents[1].name}"
        damage = _copy_checkpoint(folder, attempt, step)
        if damage is None:
            said.append(f"goes on from {where}")
            break
        said.append(f"leaves {where}: {damage}")
    for name in TEXTS:
        latest = next((folder / name for folder in earlier if (folder / name).is_file()), None)
        if latest is not None:
            unfinished = attempt / f"{name}.copy"
            with latest.open("rb") as source, unfinished.open("wb") as copy:
                copy.writelines(line for line in source if line.endswith(b"\n"))  # the last may be torn
            os.replace(unfinished, attempt / name)
    return said


def _take_over(previous: Path) -> None:
    """Put what an attempt has published where neither its worker nor its recipe will ever write again.

    One of them may be merely stopped. What it publishes from now on lands in a new `checkpoints`, which nobody reads.
    """
    previous.mkdir(parents=True, exist_ok=True)
    taken = previous / TAKEN_OVER
    if taken.exists():
        return
    try:
        os.rename(previous / "checkpoints", taken)
    except FileNotFoundError:
        taken.mkdir()


def _copy_checkpoint(folder: Path, attempt: Path, step: int) -> str | None:
    """Copy a checkpoint; what is wrong with it, or None. Raises OSError when the copy can't be written."""
    unfinished = attempt / UNFINISHED / folder.name
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        shutil.copytree(folder, unfinished)
    except (shutil.Error, OSError):
        if (damage := find_damage(folder, step=step)) is None:
            raise
        return damage
    damage = find_damage(unfinished, step=step)
    if damage is None:
        target = attempt / "checkpoints" / folder.name
        target.parent.mkdir(exist_ok=True)
        os.rename(unfinished, target)
    else:
        shutil.rmtree(unfinished)
    return damage
