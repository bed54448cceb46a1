"""RUN_DIR: the whole contract between a recipe and whoever started it. Standard library only, no torch.

    config.json                 in   method, base, parent, seed, threads, data, options; tracker, accelerate
    train.jsonl held_out.jsonl  in   one pair per line (see pairs.py)
    metrics.jsonl               out  one {"step", "name", "value", "at"} per measurement, flushed at once
    samples.jsonl               out  what a policy writes to held-out prompts at each evaluation, with its rewards
    progress.json               out  {"step", "of", "phase"}, replaced atomically
    checkpoints/step-<n>/       out  state to resume from; without its manifest.json, written last, it is ignored
    output/                     out  the final adapter, or the whole model when all its weights have learnt
    completions.jsonl           out  one completion per line (sampling only), flushed after each batch
    result.json                 out  written last: ok, metrics, seconds, versions; or ok false, error, kind
    result-<rank>.json          out  of another process than the first (processes.py), when it fails

Kinds of failure: recipe (whoever launched it can mend it), memory (it ran out), interrupted, bug. Exit codes: 0
done, 2 a mistake the researcher can mend (RecipeError) or no memory left, 143 interrupted by SIGTERM after saving
a checkpoint, anything else is a bug of ours. With RANKLOOP_LIFELINE_FD set, the process ends at once when the
other end of that pipe closes, so that no recipe outlives its supervisor. Before the imports are done SIGTERM
just ends it.
"""

import errno
import gc
import hashlib
import json
import math
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from training.recipes import processes

MANIFEST = "manifest.json"
LIFELINE = "RANKLOOP_LIFELINE_FD"
UNFINISHED = "unfinished"  # folder of a run for what is being written; nothing in it is ever read
KEPT_CHECKPOINTS = 2  # the newest may be torn by a power cut, so the one before it stays
# As torch says it on a CPU, as CUDA does, and as its matrix library does.
OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "tokenizers")


class RecipeError(Exception):
    """A mistake whoever launched the run can mend. The message says what to do about it."""


class Interrupted(Exception):
    """SIGTERM arrived and the state is saved: the run can be resumed."""


STOPPED = "stopped by SIGTERM; start it again to carry on from the last checkpoint"


class RunDir:
    """One attempt at one run: reads its configuration, keeps its files, times its phases.

    `config` is the content of config.json. `interrupted` is set once SIGTERM has arrived. Of several processes that
    train one run (processes.py) only the first, `is_first`, writes.
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config
        self.interrupted = threading.Event()
        self._stops_at_once = False
        self.clock = Stopwatch()
        self.is_first = processes.RANK == 0
        written = path / "metrics.jsonl" if self.is_first else Path(os.devnull)
        self._metrics = written.open("a", encoding="utf-8")
        self._tracker: subprocess.Popen[bytes] | None = None

    def log_metrics(self, step: int, values: dict[str, float]) -> None:
        """Append one line per value; a value that is not finite is left out, JSON has no way to write it."""
        now = time.time()
        for name, value in values.items():
            if math.isfinite(value):
                line = {"step": step, "name": name, "value": float(value), "at": now}
                self._metrics.write(json.dumps(line) + "\n")
        self._metrics.flush()
        if self._tracker is None and self.is_first and self.config.get("tracker"):
            self._tracker = subprocess.Popen(
                [sys.executable, "-m", "training.recipes.tracker", str(self.path)], stdin=subprocess.PIPE
            )

    def keep_samples(self, step: int, samples: list[dict[str, Any]]) -> None:
        if self.is_first and samples:
            with (self.path / "samples.jsonl").open("a", encoding="utf-8") as file:
                file.writelines(json.dumps({"step": step, **sample}) + "\n" for sample in samples)

    def close(self) -> None:
        """Let the tracker, where there is one, hand over what is left; it takes a few seconds at most."""
        self._metrics.close()
        if self._tracker is not None:
            self._tracker.communicate()  # closes its input, then waits

    def report_progress(self, step: int, of: int, phase: str) -> None:
        if self.is_first:
            write_json(self.path / "progress.json", {"step": step, "of": of, "phase": phase})

    def interrupt(self, *_: Any) -> None:
        """Handles SIGTERM."""
        self.interrupted.set()
        if self._stops_at_once:
            raise Interrupted(STOPPED)

    @contextmanager
    def stopping_at_once(self) -> Iterator[None]:
        """Inside, SIGTERM raises Interrupted right away: for long work that leaves nothing behind and is done again.

        Several processes wait for each other in such work: they stop at its beginning, or do it to its end.
        """
        self._stops_at_once = processes.COUNT == 1
        try:
            self.stop_if_interrupted()
            yield
        finally:
            self._stops_at_once = False

    def is_interrupted(self) -> bool:
        """Whether SIGTERM has arrived, at whichever process. All of them must ask at the same places."""
        return processes.any_of(self.interrupted.is_set())

    def stop_if_interrupted(self) -> None:
        """Raise Interrupted when SIGTERM has arrived; call it where nothing would be lost."""
        if self.is_interrupted():
            raise Interrupted(STOPPED)

    def latest_checkpoint(self) -> tuple[int, Path] | None:
        """The newest checkpoint whose manifest holds, as (step, folder). Torn ones are ignored, and said so."""
        for step, folder in sorted(checkpoints_in(self.path / "checkpoints"), reverse=True):
            damage = find_damage(folder, step=step)
            if damage is None:
                return step, folder
            print(f"ignoring {folder.name}: {damage}", file=sys.stderr)
        return None

    def publish_checkpoint(self, step: int, unfinished: Path) -> None:
        """Give a folder its manifest and move it to checkpoints/step-<n>, so that none is ever seen half written.

        Every process calls it, once it has written its part.
        """
        processes.wait_for_all()
        if self.is_first:
            self._publish(step, unfinished)
        processes.wait_for_all()

    def _publish(self, step: int, unfinished: Path) -> None:
        folder = self.path / "checkpoints" / f"step-{step}"
        with self.clock.phase("hashing"):
            write_manifest(unfinished, {"step": step})
        with self.clock.phase("saving"):
            folder.parent.mkdir(exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(unfinished, folder)
        published = sorted(folder.parent.glob("step-*"), key=lambda f: int(f.name[5:]))
        for old in published[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(old)


class Stopwatch:
    """Wall and CPU seconds per phase. Phases nest; a second is charged to the innermost phase only.

    What no phase claims is `start_up`, which begins with the process, imports included.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.cpu_seconds: dict[str, float] = defaultdict(float)
        self._phases = ["start_up"]
        self._wall, self._cpu = time.monotonic() - _process_age(), 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._charge()
        self._phases.append(name)
        try:
            yield
        finally:
            self._charge()
            self._phases.pop()

    def read(self) -> dict[str, float]:
        """Wall seconds by phase, to the millisecond."""
        self._charge()
        phases = ("start_up", "loop", "saving", "hashing", *self.seconds)
        return {name: round(self.seconds[name], 3) for name in dict.fromkeys(phases)}

    def _charge(self) -> None:
        wall, cpu = time.monotonic(), time.process_time()
        self.seconds[self._phases[-1]] += wall - self._wall
        self.cpu_seconds[self._phases[-1]] += cpu - self._cpu
        self._wall, self._cpu = wall, cpu


def _process_age() -> float:
    """Seconds since this process was started; 0 where /proc does not tell."""
    try:
        started_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return max(0.0, uptime - started_ticks / os.sysconf("SC_CLK_TCK"))


def open_run(path: Path, method: str) -> RunDir:
    """Read config.json of a run of `method`. Raises RecipeError when it is missing, torn or for another method."""
    source = path / "config.json"
    try:
        config = json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{source} is missing: RUN_DIR must hold a config.json.") from None
    except ValueError as error:
        raise RecipeError(f"{source} is not JSON ({error}): write it again.") from None
    if not isinstance(config, dict) or config.get("method") != method:
        raise RecipeError(f'{source} must be an object with "method": "{method}".')
    threads = config.setdefault("threads", None)
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise RecipeError(f"threads is {threads!r}: give a whole number from 1, or null for all cores.")
    seed = config.setdefault("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
        raise RecipeError(f"seed is {seed!r}: give a whole number from 0 to {2**31 - 1}.")
    return RunDir(path, config)


def write_json(path: Path, content: Any) -> None:
    """Replace `path` in one step: a reader sees the old file or the new one, never half of it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def write_manifest(folder: Path, facts: dict[str, Any] | None = None) -> None:
    """Write manifest.json: sha256 and size of every file in `folder`. It comes last, it is the publication."""
    write_json(
        folder / MANIFEST,
        {**(facts or {}), "files": {name: _measure(folder / name) for name in _files(folder)}},
    )


def find_damage(folder: Path, **facts: Any) -> str | None:
    """What is wrong with a folder that should have a manifest, or None when every file is as it was written.

    `facts` are what the manifest must say besides: another checkpoint under this one's name is damage too.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        listed = dict(manifest["files"])
    except FileNotFoundError:
        return "it has no manifest, so it was never finished"
    except (ValueError, KeyError, TypeError):
        return "its manifest is torn"
    for name, value in facts.items():
        if manifest.get(name) != value:
            return f"its manifest is of {name} {manifest.get(name)}, not {value}"
    present = _files(folder)
    if sorted(listed) != present:
        return f"files missing or added: {', '.join(sorted(set(listed) ^ set(present)))}"
    for name in present:
        if _measure(folder / name) != listed[name]:
            return f"{name} has changed since it was written"
    return None


def _files(folder: Path) -> list[str]:
    found = (f for f in folder.rglob("*") if f.is_file() and f != folder / MANIFEST)
    return sorted(f.relative_to(folder).as_posix() for f in found)


def _measure(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}


def checkpoints_in(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of each checkpoint that was published there, good or damaged."""
    return [(int(one.name[5:]), one) for one in folder.glob("step-*") if one.name[5:].isdecimal()]


def watch_lifeline() -> None:
    """End this process at once when the pipe named by RANKLOOP_LIFELINE_FD closes."""
    if LIFELINE not in os.environ:
        return
    lifeline = int(os.environ[LIFELINE])

    def wait() -> None:
        try:
            while os.read(lifeline, 1):
                pass
        except OSError as error:
            print(f"lifeline {lifeline} cannot be read: {error}", file=sys.stderr)
        os._exit(1)  # no clean-up: the supervisor is gone and another attempt may already be running

    threading.Thread(target=wait, daemon=True, name="lifeline").start()


def run(method: str, main: Callable[[RunDir], dict[str, Any]]) -> NoReturn:
    """Run `main` on the folder named on the command line; end with result.json and the exit code of the contract."""
    if len(sys.argv) != 2:
        print(f"usage: python -m training.recipes.{method} RUN_DIR", file=sys.stderr)
        sys.exit(2)
    gc.freeze()  # what was imported stays, and is walked no more
    gc.enable()
    path = Path(sys.argv[1]).resolve()
    watch_lifeline()
    if processes.RANK:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the log needs to be told once only
    clock, opened = Stopwatch(), None
    try:
        opened = open_run(path, method)
        clock = opened.clock
        signal.signal(signal.SIGTERM, opened.interrupt)
        processes.join()
        metrics = main(opened)
        processes.leave()
        result: dict[str, Any] = {"ok": True, "metrics": metrics}
        code = 0
    except Interrupted as error:
        result, code = {"ok": False, "error": str(error), "kind": "interrupted"}, 143
    except Exception as error:
        mendable = explain(error, path)
        if mendable is None:
            traceback.print_exc()
        result = {"ok": False, "error": mendable or f"{type(error).__name__}: {error}"}
        kind = "memory" if is_out_of_memory(error) else "recipe"
        result["kind"], code = (kind, 2) if mendable else ("bug", 1)
    result["seconds"] = clock.read()
    result["cpu_seconds_loop"] = round(clock.cpu_seconds["loop"], 3)
    result["peak_memory_mb"] = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    )  # Linux counts in kB
    result["versions"] = {name: metadata.version(name) for name in PACKAGES} | {
        "python": platform.python_version()
    }
    if code != 0:
        print(f"error: {result['error']}", file=sys.stderr)
    if processes.RANK and code in (0, 143):
        sys.exit(code)  # the first process says it for all
    if not processes.RANK:  # on a full disk this makes room for the next line
        shutil.rmtree(path / UNFINISHED, ignore_errors=True)
    try:
        write_json(path / (f"result-{processes.RANK}.json" if processes.RANK else "result.json"), result)
    except OSError as error:  # a full or missing folder: the exit code still tells
        print(f"result.json could not be written: {error}", file=sys.stderr)
    if opened is not None:
        opened.close()
    sys.exit(code)


def explain(error: BaseException, path: Path) -> str | None:
    """What to do about `error` when whoever launched the run can mend it, else None."""
    if isinstance(error, RecipeError):
        return str(error)
    if is_disk_full(error, path):
        return (
            f"The disk holding {path.name} is full. Free some space and resume: "
            "the last finished checkpoint is intact."
        )
    if is_out_of_memory(error):
        return "Out of memory. Lower micro_batch_size (for sampling: batch_size) or max_length, and resume."
    return None


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """An error, what caused it, and so on: libraries wrap what the system said in errors of their own."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, or what caused it, is a lack of memory: of Python, of torch on a CPU, or of a GPU."""
    return any(
        isinstance(cause, MemoryError)
        or type(cause).__name__ == "OutOfMemoryError"
        or getattr(cause, "errno", None) == errno.ENOMEM
        or any(words in str(cause) for words in OUT_OF_MEMORY)
        for cause in causes_of(error)
    )


def is_disk_full(error: BaseException, path: Path) -> bool:
    """Whether `error`, or what caused it, is a full disk. torch and safetensors report it in errors of their own."""
    return any(
        getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or "No space left" in str(cause)
        or ("PytorchStreamWriter" in str(cause) and shutil.disk_usage(path).free < 2**20)
        for cause in causes_of(error)
    )
