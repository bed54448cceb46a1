"""Options of the recipes that learn from what they sample: RLOO, GRPO and PPO. Pure."""

from dataclasses import dataclass

from training.recipes.option_fields import option
from training.recipes.training_options import TrainingOptions, rate_option

# Times as many rows are sampled together as a gradient is computed of: sampling keeps no activations, and all rows
# share what is read of the weights for a token. On 2 CPU cores 64 rows get 1.7 times the tokens a second of 16.
SAMPLED_TOGETHER = 4
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
    learning_rate: float = rate_option(
        5e-4,
        "measured on SmolLM2-135M: PPO won 0.74 after 16 steps, where 1e-4 moved it 0.15 nats in nine",
    )
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
        "Sampling temperature. Probabilities and KL are those of the policy at this temperature.",
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


def keeps_graphs(batch_size: int, micro_batch_size: int, mini_batches: int) -> bool:
    """Whether the first epoch of PPO can go on from the answers to the rollouts: a step is one mini-batch in one part.

    Activations of policy and value model are in memory at once then.
    """
    return batch_size <= micro_batch_size and mini_batches == 1
