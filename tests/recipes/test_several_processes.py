"""One run trained by two processes over gloo, as `accelerate launch` starts them: what one process makes of it."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.environment import ROOT
from tests.recipes.runs import (
    checkpoints_of,
    make_rollout_run,
    make_training_run,
    metrics_of,
    result_of,
    run_here,
    weights_of,
)
from training.recipes import training_loop
from training.recipes.loading import compute_dtype
from training.recipes.model_folders import check_model
from training.recipes.options import METHODS, parse_options
from training.recipes.processes import divided
from training.recipes.run_dir import RecipeError
from training.supervisor import Recipe

pytestmark = pytest.mark.slow
SETTINGS = ROOT / "deploy" / "accelerate" / "two-cpu-processes.yaml"
# In half of a step each: one process computes a step in two parts, two processes one part each.
TRAINING = {"steps": 3, "batch_size": 12, "micro_batch_size": 6, "save_steps": 1, "learning_rate": 1e-3}
SAMPLING = {
    "steps": 3,
    "batch_size": 8,
    "micro_batch_size": 4,
    "max_new_tokens": 8,
    "save_steps": 1,
    "warmup_steps": 0,
    "reward": "length",
    "target_words": 5,
}
OF_METHOD: dict[str, dict[str, Any]] = {
    "dpo": {"judged_tokens": 8},
    # So that the policy moves towards every completion, and the zero point does not stay at 0.
    "kto": {"desirable_weight": 3.0, "undesirable_weight": 0.3, "beta": 0.5, "learning_rate": 0.01},
    "rloo": {"group_size": 2},
    "grpo": {"group_size": 2, "epochs": 2},
    "ppo": {"value_warmup_steps": 0},
}
LOSSES = ("loss", "policy_loss", "value_loss", "reward")
GRADIENTS = ("grad_norm", "value_grad_norm")
# Sums and scores of whole completions: bfloat16 rounds more of them away.
MEASURED = ("kl", "held_out/kl", "held_out/reward")


def make(folder: Path, method: str, base: Path, **changes: Any) -> Path:
    options = OF_METHOD.get(method, {})
    if METHODS[method].samples:
        return make_rollout_run(folder, method, base, options=SAMPLING | options, **changes)
    return make_training_run(folder, method, base, options=TRAINING | options, **changes)


def measured_by(work: Path, method: str) -> dict[str, str]:
    """DPO is measured by the reward model, which is trained before it."""
    return {"reward_model": str(work / "reward" / "output")} if method == "dpo" else {}


def losses(folder: Path, names: tuple[str, ...] = LOSSES) -> dict[tuple[int, str], float]:
    return {
        (line["step"], line["name"]): line["value"] for line in metrics_of(folder) if line["name"] in names
    }


@pytest.fixture(scope="module")
def by_two(tiny_model, tmp_path_factory) -> Path:
    """A folder with a finished run of each method, named after it, by two processes."""
    work = tmp_path_factory.mktemp("by_two")
    folders = [
        str(make(work / method, method, tiny_model, **measured_by(work, method))) for method in METHODS
    ]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(SETTINGS)]
    done = subprocess.run(
        [*launch, "-m", "tests.recipes.one_after_another", *folders],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return work


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_have_the_losses_of_one(by_two, method, tiny_model, tmp_path):
    run_here(make(tmp_path / method, method, tiny_model, **measured_by(by_two, method)))
    alone, together = losses(tmp_path / method), losses(by_two / method)
    assert len(together) >= 3
    assert together == pytest.approx(alone, abs=1e-4)
    alone, together = (losses(folder / method, GRADIENTS) for folder in (tmp_path, by_two))
    assert len(together) >= 3
    # Either adds up other rows at once: equal to 2e-7 in float32, and 0.1 % of a gradient in bfloat16, seen with GRPO.
    assert together == pytest.approx(alone, rel=torch.finfo(compute_dtype()).eps, abs=1e-4)
    alone, together = (losses(folder / method, MEASURED) for folder in (tmp_path, by_two))
    assert together == pytest.approx(alone, abs=1e-3)
    if method == "kto":
        assert together[3, "kl"] > 0.5


@pytest.mark.parametrize("method", METHODS)
def test_the_first_writes_for_both_and_both_know_the_same(by_two, method):
    first, second = (json.loads((by_two / method / f"told-{rank}.json").read_text()) for rank in (0, 1))
    assert first["process"] != second["process"]
    assert first["metrics"] == second["metrics"]
    lines = [(line["step"], line["name"]) for line in metrics_of(by_two / method)]
    assert len(lines) == len(set(lines))
    assert [folder.name for folder in checkpoints_of(by_two / method)] == ["step-2", "step-3"]


def launched(folder: Path) -> Recipe:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"accelerate": str(SETTINGS)}))
    recipe = Recipe(config["method"], folder)
    recipe.start()
    return recipe


@pytest.mark.parametrize("method", ("dpo", "rloo", "ppo"))
def test_stopped_and_resumed_it_has_the_weights_of_a_straight_run(by_two, method, tiny_model, tmp_path):
    stopped = make(tmp_path / "stopped", method, tiny_model)
    recipe = launched(stopped)
    while not checkpoints_of(stopped):
        assert recipe.poll() is None, (stopped / "log.txt").read_text()
        time.sleep(0.005)
    recipe.interrupt()  # both save the same step, wherever each was when it heard of it
    assert recipe.wait(120) is not None
    recipe.close()
    assert recipe.result()["kind"] == "interrupted", (stopped / "log.txt").read_text()

    resumed = make(tmp_path / "resumed", method, tiny_model)
    shutil.copytree(stopped / "checkpoints", resumed / "checkpoints")
    recipe = launched(resumed)
    assert recipe.wait(120) == 0, (resumed / "log.txt").read_text()
    recipe.close()
    assert result_of(resumed)["metrics"]["resumed_from"] in (1, 2)
    assert weights_of(resumed) == weights_of(by_two / method)


@pytest.mark.parametrize("method", ("reward", "dpo"))
def test_all_weights_are_trained_as_by_one_process_and_saved_whole_by_the_first(method, tiny_model, tmp_path):
    options = {"options": TRAINING | {"weights": "full"}}
    alone, together = (make_training_run(tmp_path / name, method, tiny_model, **options) for name in "ab")
    run_here(alone)
    recipe = launched(together)
    assert recipe.wait(120) == 0, (together / "log.txt").read_text()
    recipe.close()
    wanted, found = (losses(folder, LOSSES + GRADIENTS) for folder in (alone, together))
    assert found == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    names = {file.name for file in (alone / "output").iterdir()}
    assert {file.name for file in (together / "output").iterdir()} == names
    check_model(together / "output")


def test_what_stops_another_process_than_the_first_is_told(tmp_path):
    def fails(file: str, kind: str, error: str) -> None:
        (tmp_path / file).write_text(json.dumps({"ok": False, "kind": kind, "error": error}))

    fails("result.json", "bug", "Connection closed by peer")
    fails("result-1.json", "memory", "Out of memory.")
    assert Recipe("dpo", tmp_path).result()["error"] == "Out of memory."
    fails("result.json", "recipe", "Too few pairs.")
    assert Recipe("dpo", tmp_path).result()["error"] == "Too few pairs."


def test_a_step_that_can_not_be_shared_out_is_refused(monkeypatch):
    monkeypatch.setattr("training.recipes.processes.COUNT", 8)
    options = parse_options("dpo", {"batch_size": 24, "micro_batch_size": 2})
    assert training_loop.rows_together(options) == (1, 3)
    with pytest.raises(RecipeError, match=r"batch_size is 12, which 8 processes .* Set it to 8"):
        training_loop.rows_together(parse_options("dpo", {"batch_size": 12}))


def test_parts_are_divided_and_come_back_in_their_order(monkeypatch):
    """What three processes would do, one after the other, with the exchange between them played back."""
    shares: list[list[str]] = []
    monkeypatch.setattr("training.recipes.processes.COUNT", 3)
    for rank in range(3):
        monkeypatch.setattr("training.recipes.processes.RANK", rank)
        monkeypatch.setattr(
            "training.recipes.processes.everyones", lambda mine: shares.append(mine) or [[]] * 3
        )
        with pytest.raises(IndexError):
            divided("abcd", lambda number, part: f"{number}{part}")
    assert shares == [["0a", "3d"], ["1b"], ["2c"]]
    monkeypatch.setattr("training.recipes.processes.everyones", lambda mine: shares)
    assert divided("abcd", lambda number, part: "") == ["0a", "1b", "2c", "3d"]
