"""Run folders for tests, and two ways to run them: in this process, and as the supervisor does."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from training.recipes.options import METHODS
from training.recipes.run_dir import Interrupted, RunDir, find_damage, open_run

ROOT = Path(__file__).resolve().parents[2]
WORDS = [
    "time",
    "light",
    "water",
    "stone",
    "river",
    "bird",
    "house",
    "wind",
    "road",
    "tree",
    "cloud",
    "rain",
    "book",
    "song",
]
TRAINING_OPTIONS = {"steps": 6, "batch_size": 12, "save_steps": 2, "learning_rate": 0.01, "warmup_steps": 0}


def some_pairs(rankings: int, seed: int) -> list[dict[str, Any]]:
    """All six pairs of each of some rankings of four completions; the shorter a completion, the better."""
    rng = random.Random(seed)
    pairs = []
    for number in range(rankings):
        prompt = [{"role": "user", "content": f"Say something about {rng.choice(WORDS)} {number}."}]
        texts = [" ".join(rng.choices(WORDS, k=count)) for count in (2, 4, 6, 8)]
        for better in range(4):
            for worse in range(better + 1, 4):
                pairs.append(
                    {
                        "prompt": prompt,
                        "chosen": [{"role": "assistant", "content": texts[better]}],
                        "rejected": [{"role": "assistant", "content": texts[worse]}],
                        "ranking": f"ranking {seed}-{number}",
                        "weight": 1.0,
                        "prompt_id": f"prompt {seed}-{number}",
                    }
                )
    return pairs


def some_outcomes(rankings: int, seed: int) -> list[dict[str, Any]]:
    """The four completions of each of those rankings, the two shorter ones called good."""
    pairs = some_pairs(rankings, seed)
    outcomes = []
    for start in range(0, len(pairs), 6):
        best = pairs[start]
        about = {name: best[name] for name in ("prompt", "ranking", "weight", "prompt_id")}
        completions = [best["chosen"], *(pair["rejected"] for pair in pairs[start : start + 3])]
        outcomes += [
            {**about, "completion": completion, "label": place < 2}
            for place, completion in enumerate(completions)
        ]
    return outcomes


def some_answers(rankings: int, seed: int) -> list[dict[str, Any]]:
    """Two written answers to each prompt of those rankings: what was called good."""
    return [outcome for outcome in some_outcomes(rankings, seed) if outcome.pop("label")]


ROWS = {"pairs": some_pairs, "outcomes": some_outcomes, "demonstrations": some_answers}


def make_training_run(folder: Path, method: str, base: Path, **changes: Any) -> Path:
    """A RUN_DIR for a LoRA recipe on frozen data. `changes` go into config.json, options into the usual ones."""
    folder.mkdir(parents=True)
    some_rows = ROWS[METHODS[method].reads] if method in METHODS else some_pairs
    write_pairs(folder / "train.jsonl", some_rows(rankings=8, seed=1))
    write_pairs(folder / "held_out.jsonl", some_rows(rankings=4, seed=2))
    config = {
        "method": method,
        "base": str(base),
        "parent": None,
        "seed": 7,
        "threads": 1,
        "data": {"train": "train.jsonl", "held_out": "held_out.jsonl"},
    } | changes
    config["options"] = TRAINING_OPTIONS | changes.get("options", {})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def make_rollout_run(folder: Path, method: str, base: Path, **changes: Any) -> Path:
    """A RUN_DIR for a recipe that samples: 16 prompts to learn from, 4 held out. `changes` go into config.json."""
    folder.mkdir(parents=True)
    for file, count in (("train", 16), ("held_out", 4)):
        prompts = [
            {"prompt": [{"role": "user", "content": f"Say {word}."}], "prompt_id": f"{file} {number}"}
            for number, word in enumerate((WORDS * 2)[:count])
        ]
        write_pairs(folder / f"{file}.jsonl", prompts)
    config = {
        "method": method,
        "base": str(base),
        "parent": None,
        "reward_model": None,
        "seed": 7,
        "threads": 1,
        "data": {"train": "train.jsonl", "held_out": "held_out.jsonl"},
    } | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_pairs(path: Path, pairs: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))


def run_here(folder: Path) -> dict[str, Any]:
    """Run a recipe in this process, which saves the seconds its imports take; returns its metrics."""
    method = json.loads((folder / "config.json").read_text())["method"]
    return import_module(f"training.recipes.{method}").main(open_run(folder, method))


def start(folder: Path, **popen: Any) -> subprocess.Popen:
    """Start a recipe as the supervisor does, its output in log.txt."""
    method = json.loads((folder / "config.json").read_text())["method"]
    with (folder / "log.txt").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", f"training.recipes.{method}", str(folder)],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            **popen,
        )


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights_of(folder: Path) -> bytes:
    return (folder / "output" / "adapter_model.safetensors").read_bytes()


def checkpoints_of(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    found = [f for f in folder.glob("checkpoints/step-*") if find_damage(f) is None]
    return sorted(found, key=lambda f: int(f.name[5:]))


def wait_for_checkpoint(folder: Path, process: subprocess.Popen) -> None:
    while not checkpoints_of(folder):
        assert process.poll() is None, (folder / "log.txt").read_text()
        time.sleep(0.005)


def killed_and_resumed(make: Callable[[str], Path]) -> tuple[Path, dict[str, Any]]:
    """(RUN_DIR, metrics) of a run that went on from where another was killed, at any moment after a checkpoint.

    `make` makes equal RUN_DIRs of the names it is given.
    """
    for attempt in range(5):  # on a machine that stalls, one may finish before it is killed
        killed = make(f"killed-{attempt}")
        process = start(killed)
        wait_for_checkpoint(killed, process)
        time.sleep(random.uniform(0, 0.2))
        process.kill()
        if process.wait() == -signal.SIGKILL and not (killed / "output").exists():
            break
    else:
        pytest.fail("every run finished before it could be killed")
    resumed = make("resumed")
    latest = checkpoints_of(killed)[-1]
    shutil.copytree(latest, resumed / "checkpoints" / latest.name)
    metrics = run_here(resumed)
    assert metrics["resumed_from"] == int(latest.name[5:])
    return resumed, metrics


def stop_in_evaluation(folder: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a recipe in this process until it evaluates after that step, where SIGTERM arrives."""
    training_loop = import_module("training.recipes.training_loop")
    evaluate_held_out = training_loop.evaluate_held_out

    def interrupted(
        run: RunDir, step: int, steps: int, evaluate: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        def evaluate_or_stop() -> dict[str, Any]:
            if step == after:
                signal.signal(signal.SIGTERM, run.interrupt)
                os.kill(os.getpid(), signal.SIGTERM)
            return evaluate()

        return evaluate_held_out(run, step, steps, evaluate_or_stop)

    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(training_loop, "evaluate_held_out", interrupted)
        try:
            run_here(folder)
        finally:
            signal.signal(signal.SIGTERM, handler)


def steps_evaluated(folder: Path, figure: str) -> list[int]:
    return [line["step"] for line in metrics_of(folder) if line["name"] == f"held_out/{figure}"]
