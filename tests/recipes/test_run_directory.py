"""RUN_DIR without any model: manifests, exit codes, the lifeline. The recipes here are five lines of Python."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.recipes.runs import ROOT, result_of
from training.recipes.run_dir import RunDir, Stopwatch, explain, find_damage, is_out_of_memory, write_manifest


def make_run(folder: Path) -> Path:
    (folder / "config.json").write_text('{"method": "toy"}')
    return folder


def start_toy(folder: Path, body: str, **popen) -> subprocess.Popen:
    code = f"from training.recipes import run_dir\nimport time\ndef main(run):\n {body}\nrun_dir.run('toy', main)"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, stderr=subprocess.PIPE, text=True, **popen
    )


def make_checkpoint(folder: Path) -> Path:
    (folder / "inner").mkdir(parents=True)
    (folder / "weights").write_bytes(b"weights" * 1000)
    (folder / "inner" / "state.json").write_text("{}")
    write_manifest(folder, {"step": 3})
    return folder


def test_a_folder_as_it_was_written_has_no_damage(tmp_path):
    assert find_damage(make_checkpoint(tmp_path / "step-3")) is None


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda f: (f / "weights").write_bytes(b"Weights" + b"weights" * 999), "weights has changed"),
        (lambda f: os.truncate(f / "weights", 100), "weights has changed"),
        (lambda f: (f / "inner" / "state.json").unlink(), "inner/state.json"),
        (lambda f: (f / "stranger.pkl").write_text("x"), "stranger.pkl"),
        (lambda f: (f / "inner" / "state.json").replace(f / "weights"), "inner/state.json"),
        (
            lambda f: (f / "weights").write_bytes((f / "inner" / "state.json").read_bytes()),
            "weights has changed",
        ),
        (lambda f: (f / "manifest.json").unlink(), "never finished"),
        (lambda f: os.truncate(f / "manifest.json", 40), "torn"),
    ],
    ids=[
        "flipped bit",
        "truncated file",
        "missing file",
        "added file",
        "moved file",
        "swapped file",
        "no manifest",
        "torn manifest",
    ],
)
def test_damage_to_a_checkpoint_is_found_and_named(tmp_path, harm, reason):
    folder = make_checkpoint(tmp_path / "step-3")
    harm(folder)
    assert reason in find_damage(folder)


def test_the_newest_checkpoint_that_holds_is_resumed_from_and_only_two_are_kept(tmp_path, capsys):
    run = RunDir(make_run(tmp_path), {})
    for step in (2, 4, 10):
        unpublished = tmp_path / "unpublished"
        unpublished.mkdir()
        (unpublished / "weights").write_text(f"after step {step}")
        run.publish_checkpoint(step, unpublished)
    assert sorted(f.name for f in (tmp_path / "checkpoints").iterdir()) == ["step-10", "step-4"]
    assert run.latest_checkpoint()[0] == 10
    os.truncate(tmp_path / "checkpoints" / "step-10" / "weights", 3)
    assert run.latest_checkpoint()[0] == 4
    assert "ignoring step-10" in capsys.readouterr().err


def test_a_checkpoint_under_the_name_of_another_is_ignored(tmp_path, capsys):
    run = RunDir(make_run(tmp_path), {})
    for step in (3, 4):
        make_checkpoint(tmp_path / "checkpoints" / f"step-{step}")  # both are of step 3
    assert run.latest_checkpoint()[0] == 3
    assert "ignoring step-4: its manifest is of step 3, not 4" in capsys.readouterr().err


def test_a_finished_recipe_exits_0_with_its_metrics(tmp_path):
    toy = start_toy(
        make_run(tmp_path), "run.log_metrics(1, {'loss': 0.5, 'bad': float('nan')}); return {'a': 1}"
    )
    assert toy.wait() == 0
    result = result_of(tmp_path)
    assert (result["ok"], result["metrics"]) == (True, {"a": 1})
    assert {"start_up", "loop", "saving", "hashing"} <= set(result["seconds"])
    assert [json.loads(line)["name"] for line in (tmp_path / "metrics.jsonl").open()] == ["loss"]


def test_a_mistake_of_the_researcher_exits_2_and_says_what_to_do(tmp_path):
    toy = start_toy(make_run(tmp_path), "raise run_dir.RecipeError('Collect more judgments.')")
    assert toy.wait() == 2
    result = result_of(tmp_path)
    assert (result["ok"], result["kind"], result["error"]) == (False, "recipe", "Collect more judgments.")
    assert "Traceback" not in toy.stderr.read()


def test_a_bug_exits_1_with_its_traceback_in_the_log(tmp_path):
    toy = start_toy(make_run(tmp_path), "return 1 / 0")
    assert toy.wait() == 1
    assert result_of(tmp_path)["kind"] == "bug"
    assert "ZeroDivisionError" in toy.stderr.read()


def test_a_lack_of_memory_exits_2_and_is_told_apart(tmp_path):
    toy = start_toy(make_run(tmp_path), "return {'a': bytearray(2**60)}")
    assert toy.wait() == 2
    result = result_of(tmp_path)
    assert (result["ok"], result["kind"]) == (False, "memory")
    assert "Lower micro_batch_size" in result["error"]


def test_a_config_for_another_method_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"method": "dpo"}')
    assert start_toy(tmp_path, "return {}").wait() == 2
    assert '"method": "toy"' in result_of(tmp_path)["error"]


def test_sigterm_is_noticed_and_exits_143(tmp_path):
    body = "run.report_progress(0, 1, 'training')\n while True: time.sleep(0.01); run.stop_if_interrupted()"
    toy = start_toy(make_run(tmp_path), body)
    while not (tmp_path / "progress.json").exists():
        time.sleep(0.01)
    toy.send_signal(signal.SIGTERM)
    assert toy.wait() == 143
    assert result_of(tmp_path)["kind"] == "interrupted"


def test_sigterm_ends_work_that_may_stop_at_once(tmp_path):
    body = (
        "run.report_progress(0, 1, 'evaluating')\n with run.stopping_at_once(): time.sleep(600)\n return {}"
    )
    toy = start_toy(make_run(tmp_path), body)
    while not (tmp_path / "progress.json").exists():
        time.sleep(0.01)
    toy.send_signal(signal.SIGTERM)
    assert toy.wait(timeout=60) == 143
    assert result_of(tmp_path)["kind"] == "interrupted"


def test_a_recipe_ends_when_its_lifeline_closes(tmp_path):
    read_end, write_end = os.pipe()
    body = "run.report_progress(0, 1, 'training')\n time.sleep(600)"
    lifeline = {"RANKLOOP_LIFELINE_FD": str(read_end)}
    toy = start_toy(make_run(tmp_path), body, pass_fds=[read_end], env=os.environ | lifeline)
    os.close(read_end)
    while not (tmp_path / "progress.json").exists():
        time.sleep(0.01)
    assert toy.poll() is None
    os.close(write_end)
    assert toy.wait(timeout=60) == 1
    assert not (tmp_path / "result.json").exists()


def test_a_full_disk_and_a_full_memory_are_the_researchers_to_mend_and_other_errors_are_not(tmp_path):
    full = RuntimeError("write failed")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert "disk" in explain(full, tmp_path)
    assert "micro_batch_size" in explain(MemoryError(), tmp_path)
    on_a_cpu = RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 4398046511104 bytes. Error code 12 (Cannot allocate memory)"
    )
    for lack in (on_a_cpu, RuntimeError("CUDA error: out of memory"), OSError(errno.ENOMEM, "no")):
        assert "micro_batch_size" in explain(lack, tmp_path)
        assert is_out_of_memory(lack)
    assert not is_out_of_memory(full)
    assert explain(OSError(errno.EIO, "broken"), tmp_path) is None


def test_the_stopwatch_charges_the_innermost_phase_only(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Stopwatch()
    before = clock.read()["start_up"]
    with clock.phase("loop"):
        now[0] += 5
        with clock.phase("saving"):
            now[0] += 2
        now[0] += 1
    now[0] += 4
    seconds = clock.read()
    assert (seconds["loop"], seconds["saving"]) == (6, 2)
    assert seconds["start_up"] == pytest.approx(before + 4)
