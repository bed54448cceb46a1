"""What every training recipe lets a researcher set. Pure; `options.py` has the list of methods."""

from dataclasses import dataclass

from training.recipes.option_fields import option
from training.recipes.run_dir import RecipeError

FEWEST = 8  # rows to learn from; fewer teach nothing but their own noise


def steps_option(default: int, source: str) -> int:
    return option(default, "Optimiser steps.", low=1, high=1_000_000, source=source)


def rate_option(default: float, source: str) -> float:
    return option(default, "Peak of AdamW.", low=1e-8, high=1.0, source=source)


def beta_option(default: float, source: str) -> float:
    return option(
        default,
        "How dearly the policy pays for leaving the reference model.",
        low=0.0001,
        high=10.0,
        source=source,
    )


def parts_of(batch_size: int, micro_batch_size: int) -> int:
    """The fewest equal parts of a batch, none of which is larger than `micro_batch_size`."""
    return next(
        n for n in range(1, batch_size + 1) if batch_size % n == 0 and batch_size // n <= micro_batch_size
    )


def share_of_step(batch_size: int, micro_batch_size: int, processes: int) -> tuple[int, int]:
    """How many rows of a step are computed together, and in how many parts each process computes its share.

    Raises RecipeError when the processes can't divide a step into equal shares.
    """
    share, left = divmod(batch_size, processes)
    if left:
        raise RecipeError(
            f"batch_size is {batch_size}, which {processes} processes can't divide into equal shares. "
            f"Set it to {max(1, share) * processes}, for example."
        )
    parts = parts_of(share, micro_batch_size)
    return share // parts, parts


@dataclass(frozen=True)
class TrainingOptions:
    """What every training recipe shares."""

    weights = "lora"  # no option here: of the methods that can train all weights it is one

    steps: int = steps_option(
        32,
        "measured on SmolLM2-135M: 32 steps of DPO won 0.81 of held-out comparisons against the base model",
    )
    batch_size: int = option(
        48,
        "Pairs in a step. Those of a comparison stay together, and what they share is computed once.",
        low=1,
        high=4096,
        source="four comparisons of four completions, each judged twice",
    )
    micro_batch_size: int = option(
        24,
        "Rows of a step that are computed together. Lower it when memory runs out; the result stays the same.",
        low=1,
        high=4096,
        source="two of those comparisons: 4 GB with SmolLM2-135M",
    )
    learning_rate: float = rate_option(
        5e-4, "measured on SmolLM2-135M: win rate 0.73 after 24 steps, where 1e-4 gave 0.59 after 40"
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
        "Tokens in prompt and completion together; longer rows are counted in the result.",
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

    @property
    def parts(self) -> int:
        """In how many equal parts a step is computed."""
        return parts_of(self.batch_size, self.micro_batch_size)
