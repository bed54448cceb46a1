"""What a researcher can set, per recipe: name, type, default, bounds, one line of help and where the default is from.

No torch here: pages, APIs and the supervisor read these dataclasses to draw forms and to refuse bad values
early. `parse_options` is the only way from JSON to options.
"""

import dataclasses
import math
from dataclasses import dataclass, field, fields
from typing import Any

from training.recipes.run_dir import RecipeError


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    source: str,
) -> Any:
    """One option. `low` and `high` are inclusive; `source` says where the default comes from."""
    described = {"help": help, "low": low, "high": high, "choices": choices, "source": source}
    return field(default=default, metadata=described)


@dataclass(frozen=True)
class SamplingOptions:
    """How completions are made, apart from the decoding, which belongs to the contestant."""

    batch_size: int = option(
        32,
        "Completions made side by side.",
        low=1,
        high=1024,
        source="measured on 2 CPU cores: 32 is the fastest of 1, 8, 16, 32",
    )


@dataclass(frozen=True)
class DecodingOptions:
    """How one contestant picks its tokens."""

    temperature: float = option(
        1.0,
        "0 takes the likeliest token each time; 1 samples the model as it is.",
        low=0.0,
        high=5.0,
        source="plain",
    )
    top_p: float = option(
        1.0, "Keep the likeliest tokens that sum up to this probability.", low=0.01, high=1.0, source="plain"
    )
    top_k: int = option(
        0, "Keep this many likeliest tokens; 0 keeps all.", low=0, high=1_000_000, source="plain"
    )
    max_new_tokens: int = option(
        64,
        "Completions are cut after this many tokens.",
        low=1,
        high=32_768,
        source="a screenful for an annotator",
    )


@dataclass(frozen=True)
class _TrainingOptions:
    """What every LoRA recipe on pairs shares."""

    steps: int = option(
        32,
        "Optimiser steps.",
        low=1,
        high=1_000_000,
        source="measured on SmolLM2-135M: 32 steps of DPO won 0.81 of held-out comparisons against the base model",
    )
    batch_size: int = option(
        24,
        "Pairs in a step. The pairs of a ranking stay together, and a completion they share is computed once.",
        low=1,
        high=4096,
        source="four rankings of four completions",
    )
    pairs_at_once: int = option(
        12,
        "Pairs of a step that are computed together. Lower it when memory runs out; the result stays the same.",
        low=1,
        high=4096,
        source="two rankings of four completions: 3 GB with SmolLM2-135M",
    )
    learning_rate: float = option(
        5e-4,
        "Peak of AdamW.",
        low=1e-8,
        high=1.0,
        source="measured on SmolLM2-135M: win rate 0.73 after 24 steps, where 1e-4 gave 0.59 after 40",
    )
    warmup_steps: int = option(
        3,
        "Steps over which the learning rate rises to its peak.",
        low=0,
        high=100_000,
        source="about a tenth of the run",
    )
    schedule: str = option(
        "linear",
        "How the learning rate falls after the warm-up.",
        choices=("linear", "cosine", "constant_with_warmup"),
        source="TRL",
    )
    max_grad_norm: float = option(
        1.0, "Gradients longer than this are scaled down to it.", low=0.0, high=1e6, source="TRL"
    )
    max_length: int = option(
        1024,
        "Tokens in prompt and completion together; longer pairs are counted in the result.",
        low=8,
        high=131_072,
        source="TRL",
    )
    lora_rank: int = option(
        16,
        "Rank of the LoRA matrices. With a parent its own rank is kept.",
        low=1,
        high=1024,
        source="measured on SmolLM2-135M; 16 in the LoRA literature",
    )
    lora_alpha: int = option(
        32,
        "LoRA updates are scaled by lora_alpha / lora_rank.",
        low=1,
        high=4096,
        source="twice the rank, peft's advice",
    )
    save_steps: int = option(
        8, "Steps between two checkpoints.", low=1, high=1_000_000, source="about a minute of work to lose"
    )
    eval_steps: int = option(
        0,
        "Steps between two held-out evaluations; 0 evaluates at start and end only.",
        low=0,
        high=1_000_000,
        source="an evaluation costs as much as a few steps",
    )


@dataclass(frozen=True)
class RewardOptions(_TrainingOptions):
    """Reward model: one score per conversation, from pairs."""

    steps: int = option(
        60,
        "Optimiser steps.",
        low=1,
        high=1_000_000,
        source="measured on SmolLM2-135M: held-out accuracy 0.76 after half a pass over 478 rankings",
    )
    learning_rate: float = option(
        2e-4, "Peak of AdamW.", low=1e-8, high=1.0, source="measured on SmolLM2-135M, with a fresh score head"
    )


@dataclass(frozen=True)
class DpoOptions(_TrainingOptions):
    """Direct preference optimisation: a policy straight from pairs."""

    beta: float = option(
        0.1,
        "How dearly the policy pays for leaving the reference model.",
        low=1e-4,
        high=10.0,
        source="Rafailov et al. 2023, section 6; TRL",
    )


METHODS: dict[str, type] = {
    "sampling": SamplingOptions,
    "decoding": DecodingOptions,
    "reward": RewardOptions,
    "dpo": DpoOptions,
}


def parse_options(method: str, given: dict[str, Any]) -> Any:
    """The options of `method`, defaults filled in. Raises RecipeError naming the option, its range and the remedy."""
    known = {f.name: f for f in fields(METHODS[method])}
    for name in given:
        if name not in known:
            raise RecipeError(
                f"{method} has no option {name!r}. Remove it, or choose from: {', '.join(known)}."
            )
    return METHODS[method](**{name: _checked(known[name], value) for name, value in given.items()})


def describe_options(method: str) -> list[dict[str, Any]]:
    """Every option of `method` as {"name", "type", "default", "help", "low", "high", "choices", "source"}."""
    return [
        {"name": f.name, "type": _type_name(f), "default": f.default, **f.metadata}
        for f in fields(METHODS[method])
    ]


def _checked(known: dataclasses.Field, value: Any) -> Any:
    """`value` as the type of the option, or RecipeError."""
    wanted, (low, high, choices) = _type_name(known), (known.metadata[k] for k in ("low", "high", "choices"))
    remedy = f"Set {known.name} to {_range_text(wanted, low, high, choices)} (default {known.default})."
    if wanted == "float" and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value).__name__ != wanted or (wanted == "float" and not math.isfinite(value)):
        raise RecipeError(f"{known.name} is {value!r}. {remedy}")
    if choices is not None and value not in choices:
        raise RecipeError(f"{known.name} is {value!r}. {remedy}")
    if (low is not None and value < low) or (high is not None and value > high):
        raise RecipeError(f"{known.name} is {value!r}, out of range. {remedy}")
    return value


def _type_name(known: dataclasses.Field) -> str:
    return known.type if isinstance(known.type, str) else known.type.__name__


def _range_text(wanted: str, low: float | None, high: float | None, choices: tuple[str, ...] | None) -> str:
    if choices is not None:
        return "one of " + ", ".join(choices)
    return f"{'a whole number' if wanted == 'int' else 'a number'} from {low:g} to {high:g}"
