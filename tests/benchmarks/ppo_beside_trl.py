"""PPO by our recipe beside TRL 1.12's experimental PPOTrainer: the `ppo` of `bench train`.

Both learn from the same reward model and prompts, at equal batch, lengths, passes and rates, each in a process of its
own, in turns. An update is one optimiser step of policy and value model on a mini-batch; its CPU-seconds include
sampling, rewarding and everything else a step needs. Both policies then answer the same prompts, which neither learnt
from, by the same seeds, and the reward model scores them in one way: TRL's own figures come from other strings, without
what the chat template puts after an answer. TRL removed its trainer in 1.13, so that version is installed apart, beside
the packages of this checkout, and only the baseline sees it.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.bench_generate import ROOT
from tests.benchmarks.rehearsed import measured, starter_prompts
from training.recipes.held_out import interval_by_cluster

TRL = "trl==1.12.0"
LEARNT_FROM = 64  # starter prompts; those after them are answered to see what was learnt
WANTED = 1.5  # times as many updates a second
# What TRL's trainer does not have is turned off, or set to what it does.
OPTIONS = {
    "epochs": 2,
    "mini_batches": 1,
    "warmup_steps": 0,
    "value_warmup_steps": 0,
    "learning_rate": 1e-4,
    "value_learning_rate": 1e-4,
    "kl_target": 0.0,
    "kl_stop": 10.0,
    "kl_ceiling": 10_000.0,
    "missing_eos_penalty": 1.0,
}


def trl_folder(home: Path) -> Path:
    """Where the old TRL lies, installed there at the first call: pure Python, 2 MB, without what it depends on."""
    folder = home / "bench" / TRL
    if not (folder / "trl").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", str(folder), TRL], check=True)
    return folder


def compare(
    model: Path, home: Path, turns: int, *, quick: bool, environ: Callable[[], dict[str, str]]
) -> dict[str, Any]:
    """Over `turns` pairs of runs: {"updates_per_second_ratio", "reward", "baseline_reward", ...}."""
    steps, batch, tokens = (1, 8, 16) if quick else (3, 16, 48)
    options = OPTIONS | {
        "steps": steps,
        "save_steps": steps,
        "batch_size": batch,
        "micro_batch_size": batch,
        "max_new_tokens": tokens,
    }
    old = trl_folder(home)
    ours: list[dict[str, Any]] = []
    plain: list[dict[str, Any]] = []
    asked = starter_prompts()[LEARNT_FROM:][: 4 if quick else 128]
    with tempfile.TemporaryDirectory() as work:
        judge = reward_model(Path(work) / "judge", model, environ)
        for turn in range(turns):
            folders = [make_run(Path(work) / f"{side}-{turn}", model, judge, options, turn) for side in "ab"]
            for side in (0, 1) if turn % 2 else (1, 0):
                if side == 0:
                    ours.append(by_recipe(folders[0], environ))
                else:
                    plain.append(by_hand(folders[1], old, environ))
            for folder, runs in zip(folders, (ours, plain), strict=True):
                told = measured(model, folder / "output", judge, asked, max_new_tokens=tokens, seed=turn)
                runs[-1] |= {name: told[name] for name in ("reward", "rewards")}
            print(
                f"{'ppo':>16} {turn:>4} {ours[-1]['seconds']:>8.1f} {plain[-1]['seconds']:>8.1f} "
                f"{ours[-1]['seconds'] / plain[-1]['seconds']:>6.3f}   reward {ours[-1]['reward']:.3f}, "
                f"TRL's {plain[-1]['reward']:.3f}",
                flush=True,
            )
    ratios = [
        (a["updates"] / a["seconds"]) / (b["updates"] / b["seconds"])
        for a, b in zip(ours, plain, strict=True)
    ]

    differences = np.array([run["rewards"] for run in ours]) - [run["rewards"] for run in plain]
    of_prompts = differences.mean(axis=0).tolist()  # over the turns

    def median(runs: list[dict[str, Any]], name: str) -> float:
        return statistics.median(run[name] for run in runs)

    return {
        "updates_per_second_ratio": statistics.median(ratios),
        "ratios": ratios,
        "seconds": median(ours, "seconds"),
        "baseline_seconds": median(plain, "seconds"),
        "reward": statistics.mean(run["reward"] for run in ours),
        "baseline_reward": statistics.mean(run["reward"] for run in plain),
        "rewards": [run["reward"] for run in ours],
        "baseline_rewards": [run["reward"] for run in plain],
        "reward_difference": statistics.mean(of_prompts),
        "reward_difference_interval": interval_by_cluster(of_prompts, [str(n) for n in range(len(asked))]),
        "peak_memory_mb": median(ours, "memory"),
        "baseline_peak_memory_mb": median(plain, "memory"),
    }


def make_run(folder: Path, model: Path, judge: Path, options: dict[str, Any], seed: int) -> Path:
    prompts = [
        {"prompt": messages, "prompt_id": str(number)}
        for number, messages in enumerate(starter_prompts()[:LEARNT_FROM])
    ]
    folder.mkdir(parents=True)
    for split, some in (("train", prompts[1:]), ("held_out", prompts[:1])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    config = {
        "method": "ppo",
        "base": str(model),
        "parent": None,
        "reward_model": str(judge),
        "seed": seed,
        "data": {"train": "train.jsonl", "held_out": "held_out.jsonl"},
        "options": options,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def reward_model(folder: Path, model: Path, environ: Callable[[], dict[str, str]]) -> Path:
    """A reward model after two steps on made-up pairs: what it thinks of a text does not matter here."""
    folder.mkdir(parents=True)
    pairs = [
        {
            "prompt": messages,
            "chosen": [{"role": "assistant", "content": "A short answer."}],
            "rejected": [
                {"role": "assistant", "content": f"An answer that goes on and on and on, {number} times."}
            ],
        }
        for number, messages in enumerate(starter_prompts()[:16])
    ]
    for split in ("train", "held_out"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    config = {
        "method": "reward",
        "base": str(model),
        "data": {"train": "train.jsonl", "held_out": "held_out.jsonl"},
        "options": {"steps": 2, "batch_size": 8, "warmup_steps": 0},
    }
    (folder / "config.json").write_text(json.dumps(config))
    run([sys.executable, "-m", "training.recipes.reward", str(folder)], environ)
    return folder / "output"


def by_recipe(folder: Path, environ: Callable[[], dict[str, str]]) -> dict[str, Any]:
    run([sys.executable, "-m", "training.recipes.ppo", str(folder)], environ)
    result = json.loads((folder / "result.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "seconds": result["cpu_seconds_loop"],
        "updates": sum(line["value"] for line in lines if line["name"] == "updates"),
        "memory": result["peak_memory_mb"],
    }


def by_hand(folder: Path, old: Path, environ: Callable[[], dict[str, str]]) -> dict[str, Any]:
    told = run([sys.executable, "-m", "tests.benchmarks.by_hand_ppo", str(folder), str(old)], environ)
    found = json.loads(told.strip().splitlines()[-1])
    return {
        "seconds": found["cpu_seconds_loop"],
        "updates": found["updates"],
        "memory": found["peak_memory_mb"],
    }


def run(command: list[str], environ: Callable[[], dict[str, str]]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environ())
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return done.stdout
