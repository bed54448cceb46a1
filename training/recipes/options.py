"""What a researcher can set, per recipe: name, type, default, bounds, one line of help and where the default is from.

No torch here: pages, APIs and the supervisor read these dataclasses to draw forms and to refuse bad values
early. `parse_options` is the only way from JSON to options, and `METHODS` the one list of what can be trained.
"""

from dataclasses import dataclass
from typing import Any

from training.recipes.option_fields import describe, fill, option
from training.recipes.run_dir import RecipeError

FEWEST = 8  # rows to learn from; fewer teach nothing but their own noise


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


def _steps(default: int, source: str) -> int:
    return option(default, "Optimiser steps.", low=1, high=1_000_000, source=source)


def _learning_rate(default: float, source: str) -> float:
    return option(default, "Peak of AdamW.", low=1e-8, high=1.0, source=source)


def _beta(default: float, source: str) -> float:
    return option(
        default,
        "How dearly the policy pays for leaving the reference model.",
        low=0.0001,
        high=10.0,
        source=source,
    )


def _weights() -> str:
    return option(
        "lora",
        "What learns: a LoRA adapter on the frozen base (lora), or all weights of the base (full). All weights want "
        "about a tenth of the learning rate and 16 to 22 bytes of memory each, and ignore lora_rank and lora_alpha.",
        choices=("lora", "full"),
        source="Schulman et al. 2025, LoRA Without Regret: no worse on data of this size",
    )


def parts_of(batch_size: int, micro_batch_size: int) -> int:
    """The fewest equal parts of a batch, none of which is larger than `micro_batch_size`."""
    return next(
        n for n in range(1, batch_size + 1) if batch_size % n == 0 and batch_size // n <= micro_batch_size
    )


@dataclass(frozen=True)
class TrainingOptions:
    """What every training recipe shares."""

    weights = "lora"  # no option here: of the methods that can train all weights it is one

    steps: int = _steps(
        32,
        "measured on SmolLM2-135M: 32 steps of DPO won 0.81 of held-out comparisons against the base model",
    )
    batch_size: int = option(
        24,
        "Pairs in a step. The pairs of a ranking stay together, and a completion they share is computed once.",
        low=1,
        high=4096,
        source="four rankings of four completions",
    )
    micro_batch_size: int = option(
        12,
        "Rows of a step that are computed together. Lower it when memory runs out; the result stays the same.",
        low=1,
        high=4096,
        source="two rankings of four completions: 3 GB with SmolLM2-135M",
    )
    learning_rate: float = _learning_rate(
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


@dataclass(frozen=True)
class SftOptions(TrainingOptions):
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
    learning_rate: float = _learning_rate(
        2e-4, "Schulman et al. 2025, LoRA Without Regret: ten times that of all weights"
    )


@dataclass(frozen=True)
class RewardOptions(TrainingOptions):
    """Reward model: one score per conversation, from pairs."""

    weights: str = _weights()
    steps: int = _steps(
        60, "measured on SmolLM2-135M: held-out accuracy 0.76 after half a pass over 478 rankings"
    )
    learning_rate: float = _learning_rate(2e-4, "measured on SmolLM2-135M, with a fresh score head")
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
class DpoOptions(TrainingOptions):
    """Direct preference optimisation: a policy straight from pairs."""

    weights: str = _weights()
    beta: float = _beta(0.1, "Rafailov et al. 2023, section 6; TRL")
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
class KtoOptions(TrainingOptions):
    """Kahneman-Tversky optimisation: a policy from single completions called good or bad."""

    batch_size: int = option(
        24, "Completions in a step.", low=2, high=4096, source="as many rows as DPO's default"
    )
    micro_batch_size: int = option(
        12,
        "Completions computed together, at least 2: put to each other's prompts they give the loss its zero point. "
        "Fewer make that noisier, so the result is not quite the same.",
        low=2,
        high=4096,
        source="Ethayarajh et al. 2024, section 4",
    )
    beta: float = _beta(0.1, "Ethayarajh et al. 2024, section 4; TRL")
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
                f"micro_batch_size of {self.micro_batch_size}, and KTO needs other completions beside each. Set "
                "batch_size to a multiple of micro_batch_size."
            )


REWARDS = ("reward_model", "valid_json", "required_words", "length")


@dataclass(frozen=True)
class RolloutOptions(TrainingOptions):
    """What recipes share that learn from completions they sample themselves (rollouts)."""

    batch_size: int = option(
        32, "Completions sampled in a step.", low=2, high=65_536, source="fits 2 CPU cores"
    )
    micro_batch_size: int = option(
        16,
        "Completions whose gradient is computed together. Lower it when memory runs out; the result stays the same.",
        low=1,
        high=4096,
        source="2 GB with SmolLM2-135M",
    )
    learning_rate: float = _learning_rate(1e-4, "measured on SmolLM2-135M")
    schedule: str = option(
        "constant_with_warmup",
        "How the learning rate falls after the warm-up.",
        choices=("linear", "cosine", "constant_with_warmup"),
        source="the KL coefficient adapts to one rate",
    )
    max_new_tokens: int = option(
        48, "Completions are cut after this many tokens.", low=1, high=32_768, source="fits 2 CPU cores"
    )
    temperature: float = option(
        1.0,
        "Sampling temperature. Only at 1 the KL is that of the policy itself.",
        low=0.1,
        high=5.0,
        source="Huang et al. 2024, The N+ Implementation Details of RLHF with PPO",
    )
    reward: str = option(
        "reward_model",
        "What is rewarded: a reward model's score, valid JSON, required words, or a length.",
        choices=REWARDS,
        source="the learned reward is the usual one; the others can be checked without a model",
    )
    json_schema: str = option(
        "",
        "For valid_json: a JSON schema that the answer must satisfy; empty takes any JSON.",
        high=20_000,
        source="plain",
    )
    required_words: str = option(
        "",
        "For required_words: words that the answer must hold, with commas between.",
        high=2_000,
        source="plain",
    )
    target_words: int = option(
        25, "For length: the number of words that is best.", low=1, high=10_000, source="one or two sentences"
    )


@dataclass(frozen=True)
class RlooOptions(RolloutOptions):
    """REINFORCE leave-one-out: each completion is measured against the others to its prompt."""

    group_size: int = option(
        4,
        "Completions per prompt; batch_size must be a multiple.",
        low=2,
        high=256,
        source="Ahmadian et al. 2024, section 4",
    )
    beta: float = option(
        0.05,
        "Taken off the reward of a completion for each nat of its KL to the reference.",
        low=0.0,
        high=10.0,
        source="TRL; 0.03 to 0.1 in Ahmadian et al. 2024",
    )


@dataclass(frozen=True)
class GrpoOptions(RolloutOptions):
    """Group relative policy optimisation: rewards standardised within the completions to one prompt."""

    group_size: int = option(
        8,
        "Completions per prompt; batch_size must be a multiple.",
        low=2,
        high=256,
        source="TRL; 64 in Shao et al. 2024",
    )
    beta: float = option(
        0.04,
        "Weight of the KL to the reference, per token, in the loss.",
        low=0.0,
        high=10.0,
        source="Shao et al. 2024, section 4.2",
    )
    epochs: int = option(
        1,
        "Updates from the completions of a step. Clipping only acts from the second on.",
        low=1,
        high=64,
        source="Shao et al. 2024, section 4.2",
    )
    clip_range: float = option(
        0.2,
        "How far the probability ratio may move before it is clipped.",
        low=0.01,
        high=1.0,
        source="Schulman et al. 2017",
    )


@dataclass(frozen=True)
class PpoOptions(RolloutOptions):
    """Proximal policy optimisation with a value model, a KL penalty per token, and one frozen base."""

    epochs: int = option(
        2,
        "Passes over the rollouts of a step.",
        low=1,
        high=64,
        source="4 in Ouyang et al. 2022; 2 costs half as much",
    )
    mini_batches: int = option(
        1,
        "Optimiser updates per pass, each on its part of the rollouts.",
        low=1,
        high=1024,
        source="Huang et al. 2024",
    )
    value_learning_rate: float = option(
        5e-4,
        "Peak of AdamW for value adapter and head, which start fresh.",
        low=1e-8,
        high=1.0,
        source="measured on SmolLM2-135M",
    )
    value_warmup_steps: int = option(
        2,
        "Steps in which only the value model learns, so that the first advantages are not noise.",
        low=0,
        high=10_000,
        source="measured on SmolLM2-135M",
    )
    gamma: float = option(1.0, "Discount per token.", low=0.0, high=1.0, source="Ziegler et al. 2019")
    gae_lambda: float = option(
        0.95,
        "Trades bias for variance in the advantages.",
        low=0.0,
        high=1.0,
        source="Schulman et al. 2016; Ziegler et al. 2019",
    )
    clip_range: float = option(
        0.2,
        "How far the probability ratio may move before it is clipped.",
        low=0.01,
        high=1.0,
        source="Schulman et al. 2017",
    )
    value_clip_range: float = option(
        0.2,
        "How far a value may move from its old one before it is clipped.",
        low=0.01,
        high=100.0,
        source="Ziegler et al. 2019",
    )
    kl_coefficient: float = option(
        0.05,
        "Penalty per token for each nat of log ratio to the reference, at the start.",
        low=0.0,
        high=10.0,
        source="Huang et al. 2024",
    )
    kl_target: float = option(
        6.0,
        "KL per completion, in nats, that the coefficient steers towards; 0 keeps the coefficient as it is.",
        low=0.0,
        high=1000.0,
        source="Ziegler et al. 2019, section 2.2",
    )
    kl_horizon: int = option(
        1000,
        "Completions over which the coefficient adapts.",
        low=1,
        high=10_000_000,
        source="10,000 in Ziegler et al. 2019, for runs of a million",
    )
    kl_stop: float = option(
        0.1,
        "A step's passes end early when the policy has moved this far (nats per token) from the one that sampled.",
        low=0.0001,
        high=10.0,
        source="OpenAI Spinning Up, target_kl",
    )
    kl_ceiling: float = option(
        25.0,
        "The run ends early, with what it has, when the KL per completion exceeds this.",
        low=0.1,
        high=10_000.0,
        source="above 15 answers turned to comma lists in trials",
    )
    missing_eos_penalty: float = option(
        1.0,
        "Taken off the reward of a completion that does not end by itself.",
        low=0.0,
        high=100.0,
        source="TRL; Huang et al. 2024",
    )


@dataclass(frozen=True)
class Method:
    """One way to train. `reads` names the derivation of a dataset, `makes` the kind of checkpoint."""

    title: str
    line: str
    options: type
    reads: str  # pairs, demonstrations, outcomes (completions called good or bad) or prompts
    makes: str  # policy or reward

    @property
    def samples(self) -> bool:
        """Whether it learns from completions it samples itself, and so needs a reward."""
        return self.reads == "prompts"


METHODS: dict[str, Method] = {
    "sft": Method(
        "SFT", "Imitate demonstrations and edited answers.", SftOptions, "demonstrations", "policy"
    ),
    "reward": Method(
        "Reward model",
        "Learn to score completions as annotators rank them.",
        RewardOptions,
        "pairs",
        "reward",
    ),
    "dpo": Method(
        "DPO", "A policy straight from pairs, without a reward model.", DpoOptions, "pairs", "policy"
    ),
    "kto": Method(
        "KTO",
        "A policy from completions called good or bad; “all bad” counts.",
        KtoOptions,
        "outcomes",
        "policy",
    ),
    "rloo": Method(
        "RLOO", "Sample, reward, and compare with the other samples.", RlooOptions, "prompts", "policy"
    ),
    "grpo": Method(
        "GRPO", "Sample groups, reward, and standardise within the group.", GrpoOptions, "prompts", "policy"
    ),
    "ppo": Method(
        "PPO",
        "Sample, reward, and learn with a value model under a KL penalty.",
        PpoOptions,
        "prompts",
        "policy",
    ),
}
_OPTIONS: dict[str, type] = {
    "sampling": SamplingOptions,
    "decoding": DecodingOptions,
    **{name: method.options for name, method in METHODS.items()},
}


def parse_options(method: str, given: dict[str, Any]) -> Any:
    """The options of `method`, defaults filled in. Raises RecipeError naming the option, its range and the remedy."""
    return fill(_OPTIONS[method], given, of=method)


def describe_options(method: str) -> list[dict[str, Any]]:
    """Every option of `method` as {"name", "type", "default", "help", "low", "high", "choices", "source"}."""
    return describe(_OPTIONS[method])
