"""CPU-seconds of DPO through the recipe beside the same training by a bare TRL script.

    python -m tests.benchmarks.bench_train [--quick] [--json FILE] [--model FOLDER]

Both train on the same pairs with the same settings, each in a process of its own, in turns. What counts is the CPU
time of the training loop, which the load of the machine moves less than the wall clock; the recipe's start-up,
evaluation, hashing and saving are reported apart. Two kinds of data: `dpo` has no completion in two pairs, so the
recipe can only save on how it computes; `dpo_on_rankings` has all six pairs of rankings of four, as the platform
makes them, where each completion is computed once.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_generate import ROOT, default_model

BATCH_SIZE = 12
WORDS = ["time", "light", "water", "stone", "river", "bird", "house", "wind", "road", "tree", "cloud", "rain"]


def make_run(folder: Path, model: Path, *, completions: int, steps: int, words: int) -> Path:
    """A RUN_DIR with all pairs of rankings of that many completions, enough for `steps`."""
    rng = random.Random(0)
    pairs: list[dict[str, Any]] = []
    while len(pairs) < steps * BATCH_SIZE:
        prompt = [{"role": "user", "content": " ".join(rng.choices(WORDS, k=words))}]
        texts = [" ".join(rng.choices(WORDS, k=words)) for _ in range(completions)]
        for better in range(completions):
            for worse in range(better + 1, completions):
                chosen, rejected = ([{"role": "assistant", "content": texts[i]}] for i in (better, worse))
                ranking = f"r{len(pairs) // (completions * (completions - 1) // 2)}"
                pairs.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "ranking": ranking})
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (folder / "held_out.jsonl").write_text(json.dumps(pairs[0]) + "\n")
    config = {
        "method": "dpo",
        "base": str(model),
        "seed": 0,
        "data": {"train": "train.jsonl", "held_out": "held_out.jsonl"},
        "options": {"steps": steps, "batch_size": BATCH_SIZE, "save_steps": steps, "warmup_steps": 0},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def train_by_hand(folder: Path) -> None:
    """The script one would write with TRL alone. Prints the CPU-seconds of its loop."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from training.recipes.loading import compute_dtype
    from training.recipes.options import parse_options

    config = json.loads((folder / "config.json").read_text())
    options = parse_options("dpo", config["options"])
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(config["base"], dtype=compute_dtype()),
        processing_class=AutoTokenizer.from_pretrained(config["base"]),
        train_dataset=load_dataset(
            "json", data_files=str(folder / "train.jsonl"), split="train"
        ).select_columns(["prompt", "chosen", "rejected"]),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=options.lora_rank,
            lora_alpha=options.lora_alpha,
            target_modules="all-linear",
        ),
        args=DPOConfig(
            output_dir=str(folder / "trl"),
            max_steps=options.steps,
            per_device_train_batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            beta=options.beta,
            max_length=options.max_length,
            bf16=compute_dtype() == torch.bfloat16,
            use_cpu=not torch.cuda.is_available(),
            activation_checkpointing=torch.cuda.is_available(),
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
    )
    before = time.process_time()
    trainer.train()
    print(f"\ncpu_seconds_loop {time.process_time() - before}")


def seconds_by_hand(folder: Path) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.bench_train", "--by-hand", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=quiet_environment())
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout.split("cpu_seconds_loop ")[1])


def result_of_recipe(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "training.recipes.dpo", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=quiet_environment())
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads((folder / "result.json").read_text())


def quiet_environment() -> dict[str, str]:
    return os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": tempfile.gettempdir() + "/rankloop-bench-cache",
    }


def compare(name: str, model: Path, turns: int, **sizes: int) -> dict[str, Any]:
    """Median ratio over `turns` pairs of short runs."""
    ours: list[float] = []
    plain: list[float] = []
    apart: dict[str, list[float]] = {}
    for turn in range(turns):
        with tempfile.TemporaryDirectory() as work:
            recipe = make_run(Path(work) / "recipe", model, **sizes)
            by_hand = make_run(Path(work) / "by_hand", model, **sizes)
            result: dict[str, Any] = {}
            for side in ("recipe", "plain") if turn % 2 else ("plain", "recipe"):
                if side == "plain":
                    plain.append(seconds_by_hand(by_hand))
                else:
                    result = result_of_recipe(recipe)
            ours.append(result["cpu_seconds_loop"])
            for phase, seconds in result["seconds"].items():
                apart.setdefault(phase, []).append(seconds)
        print(
            f"{name:>16} {turn:>4} {ours[-1]:>8.1f} {plain[-1]:>8.1f} {ours[-1] / plain[-1]:>6.3f}",
            flush=True,
        )
    ratios = [a / b for a, b in zip(ours, plain, strict=True)]
    return {
        "seconds": statistics.median(ours),
        "baseline_seconds": statistics.median(plain),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "apart_wall_seconds": {
            phase: statistics.median(values) for phase, values in apart.items() if phase != "loop"
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description="CPU-seconds of DPO through the recipe beside a bare TRL script."
    )
    parser.add_argument("--quick", action="store_true", help="short rows and one step a run")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--model", type=Path, default=default_model(), help="model folder (safetensors)")
    parser.add_argument("--by-hand", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.by_hand:
        train_by_hand(given.by_hand)
        return
    turns, steps, words = (3, 1, 16) if given.quick else (5, 2, 48)
    print(f"{'':>16} turn   recipe    plain  ratio   (CPU-seconds of {steps} steps of {BATCH_SIZE} pairs)")
    methods = {"dpo": compare("dpo", given.model, turns, completions=2, steps=steps, words=words)}
    if not given.quick:
        sizes = {"completions": 4, "steps": steps, "words": words}
        methods["dpo_on_rankings"] = compare("dpo_on_rankings", given.model, turns, **sizes)
    for name, figures in methods.items():
        apart = ", ".join(
            f"{phase} {seconds:.1f} s" for phase, seconds in figures["apart_wall_seconds"].items()
        )
        print(f"{name}: median ratio {figures['ratio']:.3f} (wanted: at most 1.05); apart: {apart}")
    if given.json:
        given.json.write_text(json.dumps({"methods": methods}, indent=1) + "\n")


if __name__ == "__main__":
    main()
