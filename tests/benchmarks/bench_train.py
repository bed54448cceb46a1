"""CPU-seconds of training by our recipes beside the same training by TRL alone.

    python -m tests.benchmarks.bench_train [--quick] [--json FILE] [--model FOLDER] [--turns N] [--only NAME ...]

Both train on the same rows in the same order with the same settings, each in a process of its own, in turns. What
counts is the CPU time of the training loop, which the load of the machine moves less than the wall clock; the recipe's
start-up, evaluation, hashing and saving are reported apart. Last losses of both stand beside the ratio, and once more
of a pair of runs in float32 (in_float32.py), where they must agree to 1e-3; not those of RLOO and GRPO, whose scripts
sample other completions (by_hand_online.py). No completion comes twice, so that a recipe can only save on how it
computes; `dpo_on_rankings` has all six pairs of rankings of four, as the platform makes them, where each completion is
computed once. PPO stands beside the trainer that TRL once had (ppo_beside_trl.py), since its script samples other
completions and has no equal losses.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import plain_trl
from tests.benchmarks import by_hand_online, ppo_beside_trl
from tests.benchmarks.bench_generate import ROOT, default_model

BATCH_SIZE = 12
IN_FLOAT32 = "tests.benchmarks.in_float32"
WORDS = ["time", "light", "water", "stone", "river", "bird", "house", "wind", "road", "tree", "cloud", "rain"]
WANTED = {"dpo": 0.67, "dpo_on_rankings": 0.67}  # ratio, at most
WANTED_OF_OTHERS = 1.03


@dataclass(frozen=True)
class Case:
    """What is compared: a method, on rankings of that many completions a prompt; 0 for one that samples its own."""

    method: str
    completions: int


CASES = {
    "sft": Case("sft", 1),
    "reward": Case("reward", 2),
    "dpo": Case("dpo", 2),
    "dpo_on_rankings": Case("dpo", 4),
    "kto": Case("kto", 1),
    "rloo": Case("rloo", 0),
    "grpo": Case("grpo", 0),
}


def make_run(folder: Path, model: Path, case: Case, *, steps: int, words: int) -> Path:
    """A RUN_DIR with enough rows for `steps`, of prompts and completions of so many words."""
    rng = random.Random(0)
    rows: list[dict[str, Any]] = []
    while len(rows) < steps * BATCH_SIZE:
        number = len(rows)
        about = {"prompt": [{"role": "user", "content": text(rng, words)}], "ranking": f"r{number}"}
        texts = [[{"role": "assistant", "content": text(rng, words)}] for _ in range(case.completions)]
        if case.completions == 0:
            rows.append({"prompt": about["prompt"], "prompt_id": str(number)})
        if case.completions == 1:
            label = {"label": number % 2 == 0} if case.method == "kto" else {}
            rows.append({**about, "completion": texts[0], **label})
        for better in range(case.completions):
            for worse in range(better + 1, case.completions):
                rows.append({**about, "chosen": texts[better], "rejected": texts[worse]})
    folder.mkdir(parents=True)
    for split, some in (("train", rows), ("held_out", rows[:1])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    config = {
        "method": case.method,
        "base": str(model),
        "seed": 0,
        "data": {"train": "train.jsonl", "held_out": "held_out.jsonl"},
        "options": {
            "steps": steps,
            "batch_size": BATCH_SIZE,
            "micro_batch_size": BATCH_SIZE,
            "save_steps": steps,
            "warmup_steps": 0,
        },
    }
    if case.completions == 0:
        sampled = {"group_size": 4, "max_new_tokens": words, "reward": "length", "target_words": words // 2}
        config["options"] |= sampled
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def by_hand(folder: Path, *before: str) -> dict[str, Any]:
    """{"seconds", "losses"} of the bare script, in a process of its own."""
    command = [sys.executable, "-m", *before, "tests.benchmarks.bench_train", "--by-hand", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=quiet_environment())
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def by_recipe(folder: Path, case: Case, *before: str) -> dict[str, Any]:
    """{"seconds", "losses", "apart"} of the recipe; `apart` is what it spent outside the loop, by the wall clock."""
    command = [sys.executable, "-m", *before, f"training.recipes.{case.method}", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=quiet_environment())
    if done.returncode:
        sys.exit(done.stderr)
    result = json.loads((folder / "result.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "seconds": result["cpu_seconds_loop"],
        "losses": [line["value"] for line in lines if line["name"] == "loss"],
        "apart": {phase: seconds for phase, seconds in result["seconds"].items() if phase != "loop"},
    }


def quiet_environment() -> dict[str, str]:
    return os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": tempfile.gettempdir() + "/rankloop-bench-cache",
    }


def run_both(
    model: Path, case: Case, sizes: dict[str, int], *before: str, plain_first: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the recipe and the bare script found on the same rows."""
    with tempfile.TemporaryDirectory() as work:
        recipe = make_run(Path(work) / "recipe", model, case, **sizes)
        bare = make_run(Path(work) / "by_hand", model, case, **sizes)
        if plain_first:
            plain = by_hand(bare, *before)
            return by_recipe(recipe, case, *before), plain
        ours = by_recipe(recipe, case, *before)
        return ours, by_hand(bare, *before)


def compare(name: str, model: Path, turns: int, **sizes: int) -> dict[str, Any]:
    """Median ratio over `turns` pairs of short runs, and what they learnt."""
    case = CASES[name]
    ours: list[dict[str, Any]] = []
    plain: list[dict[str, Any]] = []
    for turn in range(turns):
        for runs, found in zip(
            (ours, plain), run_both(model, case, sizes, plain_first=turn % 2 == 0), strict=True
        ):
            runs.append(found)
        seconds = ours[-1]["seconds"], plain[-1]["seconds"]
        losses = ours[-1]["losses"][-1], plain[-1]["losses"][-1]
        print(
            f"{name:>16} {turn:>4} {seconds[0]:>8.1f} {seconds[1]:>8.1f} {seconds[0] / seconds[1]:>6.3f}"
            f" {losses[0]:>10.4f} {losses[1]:>10.4f}",
            flush=True,
        )
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(ours, plain, strict=True)]
    exact = {}
    if case.completions:
        in_float32 = run_both(model, case, sizes, IN_FLOAT32)
        names = ("float32_last_loss", "baseline_float32_last_loss")
        exact = {name: found["losses"][-1] for name, found in zip(names, in_float32, strict=True)}
    return {
        "seconds": statistics.median(run["seconds"] for run in ours),
        "baseline_seconds": statistics.median(run["seconds"] for run in plain),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "first_loss": ours[-1]["losses"][0],
        "last_loss": ours[-1]["losses"][-1],
        "baseline_first_loss": plain[-1]["losses"][0],
        "baseline_last_loss": plain[-1]["losses"][-1],
        **exact,
        "apart_wall_seconds": {
            phase: statistics.median(run["apart"][phase] for run in ours) for phase in ours[0]["apart"]
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description="CPU-seconds of training by our recipes beside the same training by TRL alone."
    )
    parser.add_argument("--quick", action="store_true", help="short rows and one step a run")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--model", type=Path, default=default_model(), help="model folder (safetensors)")
    parser.add_argument("--turns", type=int, help="pairs of runs of each method (5, or 3 with --quick)")
    names = [*CASES, "ppo"]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="compare these alone")
    parser.add_argument("--by-hand", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.by_hand:
        method = json.loads((given.by_hand / "config.json").read_text())["method"]
        losses, seconds = (by_hand_online if method in ("rloo", "grpo") else plain_trl).train(given.by_hand)
        print(json.dumps({"seconds": seconds, "losses": losses}))
        return
    turns, steps, words = (3, 1, 16) if given.quick else (5, 3, 48)
    turns = given.turns or turns
    print(
        f"{'':>16} turn   recipe    plain  ratio  last loss  of plain   ({steps} steps of {BATCH_SIZE} rows)"
    )
    methods = {
        name: compare(name, given.model, turns, steps=steps, words=words)
        for name in given.only
        if name in CASES
    }
    ppo = None
    if "ppo" in given.only:
        home = Path(os.environ.get("RANKLOOP_HOME", ROOT / "var"))
        ppo = ppo_beside_trl.compare(given.model, home, turns, quick=given.quick, environ=quiet_environment)
    for name, figures in methods.items():
        apart = ", ".join(
            f"{phase} {seconds:.1f} s" for phase, seconds in figures["apart_wall_seconds"].items()
        )
        print(
            f"{name}: median ratio {figures['ratio']:.3f} (wanted: at most {WANTED.get(name, WANTED_OF_OTHERS)}); loss "
            f"{figures['first_loss']:.4f} to {figures['last_loss']:.4f}, plain {figures['baseline_first_loss']:.4f} to "
            f"{figures['baseline_last_loss']:.4f}; apart: {apart}"
        )
        if "float32_last_loss" in figures:
            last = figures["float32_last_loss"], figures["baseline_float32_last_loss"]
            print(
                f"{'':>{len(name)}}  in float32: last loss {last[0]:.5f}, plain {last[1]:.5f} (wanted: equal to 1e-3)"
            )
    if ppo is not None:
        low, high = ppo["reward_difference_interval"]
        print(
            f"ppo: {ppo['updates_per_second_ratio']:.2f} times TRL's updates per second (wanted: at least "
            f"{ppo_beside_trl.WANTED}); reward {ppo['reward']:.3f}, TRL's {ppo['baseline_reward']:.3f}, difference "
            f"{ppo['reward_difference']:.3f} [{low:.3f}, {high:.3f}]; "
            f"{ppo['peak_memory_mb']:.0f} MB, TRL's {ppo['baseline_peak_memory_mb']:.0f} MB"
        )
    if given.json:
        found: dict[str, Any] = {"methods": methods}
        if ppo is not None:
            found["ppo"] = ppo
            methods["ppo"] = {"ratio": 1 / ppo["updates_per_second_ratio"]}
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
