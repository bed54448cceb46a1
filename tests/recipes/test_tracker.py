"""Copying measurements to a tracker: its own process, which ends with the recipe and can't hold it up or stop it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from tests.recipes.runs import ROOT
from training.recipes.run_dir import open_run

# What the packages are asked for, one line of JSON a call; the real ones are large and optional.
STUBS = {
    "trackio": """
        import json, os
        def said(what, *given, **more):
            with open(os.environ["CALLS"], "a") as file:
                file.write(json.dumps([what, given, more]) + "\\n")
        def init(**more): said("init", **more)
        def log(values, step): said("log", values, step=step)
        def finish(): said("finish")
    """,
    "mlflow": """
        import json, os
        from types import SimpleNamespace
        def said(what, *given, **more):
            with open(os.environ["CALLS"], "a") as file:
                file.write(json.dumps([what, given, more]) + "\\n")
        def set_experiment(name): said("experiment", name)
        def search_runs(**more):
            known = os.environ.get("KNOWN")
            return [SimpleNamespace(info=SimpleNamespace(run_id=known))] if known else []
        def start_run(**more): said("start", **more)
        def log_params(values): said("params", values)
        def log_metrics(values, step):
            if os.environ.get("BROKEN"): raise ConnectionError("no route to host")
            if os.environ.get("SILENT"):
                import time; time.sleep(600)
            said("log", values, step=step)
        def end_run(): said("finish")
    """,
}
RECIPE = """
    import sys, time
    from training.recipes.run_dir import run
    def main(opened):
        for step in (1, 2, 3):
            opened.log_metrics(step, {"loss": 1 / step, "held_out/accuracy": 0.5})
        if "wait" in opened.config: time.sleep(600)
        return {}
    run("stub", main)
"""


def start(folder: Path, tracker: str, *, package: bool = True, wait: bool = False, **environment: str) -> Any:
    """A recipe that logs three steps, started as a worker starts one."""
    folder.mkdir()
    about = {
        "to": tracker,
        "project": "tea",
        "run": "round-1-dpo",
        "id": "abc",
        "folder": str(folder / "kept"),
    }
    config = {
        "method": "stub",
        "options": {"beta": 0.1},
        "tracker": about,
        **({"wait": True} if wait else {}),
    }
    (folder / "config.json").write_text(json.dumps(config))
    if package:
        (folder / f"{tracker}.py").write_text(textwrap.dedent(STUBS[tracker]))
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
        "CALLS": str(folder / "calls"),
        "MLFLOW_TRACKING_URI": "http://tracker.example",
        **environment,
    }
    with (folder / "log.txt").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(RECIPE), str(folder)],
            env=environment,
            stdout=log,
            stderr=log,
        )


def calls_of(folder: Path) -> list[list[Any]]:
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


LOGGED = [["log", [{"loss": 1 / step, "held_out/accuracy": 0.5}], {"step": step}] for step in (1, 2, 3)]


def test_trackio_is_told_everything_in_a_run_that_can_be_gone_on_with(tmp_path):
    assert start(tmp_path / "run", "trackio").wait(30) == 0
    first, *logged, last = calls_of(tmp_path / "run")
    assert first[0] == "init" and first[2]["resume"] == "allow" and first[2]["config"] == {"beta": 0.1}
    assert (first[2]["project"], first[2]["name"]) == ("tea", "round-1-dpo")
    assert logged == LOGGED
    assert last[0] == "finish"


@pytest.mark.parametrize("known", ["", "r1"])
def test_mlflow_is_told_everything_and_a_resumed_attempt_goes_on_in_the_same_run(tmp_path, known):
    assert start(tmp_path / "run", "mlflow", KNOWN=known).wait(30) == 0
    calls = calls_of(tmp_path / "run")
    begun = [call for call in calls if call[0] in ("start", "params")]
    if known:
        assert begun == [["start", [], {"run_id": "r1"}]]
    else:
        assert begun[0][2] == {"run_name": "round-1-dpo", "tags": {"rankloop_run": "abc"}}
        assert begun[1] == ["params", [{"beta": "0.1"}], {}]
    assert [call for call in calls if call[0] == "log"] == LOGGED


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"package": False}, "No module named 'mlflow'"),
        ({"BROKEN": "1"}, "ConnectionError: no route to host"),
        ({"SILENT": "1"}, ""),
    ],
)
def test_whatever_is_wrong_with_a_tracker_the_run_succeeds_and_the_log_tells(tmp_path, environment, told):
    assert start(tmp_path / "run", "mlflow", **environment).wait(40) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["ok"]
    assert told in (tmp_path / "run" / "log.txt").read_text()


def test_mlflow_without_an_address_says_what_to_set(tmp_path):
    code = "import os; os.environ.pop('MLFLOW_TRACKING_URI', None); from training.recipes import tracker; "
    (tmp_path / "mlflow.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", code + "tracker.open_mlflow({}, {})"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "set MLFLOW_TRACKING_URI" in done.stderr


def test_a_killed_recipe_leaves_no_tracker_behind_even_when_the_server_is_silent(tmp_path):
    process = start(tmp_path / "run", "mlflow", wait=True, SILENT="1")
    end = time.monotonic() + 30
    while not (children := children_of(process.pid)) or not (tmp_path / "run" / "calls").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    end = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < end, "the tracker outlived the recipe"
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_without_a_tracker_none_is_started(tmp_path):
    others = children_of(os.getpid())  # the database of these tests
    (tmp_path / "config.json").write_text(json.dumps({"method": "stub", "options": {}, "tracker": None}))
    opened = open_run(tmp_path, "stub")
    opened.log_metrics(1, {"loss": 1.0})
    opened.close()
    assert children_of(os.getpid()) == others
