"""What a researcher can set, per recipe: name, type, default, bounds, one line of help and where the default is from.

No torch here: pages, APIs and the supervisor read these dataclasses to draw forms and to refuse bad values
early. `parse_options` is the only way from JSON to options, and `METHODS` the one list of what can be trained.
"""

from dataclasses import dataclass
from typing import Any

from training.recipes.option_fields import describe, fill, option
from training.recipes.options_from_data import DpoOptions, KtoOptions, RewardOptions, SftOptions
from training.recipes.options_from_samples import GrpoOptions, PpoOptions, RlooOptions
from training.recipes.training_options import share_of_step


@dataclass(frozen=True)
class SamplingOptions:
    """How completions are made, apart from the decoding, which belongs to the contestant."""

    batch_size: int = option(
        64,
        "Completions made side by side.",
        low=1,
        high=1024,
        source="measured on 2 CPU cores: 1.4 times the tokens a second of 32; 128 gains little more",
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


def computed_together(method: str, options: dict[str, Any], processes: int = 1) -> int:
    """How many rows of a step each process computes together, at most.

    PPO's own loop takes micro_batch_size and a rest, TRL's trainers take equal parts. Raises RecipeError when the
    processes can't divide a step into equal shares.
    """
    batch_size, micro_batch_size = options["batch_size"], options["micro_batch_size"]
    if method == "ppo":
        return min(batch_size, micro_batch_size)
    return share_of_step(batch_size, micro_batch_size, processes)[0]


def describe_options(method: str) -> list[dict[str, Any]]:
    """Every option of `method` as {"name", "type", "default", "help", "low", "high", "choices", "source"}."""
    return describe(_OPTIONS[method])
