"""Benchmarks in their quick form: they run to their end and write the figures that others read. How good those are is
not asked here: so few steps of so small models teach nothing.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.bench_learn import judged_by
from tests.recipes.runs import ROOT, make_training_run, run_here, some_pairs, write_pairs

pytestmark = pytest.mark.slow


def figures_of(name: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """What `bench NAME --quick` writes with --json."""
    file = folder / f"{name}.json"
    command = [
        sys.executable,
        "-m",
        f"tests.benchmarks.bench_{name}",
        "--quick",
        "--json",
        str(file),
        *arguments,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return json.loads(file.read_text())


def test_learn(tiny_model, tmp_path):
    found = figures_of("learn", tmp_path, "--model", str(tiny_model))
    assert {"accuracy", "interval", "baseline_accuracy"} <= found["reward_model"].keys()
    low, high = found["reward_model"]["difference_interval"]
    assert low <= found["reward_model"]["difference"] <= high
    gained = found["reward_model"]["accuracy"] - found["reward_model"]["baseline_accuracy"]
    assert found["reward_model"]["difference"] == pytest.approx(gained)
    for name in ("dpo", "ppo", "rloo", "ppo_checked", "rloo_checked"):
        assert {"win_rate", "interval", "kl", "mean_length"} <= found["policies"][name].keys()
    assert {"seed", "step", "kl", "reward", "utility"} == found["curve"][0].keys()
    assert [point["step"] for point in found["curve"]] == [0, 1, 2]


def test_learn_compares_on_every_held_out_pair_also_on_what_the_recipe_leaves_out(tiny_model, tmp_path):
    run = make_training_run(tmp_path / "run", "reward", tiny_model, options={"steps": 1})
    pairs = some_pairs(rankings=4, seed=2)
    pairs[3]["chosen"] = [{"role": "assistant", "content": ""}]
    write_pairs(run / "held_out.jsonl", pairs)
    assert run_here(run)["pairs"] == len(pairs) - 1
    margins, prompts = judged_by(run)
    assert len(margins) == len(pairs)
    assert prompts == [pair["prompt_id"] for pair in pairs]


def test_train(tiny_model, tmp_path):
    found = figures_of(
        "train", tmp_path, "--model", str(tiny_model), "--turns", "1", "--only", "dpo", "rloo"
    )["methods"]
    assert min(found["dpo"]["ratio"], found["rloo"]["ratio"]) > 0
    assert found["dpo"]["float32_last_loss"] == pytest.approx(
        found["dpo"]["baseline_float32_last_loss"], abs=1e-3
    )


def test_faults(tmp_path):
    found = figures_of("faults", tmp_path, "--method", "sft")
    assert found.pop("kills") > 0
    assert {found[name] for name in ("lost", "doubled", "stale_writes", "unequal_weights", "orphans")} == {0}


def test_memory(tmp_path):
    found = figures_of("memory", tmp_path, "--methods", "reward")
    assert found["runs"].keys() == {"14M reward short", "62M reward short"}
