"""Running a recipe as its own process group, with RUN_DIR as the whole contract. Knows processes and files, no rows.

The recipe dies with its supervisor: the kernel signals it when the thread that started it ends (so call `start` from a
long-lived thread), and it watches the read end of a pipe whose other end only the supervisor holds, because the
kernel's signal does not reach grandchildren such as those of `accelerate launch`.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

# Given to a recipe to save a checkpoint after SIGTERM, before it is killed.
GRACE_SECONDS = 60
_PR_SET_PDEATHSIG = 1


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

    def __init__(self, method: str, run_dir: Path) -> None:
        self.method = method
        self.run_dir = run_dir
        self._offsets: dict[str, int] = {}

    def start(self) -> None:
        """Start `python -m training.recipes.<method> RUN_DIR`; its output goes to log.txt."""
        reading, self._lifeline = os.pipe()
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
            "RANKLOOP_LIFELINE_FD": str(reading),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        # The database and the site's secrets are no business of a recipe.
        for name in ("DATABASE_URL", "SECRET_KEY", "CELERY_BROKER_URL"):
            environment.pop(name, None)
        threads = json.loads((self.run_dir / "config.json").read_text()).get("threads")
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        with (self.run_dir / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"training.recipes.{self.method}", str(self.run_dir)],
                cwd=Path(__file__).resolve().parents[1],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[reading],
                start_new_session=True,
                preexec_fn=dies_with(os.getpid()),
            )
        os.close(reading)

    def poll(self) -> int | None:
        """Exit code, or None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> int | None:
        """Exit code, or None when it still runs after that time."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def interrupt(self) -> None:
        """Ask it to save and stop; kill the group when it has not after GRACE_SECONDS."""
        self._process.send_signal(signal.SIGTERM)
        if self.wait(GRACE_SECONDS) is None:
            self.kill()

    def kill(self) -> None:
        """End the whole process group at once. Nothing happens when it is over."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

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
            file.seek(self._offsets.get(name, 0))
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offsets[name] = self._offsets.get(name, 0) + len(line)
                yield json.loads(line)

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON file of RUN_DIR, `{}` when it is not there (yet)."""
        try:
            return json.loads((self.run_dir / name).read_text())
        except FileNotFoundError:
            return {}


def read_log(run_dir: Path, *, lines: int = 40) -> str:
    """The last lines of a run's log, at most 64 kB; empty when there is none."""
    try:
        with (run_dir / "log.txt").open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 65_536))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    # Progress bars overwrite their line: only what each finally said is kept.
    return "\n".join(line.rsplit("\r", 1)[-1] for line in text.rstrip().split("\n")[-lines:])


def carry_over(previous: Path, attempt: Path) -> None:
    """Give a new attempt what the dead one had finished: published checkpoints, and completions already made.

    What is torn comes along too: the recipe checks each manifest and leaves it.
    """
    for folder in sorted(previous.glob("checkpoints/step-*")):
        if (folder / "manifest.json").is_file():
            shutil.copytree(folder, attempt / "checkpoints" / folder.name, dirs_exist_ok=True)
    if (previous / "completions.jsonl").is_file():
        shutil.copyfile(previous / "completions.jsonl", attempt / "completions.jsonl")
