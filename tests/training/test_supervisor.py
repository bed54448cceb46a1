"""Running a recipe as a process group of its own, which dies with its supervisor and is read through files alone."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deploy.local.processes import is_running
from tests.environment import ROOT
from tests.training.stub import wait_until, write_stub
from training import resources, supervisor
from training.recipes.run_dir import write_manifest
from training.supervisor import TAKEN_OVER, Recipe, carry_over, read_log


@pytest.fixture
def run_dir(tmp_path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"method": "dpo", "threads": 3}))
    return folder


@pytest.fixture
def recipe(run_dir, tmp_path, monkeypatch):
    """Start a recipe that does the given code."""
    started: list[Recipe] = []
    real = sys.executable

    def start(code: str, **given) -> Recipe:
        monkeypatch.setattr(sys, "executable", real)
        monkeypatch.setattr(sys, "executable", str(write_stub(tmp_path, code)))
        made = Recipe("dpo", run_dir, **given)
        made.start()
        started.append(made)
        return made

    yield start
    for made in started:
        made.kill()


def test_a_recipe_gets_its_folder_its_own_group_and_none_of_our_secrets(recipe, run_dir):
    running = recipe(
        "write('seen.json', json.dumps([sys.argv[1:], os.getpgid(0) == os.getpid(), dict(os.environ)]))"
    )
    assert running.wait(30) == 0
    arguments, leads_its_group, environment = json.loads((run_dir / "seen.json").read_text())
    assert arguments == ["-m", "training.recipes.dpo", str(run_dir)]
    assert leads_its_group
    assert not {"DATABASE_URL", "SECRET_KEY", "CELERY_BROKER_URL"} & set(environment)
    assert {"DATABASE_URL", "SECRET_KEY"} <= set(os.environ)
    assert (environment["OMP_NUM_THREADS"], environment["HF_HUB_OFFLINE"]) == ("3", "1")


def test_what_a_recipe_says_is_in_its_log(recipe, run_dir):
    running = recipe("print('to stdout', flush=True); print('to stderr', file=sys.stderr); sys.exit(7)")
    assert running.wait(30) == 7
    assert running.poll() == 7
    assert read_log(run_dir).splitlines() == ["to stdout", "to stderr"]


def test_asked_to_stop_it_may_save_first(recipe, run_dir):
    running = recipe(
        """
        signal.signal(signal.SIGTERM, lambda *_: (write("saved", ""), sys.exit(143)))
        write("ready", "")
        time.sleep(600)
        """
    )
    wait_until((run_dir / "ready").exists, "the recipe")
    running.interrupt()
    running.interrupt()
    assert running.wait(30) == 143
    assert (run_dir / "saved").exists() and not running.was_overdue


def test_one_that_does_not_stop_is_killed_with_its_whole_group(recipe, run_dir):
    running = recipe(
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([{python!r}, "-c", "import time; time.sleep(600)"])
        write("ready", str(child.pid))
        time.sleep(600)
        """.replace("{python!r}", repr(sys.executable)),
        stop_seconds=0.2,
    )
    wait_until(lambda: bool((run_dir / "ready").exists() and (run_dir / "ready").read_text()), "the recipe")
    running.interrupt()
    assert running.wait(0.3) is None
    running.interrupt()
    assert (running.poll(), running.was_overdue) == (-signal.SIGKILL, True)
    wait_until(lambda: not is_running(int((run_dir / "ready").read_text())), "the end of its child")


def test_a_launcher_gives_its_processes_as_long_as_we_give_it(recipe, run_dir):
    running = recipe("write('given', os.environ['TORCH_ELASTIC_SHUTDOWN_TIMEOUT'])", stop_seconds=77)
    assert running.wait(30) == 0
    assert (run_dir / "given").read_text() == "77"


def test_closing_kills_what_still_runs_and_lets_go_of_the_pipe(recipe, run_dir):
    running = recipe("time.sleep(600)")
    before = len(os.listdir("/proc/self/fd"))
    running.close()
    assert running.poll() == -signal.SIGKILL
    assert len(os.listdir("/proc/self/fd")) == before - 1


# The grandchild stands for a process of `accelerate launch`: the kernel's signal does not reach it, the pipe does.
GRANDCHILD = """
import os, time
from pathlib import Path
from training.recipes.run_dir import watch_lifeline
watch_lifeline()
Path({pids!r}, "grandchild").write_text(str(os.getpid()))
time.sleep(600)
"""
SUPERVISOR = """
import sys, time
from pathlib import Path
real, sys.executable = sys.executable, {stub!r}
from training.supervisor import Recipe
recipe = Recipe("dpo", Path({run_dir!r}))
recipe.start()
time.sleep(600)
"""


def test_a_recipe_and_its_children_die_with_a_supervisor_that_is_killed(run_dir, tmp_path):
    pids = tmp_path / "pids"
    pids.mkdir()
    grandchild = GRANDCHILD.format(pids=str(pids))
    stub = write_stub(
        tmp_path,
        f"""
        Path({str(pids)!r}, "recipe").write_text(str(os.getpid()))
        subprocess.Popen([{sys.executable!r}, "-c", {grandchild!r}], close_fds=False, start_new_session=True)
        time.sleep(600)
        """,
    )
    code = SUPERVISOR.format(stub=str(stub), run_dir=str(run_dir))
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        for name in ("recipe", "grandchild"):
            wait_until(lambda n=name: (pids / n).exists() and (pids / n).read_text() != "", f"the {name}")
        alive = {name: int((pids / name).read_text()) for name in ("recipe", "grandchild")}
        assert all(is_running(pid) for pid in alive.values())
    finally:
        process.kill()
        process.wait()
    for name, pid in alive.items():
        wait_until(lambda p=pid: not is_running(p), f"the end of the {name}")


def test_a_recipe_dies_when_the_thread_that_started_it_ends(recipe):
    """Why `start` is called from a long-lived thread."""
    started = []
    thread = threading.Thread(target=lambda: started.append(recipe("time.sleep(600)")))
    thread.start()
    thread.join()
    assert started[0].wait(30) == -signal.SIGKILL


# --- what is read ---


def test_lines_are_read_once_and_a_torn_last_line_waits_for_its_end(run_dir):
    reader = Recipe("dpo", run_dir)
    file = run_dir / "metrics.jsonl"
    assert list(reader.read_lines("metrics.jsonl")) == []
    file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert list(reader.read_lines("metrics.jsonl")) == [{"step": 1}, {"step": 2}]
    assert list(reader.read_lines("metrics.jsonl")) == []
    with file.open("a") as more:
        more.write('ep": 3}\n{"text": "ü')
    assert list(reader.read_lines("metrics.jsonl")) == [{"step": 3}]
    with file.open("a") as more:
        more.write('ber"}\n')
    assert list(reader.read_lines("metrics.jsonl")) == [{"text": "über"}]
    assert next(Recipe("dpo", run_dir).read_lines("metrics.jsonl")) == {"step": 1}


def test_two_files_are_followed_apart(run_dir):
    reader = Recipe("dpo", run_dir)
    for name in ("a.jsonl", "b.jsonl"):
        (run_dir / name).write_text(json.dumps({"of": name}) + "\n")
    assert list(reader.read_lines("a.jsonl")) == [{"of": "a.jsonl"}]
    assert list(reader.read_lines("b.jsonl")) == [{"of": "b.jsonl"}]


def test_a_json_file_that_is_not_there_yet_is_empty(run_dir):
    reader = Recipe("dpo", run_dir)
    assert reader.read_json("progress.json") == {}
    (run_dir / "progress.json").write_text('{"step": 4}')
    assert reader.read_json("progress.json") == {"step": 4}


def test_the_tail_of_a_log_is_its_last_lines_without_overwritten_progress(run_dir):
    assert read_log(run_dir) == ""
    lines = [f"line {number}" for number in range(100)]
    (run_dir / "log.txt").write_text(
        "\n".join([*lines, " 10%\r 50%\r100% done", "last \udc80"]) + "\n", errors="surrogateescape"
    )
    assert read_log(run_dir, lines=3).split("\n") == ["line 99", "100% done", "last \ufffd"]
    assert len(read_log(run_dir).split("\n")) == 40


def test_the_tail_of_a_huge_log_stays_small(run_dir):
    (run_dir / "log.txt").write_text("x" * 1_000_000)
    assert len(read_log(run_dir)) == 65_536


# --- what a new attempt is given ---


def save(attempt: Path, step: int, text: str = "", **facts) -> Path:
    """A checkpoint as a recipe publishes it."""
    folder = attempt / "checkpoints" / f"step-{step}"
    folder.mkdir(parents=True)
    (folder / "state").write_text(text or f"after {step}")
    (folder / "weights").write_text(f"weights after {step}")
    write_manifest(folder, {"step": step, **facts})
    return folder


@pytest.fixture
def attempts(tmp_path) -> list[Path]:
    """Folders of three attempts; that of the third, which begins, is made."""
    folders = [tmp_path / f"attempt-{number}" for number in (1, 2, 3)]
    folders[2].mkdir()
    return folders


def files_in(attempt: Path) -> list[str]:
    return sorted(path.relative_to(attempt).as_posix() for path in attempt.rglob("*") if path.is_file())


def test_a_new_attempt_is_given_the_newest_checkpoint_and_made_completions(attempts):
    first, second, third = attempts
    save(first, 2)
    save(second, 4)
    save(second, 6)
    (second / "completions.jsonl").write_text("{}\n")
    (second / "result.json").write_text("{}")
    (second / "metrics.jsonl").write_text("{}\n")
    assert carry_over([second, first], third) == ["goes on from step 6 of attempt-2"]
    assert files_in(third) == [
        "checkpoints/step-6/manifest.json",
        "checkpoints/step-6/state",
        "checkpoints/step-6/weights",
        "completions.jsonl",
    ]
    copy, source = (f / "step-6" / "state" for f in (third / "checkpoints", second / TAKEN_OVER))
    assert not copy.samefile(source)  # a hard link would let a late write reach the new attempt


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda f: (f / "state").write_text("after 7"), "state has changed"),
        (lambda f: os.truncate(f / "weights", 3), "weights has changed"),
        (lambda f: (f / "weights").unlink(), "files missing or added: weights"),
        (lambda f: (f / "more").write_text(""), "files missing or added: more"),
        (lambda f: swap(f / "state", f / "weights"), "state has changed"),
        (lambda f: (f / "manifest.json").unlink(), "never finished"),
        (lambda f: swap(f / "manifest.json", f.parent / "step-4" / "manifest.json"), "of step 4, not 6"),
    ],
)
def test_a_damaged_checkpoint_is_left_and_named_and_the_one_before_it_taken(attempts, harm, said):
    first, _, third = attempts
    save(first, 2)
    save(first, 4)
    harm(save(first, 6))
    told = carry_over([first], third)
    assert told[0].startswith("leaves step 6 of attempt-1: ")
    assert said in told[0]
    assert told[-1] == f"goes on from step {2 if 'step 4' in said else 4} of attempt-1"


def swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def test_a_copy_that_was_cut_short_is_not_taken_for_a_checkpoint(attempts, monkeypatch):
    first, second, third = attempts
    save(first, 6)
    second.mkdir()

    def killed_half_way(source, target, **_):
        target.mkdir(parents=True)
        for name in ("manifest.json", "state"):
            (target / name).write_bytes((source / name).read_bytes())
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(supervisor.shutil, "copytree", killed_half_way)
        with pytest.raises(KeyboardInterrupt):
            carry_over([first], second)
    assert not (second / "checkpoints").exists()
    assert carry_over([second, first], third) == ["goes on from step 6 of attempt-1"]


def test_a_disk_that_fills_up_while_copying_is_an_error_and_no_damage(attempts, monkeypatch):
    first, _, third = attempts
    save(first, 6)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(supervisor.shutil, "copytree", full)
    with pytest.raises(OSError, match="No space left"):
        carry_over([first], third)


def test_what_an_old_attempt_writes_after_it_was_taken_over_is_never_read(attempts):
    first, second, third = attempts
    save(first, 2)
    second.mkdir()
    carry_over([first], second)
    save(first, 4, "late")  # its recipe was still running
    late = second.parent / "attempt-2" / "checkpoints" / "step-2" / "state"
    assert carry_over([second, first], third) == ["goes on from step 2 of attempt-2"]
    assert not late.exists()
    save(second, 8, "late")
    fourth = third.parent / "attempt-4"
    fourth.mkdir()
    assert carry_over([third, second, first], fourth) == ["goes on from step 2 of attempt-3"]


def test_texts_of_the_latest_attempt_that_has_some_go_along(attempts):
    first, second, third = attempts
    save(first, 2)
    (first / "samples.jsonl").write_text("old\n")
    (first / "completions.jsonl").write_text("made\n")
    second.mkdir()
    (second / "samples.jsonl").write_text("new\nto")
    carry_over([second, first], third)
    assert (third / "samples.jsonl").read_text() == "new\n"
    assert (third / "completions.jsonl").read_text() == "made\n"


def test_an_attempt_without_a_folder_has_none_to_write_to_later(attempts):
    first, second, third = attempts
    assert carry_over([second, first], third) == []
    save(second, 4, "late")
    fourth = third.parent / "attempt-4"
    fourth.mkdir()
    assert carry_over([third, second, first], fourth) == []


# --- memory ---


def test_what_is_left_of_its_group_ends_with_a_recipe(recipe, run_dir):
    running = recipe(
        """
        child = subprocess.Popen([{python!r}, "-c", "import time; time.sleep(600)"])
        write("child", str(child.pid))
        """.replace("{python!r}", repr(sys.executable))
    )
    assert running.wait(30) == 0
    wait_until(lambda: not is_running(int((run_dir / "child").read_text())), "the end of its child")


def test_only_a_recipe_that_we_did_not_kill_was_killed_for_memory(recipe, monkeypatch):
    count = [0]
    monkeypatch.setattr(supervisor.resources, "oom_kills", lambda: count[0])
    died, ours, early = (recipe("time.sleep(600)") for _ in range(3))
    os.kill(early._process.pid, signal.SIGKILL)
    assert early.wait(30) == -signal.SIGKILL
    assert not early.killed_for_memory  # the kernel has counted nothing
    count[0] += 1
    os.kill(died._process.pid, signal.SIGKILL)
    assert died.wait(30) == -signal.SIGKILL
    assert died.killed_for_memory
    ours.kill()
    assert not ours.killed_for_memory


def test_the_kernels_counters_are_read_where_they_are(monkeypatch):
    before = resources.oom_kills()
    read = Path.read_text
    extra = {
        "/proc/vmstat": "nr_free_pages 5\noom_kill 2\n",
        "/sys/fs/cgroup/memory.events": "oom 9\noom_kill 1\n",
    }
    monkeypatch.setattr(Path, "read_text", lambda self, *a, **k: extra.get(str(self)) or read(self, *a, **k))
    assert resources.oom_kills() >= 3
    assert isinstance(before, int)
