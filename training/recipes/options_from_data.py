"""Options of the recipes that learn from rows: SFT, reward models, DPO and KTO. Pure."""

from dataclasses import dataclass

from training.recipes.option_fields import option
from training.recipes.run_dir import RecipeError
from training.recipes.training_options import TrainingOptions, beta_option, rate_option, steps_option


def _weights() -> str:
    return option(
        "lora",
        "What learns: a LoRA adapter on the frozen base (lora), or all weights of the base (full). All weights want "
        "about a tenth of the learning rate and 16 to 22 bytes of memory each, and ignore lora_rank and lora_alpha.",
        choices=("lora", "full"),
        source="Schulman et al. 2025, LoRA Without Regret: no worse on data of this size",
    )


@dataclass(frozen=True)
class PolicyOptions(TrainingOptions):
    """What the recipes share that make a policy from rows."""

    judged_tokens: int = option(
        48,
        "Given a reward model, held-out prompts are answered with at most this many tokens, for it to judge.",
        low=1,
        high=32_768,
        source="max_new_tokens of the methods that sample",
    )


@dataclass(frozen=True)
class SftOptions(PolicyOptions):
    """Supervised fine-tuning: imitate written answers."""

    weights: str = _weights()
    batch_size: int = option(16, "Answers in a step.", low=1, high=4096, source="TRL's advice for LoRA")
    micro_batch_size: int = option(
        8,
        "Rows of a step that are computed together. Lower it when memory runs out; the result stays the same.",
        low=1,
        high=4096,
        source="1 GB with SmolLM2-135M",
    )
    learning_rate: float = rate_option(
        2e-4, "Schulman et al. 2025, LoRA Without Regret: ten times that of all weights"
    )


@dataclass(frozen=True)
class RewardOptions(TrainingOptions):
    """Reward model: one score per conversation, from pairs."""

    weights: str = _weights()
    steps: int = steps_option(30, "about two passes over 250 rankings of four completions")
    batch_size: int = option(
        96,
        "Pairs in a step. Those of a comparison stay together, and what they share is computed once.",
        low=1,
        high=4096,
        source="eight comparisons, each judged twice: held-out accuracy 0.667 after 20 steps of SmolLM2-135M, 0.638 "
        "after 60 of 48 pairs",
    )
    learning_rate: float = rate_option(
        5e-4,
        "measured on SmolLM2-135M with a fresh score head: held-out accuracy 0.668 after 30 steps of 96 pairs, 0.644 "
        "with 2e-4; smaller batches want less",
    )
    margin_per_strength: float = option(
        0.0,
        "How much further apart the scores must be for each step of strength above slight; 0 leaves strength out.",
        low=0.0,
        high=10.0,
        source="Touvron et al. 2023 (Llama 2), section 3.2.2, where margins are 0 to 3",
    )
    center_weight: float = option(
        0.0,
        "Pulls the sum of a pair's scores towards 0, so that scores of different prompts can be compared.",
        low=0.0,
        high=1.0,
        source="Eisenstein et al. 2023, section 2, with 0.01; off, as in Ouyang et al. 2022",
    )


@dataclass(frozen=True)
class DpoOptions(PolicyOptions):
    """Direct preference optimisation: a policy straight from pairs."""

    weights: str = _weights()
    beta: float = beta_option(0.1, "Rafailov et al. 2023, section 6; TRL")
    loss: str = option(
        "sigmoid",
        "sigmoid is DPO; ipo stays bounded where annotators never disagree; robust allows for flipped judgments.",
        choices=("sigmoid", "ipo", "robust"),
        source="Rafailov et al. 2023; Azar et al. 2023 (IPO); Chowdhury et al. 2024 (robust)",
    )
    flipped_share: float = option(
        0.0,
        "For robust alone: the share of judgments taken to be the wrong way round.",
        low=0.0,
        high=0.49,
        source="Chowdhury et al. 2024; 0 is plain DPO",
    )
    sft_weight: float = option(
        0.0,
        "Adds this much of the plain loss on chosen completions, which keeps them from becoming less likely.",
        low=0.0,
        high=10.0,
        source="Pang et al. 2024 (iterative RPO), where it is 1",
    )

    def __post_init__(self) -> None:
        if self.flipped_share and self.loss != "robust":
            raise RecipeError(
                f"flipped_share is {self.flipped_share:g}, which only the robust loss takes into account, and loss is "
                f"{self.loss}. Set loss to robust, or flipped_share to 0."
            )


@dataclass(frozen=True)
class KtoOptions(PolicyOptions):
    """Kahneman-Tversky optimisation: a policy from single completions called good or bad."""

    batch_size: int = option(
        24,
        "Completions in a step.",
        low=2,
        high=4096,
        source="as many rows as TRL's DPO computes for 12 pairs",
    )
    micro_batch_size: int = option(
        12,
        "Completions of a step that are computed together. Lower it when memory runs out; the result stays the same.",
        low=2,
        high=4096,
        source="TRL's trainer takes no fewer than 2",
    )
    beta: float = beta_option(0.1, "Ethayarajh et al. 2024, section 4; TRL")
    desirable_weight: float = option(
        1.0, "Weight of good completions.", low=0.0, high=100.0, source="Ethayarajh et al. 2024, section 4"
    )
    undesirable_weight: float = option(
        1.0, "Weight of bad completions.", low=0.0, high=100.0, source="Ethayarajh et al. 2024, section 4"
    )

    def __post_init__(self) -> None:
        if self.batch_size // self.parts < 2:
            raise RecipeError(
                f"A batch_size of {self.batch_size} can't be computed in equal parts of 2 or more within a "
                f"micro_batch_size of {self.micro_batch_size}, and TRL's KTO computes no fewer. Set "
                "batch_size to a multiple of micro_batch_size."
            )
