"""Sets of options for three kinds of machine. Pure. Choosing one fills the form; everything can still be changed.

How large `micro_batch_size` may be is a sum (estimates.py; deploy/MEMORY.md goes through it). For `one-gpu`, a model
of 8 billion parameters (32 layers of width 4096, inner width 14336) in bfloat16 on a card of 24 GB:

    weights          8.0e9 x 2 bytes                                           16.1 GB
    LoRA, rank 16    42e6 numbers x 16 bytes (itself, gradient, two moments)    0.7 GB
    CUDA             context and kernels                                        0.9 GB
    a row of 1024    32 layers keep their input: 32 x 4096 x 2 bytes a token,
                     and one layer at a time is whole: 0.22 MB a token          0.5 GB

Two pairs are at most four rows of 1024 tokens: 2.0 GB, which leaves about 4 GB for logits: 1024 completion tokens
over a vocabulary of 128,000 are 0.5 GB a copy. `multi-gpu` spreads the base over the cards (FSDP2), so weights are
divided by their number, and a card of 80 GB computes four pairs at a time. `cpu-smoke` is there to see that
everything fits together: a model of 0.1 to 0.4 billion parameters takes 2 to 4 GB and a few minutes on two cores.
"""

from dataclasses import dataclass, field, fields
from typing import Any

from training.recipes.options import METHODS


@dataclass(frozen=True)
class Preset:
    """Options other than the defaults: `every` for all methods that have them, `of` for one, which counts more."""

    line: str
    for_models: str
    every: dict[str, Any]
    of: dict[str, dict[str, Any]] = field(default_factory=dict)

    def options(self, method: str) -> dict[str, Any]:
        """What it sets for `method`."""
        known = {known.name for known in fields(METHODS[method].options)}
        chosen = {**self.every, **self.of.get(method, {})}
        return {name: value for name, value in chosen.items() if name in known}


_FEW_SAMPLES = {"batch_size": 8, "micro_batch_size": 8}


def _billions(pairs: int) -> dict[str, dict[str, Any]]:
    """Rates for models of billions of parameters; those of the defaults were measured on 135 million. And as many
    `pairs` in a step as whole rankings of 3, 4 or 5 completions make.
    """
    return {
        "sft": {"learning_rate": 2e-4},
        "reward": {"learning_rate": 1e-4, "batch_size": pairs},
        "dpo": {"learning_rate": 5e-5, "batch_size": pairs},
        "kto": {"learning_rate": 5e-5},
        "rloo": {"learning_rate": 2e-5},
        "grpo": {"learning_rate": 2e-5},
        "ppo": {"learning_rate": 2e-5, "value_learning_rate": 1e-4},
    }


PRESETS: dict[str, Preset] = {
    "cpu-smoke": Preset(
        "A few minutes on any machine, to see that everything fits together. It learns next to nothing.",
        "up to 0.4 billion parameters",
        {
            "steps": 4,
            "batch_size": 12,
            "micro_batch_size": 6,
            "warmup_steps": 1,
            "save_steps": 2,
            "max_length": 512,
            "lora_rank": 8,
            "lora_alpha": 16,
            "max_new_tokens": 16,
            "value_warmup_steps": 1,
        },
        dict.fromkeys(("rloo", "grpo", "ppo"), _FEW_SAMPLES),
    ),
    "one-gpu": Preset(
        "One card of 24 GB, a few hours.",
        "up to 8 billion parameters",
        {
            "steps": 200,
            "batch_size": 64,
            "micro_batch_size": 2,
            "warmup_steps": 20,
            "save_steps": 20,
            "eval_steps": 50,
            "max_length": 1024,
            "max_new_tokens": 256,
        },
        _billions(pairs=60),
    ),
    "multi-gpu": Preset(
        "Several cards of 80 GB under accelerate. FSDP2 spreads the base over them; to sample, it must fit each card.",
        "up to 70 billion parameters",
        {
            "steps": 500,
            "batch_size": 256,
            "micro_batch_size": 4,
            "warmup_steps": 50,
            "save_steps": 50,
            "eval_steps": 100,
            "max_length": 2048,
            "max_new_tokens": 512,
        },
        _billions(pairs=240),
    ),
}
