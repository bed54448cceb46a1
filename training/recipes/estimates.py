"""What a run will take: memory, disk and time, from the model's shape, the options and the lengths of the data.

Pure arithmetic, no torch. The structure is from first principles: each part is what PyTorch keeps for the backward
pass, counted from the layers of a Llama. Three constants are measured (`tests/benchmarks/bench_memory.py` prints
estimate beside measurement): what a process takes before it has loaded anything, the slack of the allocator, and the
speed of a core. deploy/MEMORY.md goes through the sums.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.recipes.model_folders import of_language_model, tensors_of
from training.recipes.options import METHODS
from training.recipes.options_from_samples import keeps_graphs
from training.recipes.run_dir import KEPT_CHECKPOINTS, RecipeError

# Measured: what a recipe's process on a CPU takes for its imports and what libraries put aside in the first steps; what
# a CUDA context and its kernels take on the card.
RUNTIME_BYTES = {"cpu": 640e6, "cuda": 900e6}
# Measured: what an allocator holds beyond what is in use. glibc's keeps 1.4 times the activations after two steps and
# 2.4 times after thirty, whose many sizes leave holes that nothing fits; logits are so large that each is given back at
# once.
SPARE = {"cpu": 1.8, "cuda": 1.1}
SLACK = 1.1
KEPT = 1.5  # measured: of the activations of two models, half of the second's lie in the allocator's holes
# Rules of thumb for floating-point operations a second, used until a run of the same kind was measured.
FLOPS = {"cpu": 35e9, "cuda": 80e12}  # of one core; of one card that computes in bfloat16
START_SECONDS = 15.0
EVALUATED_TOGETHER = 16  # held-out rows
_GRADIENT_AND_MOMENTS = 12  # bytes for each number that learns, in float32
_ADAM = 4 + _GRADIENT_AND_MOMENTS  # and with the number itself


@dataclass(frozen=True)
class Shape:
    """What of a model decides how much it needs. `width` is the hidden size, `inner` that of the feed-forward part."""

    parameters: int
    file_bytes: int
    width: int
    inner: int
    layers: int
    heads: int
    key_width: int  # all key heads together
    vocabulary: int

    def adapter_parameters(self, rank: int) -> int:
        """Numbers in a LoRA adapter on every linear layer: rank times what goes in and comes out of each."""
        linears = (
            (self.width, self.width),  # queries
            (self.width, self.key_width),
            (self.width, self.key_width),  # values
            (self.width, self.width),  # output of attention
            (self.width, self.inner),
            (self.width, self.inner),
            (self.inner, self.width),
        )
        return self.layers * rank * sum(into + out for into, out in linears)


@dataclass(frozen=True)
class Load:
    """What is computed together, in tokens with padding, and what a step computes in all.

    `together` and `completions_together` are those of the largest part of a step; `row` the longest row in it,
    `held_out` the largest group of held-out rows with its completion tokens; `step` the mean tokens of a step;
    `rows_held_out` are computed at each evaluation, `rows_of_parent` once; `sampled` is the largest group of rows that
    are written together.
    """

    together: int
    completions_together: int
    row: int
    step: float
    held_out: int = 0
    held_out_completions: int = 0
    rows_held_out: int = 0
    rows_of_parent: int = 0
    sampled: int = 0
    rows_sampled: int = 0


@dataclass(frozen=True)
class Machine:
    """Where it will run: `kind` is cpu or cuda, `dtype_bytes` those of a weight of the frozen base."""

    kind: str
    dtype_bytes: int
    cores: int = 1


def parameters_in(folder: str | Path | None) -> int:
    """Numbers in the safetensors files of a folder, by their headers; 0 for no folder."""
    return sum(map(math.prod, tensors_of(Path(folder)).values())) if folder else 0


def read_shape(folder: Path) -> Shape:
    """The shape of the model in a folder, from config.json and the headers of its safetensors files."""
    config = of_language_model(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    try:
        width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        head = int(config.get("head_dim") or width // heads)
        return Shape(
            parameters=parameters_in(folder),
            file_bytes=sum(file.stat().st_size for file in folder.glob("*.safetensors")),
            width=width,
            inner=int(config.get("intermediate_size") or 4 * width),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            key_width=int(config.get("num_key_value_heads") or heads) * head,
            vocabulary=int(config["vocab_size"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError(
            f"config.json of the base does not tell its shape ({error}), so memory and time can't be estimated. "
            "Use a model whose config.json has hidden_size, num_hidden_layers, num_attention_heads and vocab_size."
        ) from None


def estimate_memory(
    method: str,
    options: Mapping[str, Any],
    shape: Shape,
    load: Load,
    machine: Machine,
    *,
    parent: int = 0,
    reward_model: int = 0,
) -> dict[str, int]:
    """Bytes by part, and `peak`: that of the process on a CPU, that of the card on a GPU.

    `parent` and `reward_model` are the numbers in their adapters, 0 without one.
    """
    whole = options.get("weights") == "full"
    weights = shape.parameters * (_whole_bytes(method, machine) if whole else machine.dtype_bytes)
    trained = sum(_adapters(method, options, shape, parent))
    frozen = reward_model + (0 if method == "reward" else parent)
    parts = {
        "runtime": RUNTIME_BYTES[machine.kind],
        "weights": weights,
        "adapters": shape.parameters * _GRADIENT_AND_MOMENTS if whole else trained * _ADAM + frozen * 4,
        "activations": SPARE[machine.kind]
        * _activations(shape, load, machine)
        * (KEPT if _keeps_both(method, options) else 1),
        "logits": SLACK * _logits(method, shape, load.completions_together),
        "cache": _cache(shape, load, machine),
    }
    # Held-out rows are computed without keeping anything but the logits; the file lies in memory while it is loaded.
    judged = "" if method != "reward" else method
    evaluating = SLACK * (
        _logits(judged, shape, load.held_out_completions) + load.held_out * shape.width * 16
    )
    resting = parts["runtime"] + weights + parts["adapters"]
    training = resting + max(parts["activations"] + parts["logits"], parts["cache"], evaluating)
    loading = parts["runtime"] + weights + (shape.file_bytes if machine.kind == "cpu" else 0)
    return {name: round(value) for name, value in {**parts, "peak": max(training, loading)}.items()}


def _whole_bytes(method: str, machine: Machine) -> int:
    """Bytes for each weight of a model whose weights all learn: held in float32, and autocast's copy to compute with.

    DPO holds a reference model beside.
    """
    copy = machine.dtype_bytes if machine.dtype_bytes < 4 else 0
    return 4 + copy + (4 if method == "dpo" else 0)


def _activations(shape: Shape, load: Load, machine: Machine) -> float:
    """What all layers keep for the backward pass.

    Float32, numbers a token: residual and normalised stream twice (4 widths), queries, keys and values spread over the
    heads, and what attention gives out (4); the feed-forward part keeps four of its inner width. In bfloat16 the norms
    keep float32 copies and each linear layer its own copy of its input: 13 widths of two bytes. Rows of at most 256
    tokens on a CPU keep the attention table of every head, longer ones do not (loading.attention_for).
    On a GPU a layer keeps its input only and is computed again: one layer at a time is whole.
    """
    wide = machine.dtype_bytes == 4
    per_token = (8 if wide else 13) * shape.width + 4 * shape.inner
    if load.row <= 256 and machine.kind == "cpu":
        per_token += (1 if wide else 3) * shape.heads * load.row
    one_layer = machine.dtype_bytes * per_token * load.together
    if machine.kind == "cpu":
        return shape.layers * one_layer
    return shape.layers * machine.dtype_bytes * shape.width * load.together + one_layer


def _keeps_both(method: str, options: Mapping[str, Any]) -> bool:
    """Whether PPO holds the activations of policy and value model at once."""
    names = ("batch_size", "micro_batch_size", "mini_batches")
    return method == "ppo" and keeps_graphs(*(options[name] for name in names))


def _logits(method: str, shape: Shape, tokens: int) -> float:
    """Logits of completion tokens, in float32: themselves, their softmax, and in training gradients of both."""
    if method == "reward":
        return 0.0
    copies = {"": 2, "dpo": 4}.get(method, 3)
    return 4.0 * copies * tokens * shape.vocabulary


def _cache(shape: Shape, load: Load, machine: Machine) -> float:
    """Keys and values of every layer while completions are sampled, and the logits of one token of each.

    In float32 on a CPU the linear layers' weights lie beside the merged ones (lora_layers.for_sampling).
    """
    kept = 2 * shape.layers * shape.key_width * machine.dtype_bytes * load.sampled
    merged = 0
    if load.sampled and machine.kind == "cpu" and machine.dtype_bytes == 4:
        merged = 4 * (shape.parameters - shape.vocabulary * shape.width)
    return SLACK * (kept + 4 * 4 * load.rows_sampled * shape.vocabulary) + merged


def _adapters(method: str, options: Mapping[str, Any], shape: Shape, parent: int) -> tuple[int, int]:
    """Numbers that learn: in the adapter, as large as its parent's, and in that of PPO's value model, always fresh."""
    fresh = shape.adapter_parameters(options["lora_rank"])
    return parent or fresh, fresh if method == "ppo" else 0


def estimate_disk(
    method: str, options: Mapping[str, Any], shape: Shape, *, parent: int = 0
) -> dict[str, int]:
    """Bytes of the checkpoints that are kept, one more while it is written, and of the result."""
    adapter, value = _adapters(method, options, shape, parent)
    trained, output = adapter + value, 4 * adapter
    if options.get("weights") == "full":
        trained, output = shape.parameters, shape.file_bytes
    checkpoint = 12 * trained  # the numbers and the two moments of each
    kept = (KEPT_CHECKPOINTS + 1) * checkpoint
    return {"checkpoints": kept, "output": output, "total": kept + output}


def estimate_seconds(
    method: str,
    options: Mapping[str, Any],
    shape: Shape,
    load: Load,
    machine: Machine,
    measured: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """`seconds` in all, and `by`: the run whose speed they are from, None for the rule of thumb.

    `measured` is {"by", "seconds_per_row", "tokens_per_row"} of an earlier run of the same base and method; the
    latter is None where it is not known. The rule: a frozen base costs 2 operations a parameter and token forwards
    and as many backwards, 2 more when its own weights learn; the reference another 2; an evaluation goes forwards;
    sampling goes forwards once for each token.
    """
    steps, batch = options["steps"], options["batch_size"]
    evaluations = 2 + (steps // options["eval_steps"] if options["eval_steps"] else 0)
    rows_held_out = evaluations * load.rows_held_out + load.rows_of_parent
    held_out = 2.0 * load.held_out / EVALUATED_TOGETHER * rows_held_out
    training = steps * load.step * _passes(method, options)
    # A CPU that computes in bfloat16 (loading.compute_dtype) is some three times as fast in it.
    faster = 3 if machine.kind == "cpu" and machine.dtype_bytes == 2 else 1
    speed = FLOPS[machine.kind] * faster * (machine.cores if machine.kind == "cpu" else 1)
    evaluating = shape.parameters * held_out / speed
    if measured is not None:
        rows = steps * batch
        longer = load.step / batch / measured["tokens_per_row"] if measured.get("tokens_per_row") else 1.0
        return {
            "seconds": round(START_SECONDS + evaluating + rows * longer * measured["seconds_per_row"]),
            "by": measured["by"],
        }
    return {
        "seconds": round(START_SECONDS + evaluating + shape.parameters * training / speed),
        "by": None,
    }


def _passes(method: str, options: Mapping[str, Any]) -> float:
    """Operations for each parameter of the base and each token of a step."""
    weights_learn = 2.0 if options.get("weights") == "full" else 0.0
    if method in ("sft", "reward"):
        return 4.0 + weights_learn
    if not METHODS[method].samples:
        return 6.0 + weights_learn
    # Sampled, then asked of reward, reference and what learns: the policy, and with PPO a value model too.
    models = 2 if method == "ppo" else 1
    asked = 2 if _keeps_both(method, options) else 2 + models
    return 2.0 * (1 + asked) + 4.0 * options.get("epochs", 1) * models
