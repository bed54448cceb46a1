"""The memory that a look-over foretells beside the memory that the run takes, for three sizes of model on a CPU.

    python -m tests.benchmarks.bench_memory [--quick] [--json FILE] [--methods dpo,reward,ppo,rloo]

Random weights in the shape of a Llama of 14, 62 and 135 million parameters, with the byte tokenizer of
recipes/tiny.py. Estimate: the peak in the findings of recipes/preview.py. Measured: the peak resident memory of the
recipe's own process after four steps (`peak_memory_mb` in its result.json). The aim is within a quarter, each.
PPO stands there once more with a step in one part, whose graphs it keeps. `--quick` leaves out the largest.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.recipes.runs import ROOT, WORDS, write_pairs

WITHIN = 0.25
# width, inner width, layers, heads, key heads, vocabulary
SHAPES = {
    "14M": (256, 688, 8, 4, 4, 32_000),
    "62M": (512, 1408, 12, 8, 4, 49_152),
    "135M": (576, 1536, 30, 9, 3, 49_152),
}
METHODS = ("dpo", "reward", "ppo", "rloo")
OPTIONS = {"steps": 4, "save_steps": 4, "warmup_steps": 0, "max_length": 512}
SAMPLING = {"ppo": {"reward": "length", "value_warmup_steps": 0}, "rloo": {"reward": "length"}}
# (words of a prompt, words of the longest completion): short rows keep attention tables, long ones do not.
SHORT, LONG = (8, 12), (24, 36)
ROWS = {
    "short": (SHORT, {}),
    "long": (LONG, {}),
    "one part": (SHORT, {"batch_size": 16, "micro_batch_size": 16}),
}
MAKE = """
import json, sys
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
from training.recipes.tiny import make_tiny_model
folder, shape = Path(sys.argv[1]), json.loads(sys.argv[2])
make_tiny_model(folder)
ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
config = LlamaConfig(**shape, **ids, max_position_embeddings=1024, tie_word_embeddings=True)
LlamaForCausalLM(config).save_pretrained(folder)
"""


def rows_of(method: str, *, quick: bool) -> list[str]:
    """The names of what a method is measured with."""
    return [
        name for name in ROWS if (name != "one part" or method == "ppo") and not (quick and name == "long")
    ]


def make_model(folder: Path, shape: tuple[int, ...]) -> Path:
    names = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
    )
    named = dict(zip((*names, "vocab_size"), shape, strict=True))
    subprocess.run(
        [sys.executable, "-c", MAKE, str(folder), json.dumps(named)],
        check=True,
        cwd=ROOT,
        capture_output=True,
    )
    return folder


def make_run(folder: Path, method: str, model: Path, *, lengths: tuple[int, int], **options: Any) -> Path:
    """A RUN_DIR with rankings of four completions, or with prompts for a method that samples."""
    folder.mkdir(parents=True)
    rng = random.Random(3)
    for split, count in (("train", 16), ("held_out", 6)):
        lines: list[dict[str, Any]] = []
        for number in range(count):
            prompt = [{"role": "user", "content": " ".join(rng.choices(WORDS, k=lengths[0]))}]
            texts = [" ".join(rng.choices(WORDS, k=lengths[1] * part // 4)) for part in (1, 2, 3, 4)]
            if method in SAMPLING:
                lines.append({"prompt": prompt, "prompt_id": f"{split}-{number}"})
                continue
            sides = [[{"role": "assistant", "content": text}] for text in texts]
            lines += [
                {"prompt": prompt, "chosen": sides[a], "rejected": sides[b], "ranking": f"{split}-{number}"}
                for a in range(4)
                for b in range(a + 1, 4)
            ]
        write_pairs(folder / f"{split}.jsonl", lines)
    chosen = {**OPTIONS, **SAMPLING.get(method, {}), **options}
    config = {"method": method, "base": str(model), "seed": 1, "threads": 1, "options": chosen}
    config["data"] = {"train": "train.jsonl", "held_out": "held_out.jsonl"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def result_of(folder: Path, recipe: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", f"training.recipes.{recipe}", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    result = json.loads((folder / "result.json").read_text())
    if not result["ok"]:
        raise SystemExit(f"{recipe}: {result['error']}\n{done.stderr[-2000:]}")
    return result


def compare(folder: Path, method: str) -> dict[str, Any]:
    """{"estimate", "measured" (both in MB), "ratio", "parts"} of one run."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "method": "preview", "of": method}))
    told = result_of(folder, "preview")["metrics"]["estimates"][0]
    (folder / "config.json").write_text(json.dumps(config))
    measured = result_of(folder, method)
    estimate = told["memory"]["peak"] / 2**20
    return {
        "estimate": round(estimate),
        "measured": measured["peak_memory_mb"],
        "ratio": round(estimate / measured["peak_memory_mb"], 3),
        "parts": {name: round(size / 2**20) for name, size in told["memory"].items()},
        "seconds": [told["time"]["seconds"], round(sum(measured["seconds"].values()))],
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--quick", action="store_true", help="the two smaller models, short rows only")
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--methods", default=",".join(METHODS))
    asked = arguments.parse_args()
    sizes = list(SHAPES)[: 2 if asked.quick else None]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="rankloop-memory-") as home:
        for size in sizes:
            model = make_model(Path(home) / size, SHAPES[size])
            for method in asked.methods.split(","):
                for name in rows_of(method, quick=asked.quick):
                    lengths, options = ROWS[name]
                    folder = Path(home) / f"{size}-{method}-{name}"
                    make_run(folder, method, model, lengths=lengths, **options)
                    one = found[f"{size} {method} {name}"] = compare(folder, method)
                    print(
                        f"{size:>5} {method:<7} {name:<8} estimate {one['estimate']:>6} MB  "
                        f"measured {one['measured']:>6} MB  ratio {one['ratio']:.2f}  {one['parts']}",
                        flush=True,
                    )
    worst = max(abs(one["ratio"] - 1) for one in found.values())
    print(f"worst: {worst:.0%} off; wanted: within {WITHIN:.0%}")
    if asked.json:
        asked.json.write_text(json.dumps({"runs": found, "worst": worst, "within": WITHIN}, indent=1))
    sys.exit(worst > WITHIN)


if __name__ == "__main__":
    main()
