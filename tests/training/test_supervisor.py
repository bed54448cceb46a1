"""Running a recipe as a process group of its own, which dies with its supervisor and is read through files alone."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.environment import ROOT
from tests.training.stub import is_alive, wait_until, write_stub
from training import supervisor
from training.supervisor import Recipe, carry_over, read_log


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

    def start(code: str) -> Recipe:
        monkeypatch.setattr(sys, "executable", str(write_stub(tmp_path / "python", code)))
        made = Recipe("dpo", run_dir)
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
    assert running.poll() == 143
    assert (run_dir / "saved").exists()


def test_one_that_does_not_stop_is_killed_with_its_whole_group(recipe, run_dir, monkeypatch):
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 0.1)
    running = recipe(
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([{python!r}, "-c", "import time; time.sleep(600)"])
        write("ready", str(child.pid))
        time.sleep(600)
        """.replace("{python!r}", repr(sys.executable))
    )
    wait_until(lambda: bool((run_dir / "ready").exists() and (run_dir / "ready").read_text()), "the recipe")
    running.interrupt()
    assert running.poll() == -signal.SIGKILL
    wait_until(lambda: not is_alive(int((run_dir / "ready").read_text())), "the end of its child")


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
        tmp_path / "python",
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
        assert all(is_alive(pid) for pid in alive.values())
    finally:
        process.kill()
        process.wait()
    for name, pid in alive.items():
        wait_until(lambda p=pid: not is_alive(p), f"the end of the {name}")


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


def test_a_new_attempt_is_given_published_checkpoints_and_made_completions(tmp_path):
    previous, attempt = tmp_path / "attempt-1", tmp_path / "attempt-2"
    for step in (2, 4):
        (previous / f"checkpoints/step-{step}").mkdir(parents=True)
        (previous / f"checkpoints/step-{step}/state").write_text(str(step))
    (previous / "checkpoints/step-2/manifest.json").write_text("{}")
    (previous / "completions.jsonl").write_text("{}\n")
    (previous / "result.json").write_text("{}")
    (previous / "metrics.jsonl").write_text("{}\n")
    attempt.mkdir()
    carry_over(previous, attempt)
    carry_over(previous, attempt)
    copied = sorted(path.relative_to(attempt).as_posix() for path in attempt.rglob("*") if path.is_file())
    assert copied == ["checkpoints/step-2/manifest.json", "checkpoints/step-2/state", "completions.jsonl"]
    carry_over(tmp_path / "attempt-0", attempt)
