"""Tokens per second of the sampling recipe beside a plain loop over `generate` of transformers.

    python -m tests.benchmarks.bench_generate [--quick] [--json FILE] [--model FOLDER]

Both make the same completions: same prompts, same batches sorted by length, same dtype and seeds. They take turns, so
that whatever else the machine does meets both. Tokens are counted up to and including end-of-sequence. The recipe is
timed from its first batch to its last, writing of completions.jsonl included; loading is left out on both sides.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.recipes import loading, sampling
from training.recipes.run_dir import open_run

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ROOT / "annotation" / "starter" / "prompts.jsonl"
BATCH_SIZE, MAX_NEW_TOKENS = 32, 64


def default_model() -> Path:
    home = Path(os.environ.get("RANKLOOP_HOME", ROOT / "var"))
    return Path(os.environ.get("RANKLOOP_DEFAULT_MODEL", home / "models" / "smollm2-135m-instruct"))


def some_prompts(count: int) -> list[str]:
    rows = [json.loads(line)["prompt"] for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    return [row if isinstance(row, str) else row[-1]["content"] for row in rows[:count]]


def by_recipe(model: Path, prompts: list[str], seed: int) -> tuple[int, float]:
    """(tokens, seconds) of training/recipes/sampling.py."""
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "method": "sampling",
            "base": str(model),
            "seed": seed,
            "contestants": [{"id": "base", "adapter": None, "decoding": {"max_new_tokens": MAX_NEW_TOKENS}}],
            "prompts": [
                {"id": f"{i:04}", "messages": [{"role": "user", "content": text}]}
                for i, text in enumerate(prompts)
            ],
            "samples": 1,
            "options": {"batch_size": BATCH_SIZE},
        }
        (Path(folder) / "config.json").write_text(json.dumps(config))
        metrics = sampling.main(open_run(Path(folder), "sampling"))
    return metrics["tokens"], metrics["tokens"] / metrics["tokens_per_second"]


def by_hand(folder: Path, prompts: list[str], seed: int) -> tuple[int, float]:
    """(tokens, seconds) of the plain loop."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=loading.compute_dtype()).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    chats = [[{"role": "user", "content": text}] for text in prompts]
    texts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
    texts.sort(key=lambda text: -len(tokenizer(text).input_ids))
    tokens, started = 0, time.monotonic()
    for number, start in enumerate(range(0, len(texts), BATCH_SIZE)):
        batch = tokenizer(texts[start : start + BATCH_SIZE], return_tensors="pt", padding=True)
        torch.manual_seed(sampling.derived_seed(seed, "base", number))
        rows = model.generate(
            **batch, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=MAX_NEW_TOKENS
        )
        for row in rows[:, batch["input_ids"].shape[1] :].tolist():
            tokenizer.decode(row, skip_special_tokens=True)
            tokens += row.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else len(row)
    return tokens, time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Tokens per second of the sampling recipe beside a plain loop."
    )
    parser.add_argument(
        "--quick", action="store_true", help="two turns of 32 completions instead of five of 96"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--model", type=Path, default=default_model(), help="model folder (safetensors)")
    given = parser.parse_args()
    turns, count = (2, 32) if given.quick else (5, 96)
    loading.be_quiet()
    prompts = some_prompts(count)
    by_hand(given.model, prompts[:2], seed=0)  # what torch does once is done before the first turn

    sides = {"recipe": by_recipe, "plain": by_hand}
    rates: dict[str, list[float]] = {side: [] for side in sides}
    print(f"{'turn':>4} {'side':>8} {'tokens':>8} {'seconds':>8} {'tokens/s':>9}")
    for turn in range(turns):
        for side in sorted(sides, reverse=bool(turn % 2)):  # who goes first takes turns too
            tokens, seconds = sides[side](given.model, prompts, turn)
            rates[side].append(tokens / seconds)
            print(f"{turn:>4} {side:>8} {tokens:>8} {seconds:>8.1f} {tokens / seconds:>9.1f}", flush=True)
    ratios = [ours / plain for ours, plain in zip(rates["recipe"], rates["plain"], strict=True)]
    figures = {
        "tokens_per_second": statistics.median(rates["recipe"]),
        "baseline_tokens_per_second": statistics.median(rates["plain"]),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "threads": torch.get_num_threads(),
    }
    print(
        f"recipe {figures['tokens_per_second']:.1f} tokens/s, plain {figures['baseline_tokens_per_second']:.1f}, "
        f"median ratio of {turns} turns {figures['ratio']:.3f} (wanted: at least 0.9)"
    )
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
