"""What RLOO and GRPO share around TRL's trainers: groups of completions to one prompt, their rewards, their evaluation.

TRL learns; it is given our prompts in our order, our reward, and completions that are sampled as PPO samples. Its model
is worn as a `SharedBase`, so that a learned reward is a third adapter on the base that is in memory already, and
held-out prompts are answered and measured by the very code that PPO uses.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, Trainer
from trl import GRPOTrainer, RLOOTrainer

from training.recipes import loading, processes, rollouts, training_loop
from training.recipes.forward_once import completion_log_probs
from training.recipes.options_from_samples import GrpoOptions, RlooOptions
from training.recipes.prompts import Prompt
from training.recipes.rendering import Message, neutralise_messages
from training.recipes.rollouts import Reward
from training.recipes.run_dir import RecipeError, RunDir
from training.recipes.sampling import derived_seed, end_tokens, text_of
from training.recipes.trainers_base import TrainersBase

GroupOptions = RlooOptions | GrpoOptions
SAME = 1e-6  # rewards nearer to each other than this are equal: float32 sums in another order


def prompts_per_step(options: GroupOptions) -> int:
    return options.batch_size // options.group_size


def as_dataset(
    prompts: Sequence[Prompt], order: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> Dataset:
    """The prompts in that order, control tokens neutralised; TRL applies the chat template itself."""
    rows = [{"prompt": neutralise_messages(tokenizer, prompt.messages)} for prompt in prompts]
    return Dataset.from_list(rows).select(order)


def sampling_settings(options: GroupOptions) -> dict[str, Any]:
    """The arguments of RLOOConfig and GRPOConfig that say how completions are sampled."""
    return {
        "num_generations": options.group_size,
        "max_completion_length": options.max_new_tokens,
        "temperature": options.temperature,
        "top_k": 0,
        "top_p": 1.0,
        "shuffle_dataset": False,  # prompt_order has decided the order
        "disable_dropout": True,  # else one completion has another probability each time it is asked for
    }


class GroupRewards:
    """The reward function that TRL is given: rewards the texts that we would read, and measures them as PPO does.

    `open` says what is rewarded, once the trainer's model is there to put a reward adapter on.
    """

    __name__ = "reward"

    def __init__(self, options: GroupOptions, prompts: int) -> None:
        self.options, self.prompts = options, prompts
        self.reward: Reward | None = None
        self.shared: TrainersBase | None = None

    def open(self, reward: Reward, shared: TrainersBase) -> None:
        self.reward, self.shared = reward, shared

    def __call__(
        self,
        prompts: Sequence[list[Message]],
        completion_ids: Sequence[list[int]],
        trainer_state: Any,
        log_metric: Callable[[str, float], None],
        **others: Any,
    ) -> list[float]:
        """One reward per completion, groups together.

        Raises RecipeError for a reward that is not finite, of which TRL would make no reward without a word, and
        when nothing has ever told one completion from another.
        """
        texts = [text_of(self.shared.tokenizer, ids) for ids in completion_ids]
        asked = [Prompt(messages, "") for messages in processes.all_of(prompts)]
        rewards = self.reward(asked, processes.all_of(texts))  # of the whole step
        self.shared.back_to_training()
        found = torch.tensor(rewards)  # (batch,)
        if not torch.isfinite(found).all():
            raise RecipeError(
                "A completion's reward is not finite. Train the reward model again, or choose another reward."
            )
        groups = found.view(-1, self.options.group_size)
        alike = float(((groups.amax(dim=1) - groups.amin(dim=1)) < SAME).float().mean())
        log_metric("groups_without_spread", alike)
        ends = end_tokens(self.shared.model, self.shared.tokenizer)
        log_metric("finished_share", sum(ids[-1] in ends for ids in completion_ids) / len(completion_ids))
        log_metric("repetition", sum(map(rollouts.repeated_share, texts)) / len(texts))
        self._refuse_without_spread(alike, float(found[0]), trainer_state)
        return processes.own_of(rewards)

    def _refuse_without_spread(self, alike: float, reward: float, state: Any) -> None:
        """Raise RecipeError after a pass over the prompts, or a run, in which no two rewards of a group differed."""
        step = state.global_step // training_loop.updates_per_step(self.options) + 1
        seen = step * prompts_per_step(self.options)
        if alike < 1 or (seen < self.prompts and step < self.options.steps):
            return
        if all(entry.get("groups_without_spread", 1.0) == 1.0 for entry in state.log_history):
            raise RecipeError(
                f"After {step} steps all completions to a prompt still have the same reward ({reward:g} at the end), "
                "so there is nothing to learn. Choose prompts that the model sometimes answers well, another "
                "reward, or a larger group_size."
            )


def open_trainer(
    trainer: RLOOTrainer | GRPOTrainer,
    rewards: GroupRewards,
    config: dict[str, Any],
    longest: int,
) -> TrainersBase:
    """Give a fresh trainer its reward, and forwards that cost less for equal results. Its model as a SharedBase."""
    options = rewards.options
    shared = TrainersBase(trainer, config.get("parent"))
    shared.temperature = options.temperature
    rewards.open(rollouts.open_reward(config, options, shared, Path(config["base"])), shared)
    shared.back_to_training()
    base_model = shared.model.get_base_model()
    base_model.set_attn_implementation(loading.attention_for(longest))
    completion_log_probs(base_model, options.temperature)
    shared.save_the_policy_alone()
    sample_by_row(trainer, shared, options, config["seed"])
    return shared


def sample_by_row(
    trainer: RLOOTrainer | GRPOTrainer, shared: TrainersBase, options: GroupOptions, seed: int
) -> None:
    """Have the trainer sample as PPO does: a completion depends on seed, step and its place in the step alone.

    TRL draws all of a process from one stream of random numbers, so that other processes, parts of a step or an
    evaluation in between would change what is sampled.
    """
    updates = training_loop.updates_per_step(options)

    @torch.no_grad()
    def generate(prompts: list[list[int]], *others: Any, **more: Any) -> Any:
        of_step = derived_seed(seed, "rollout", trainer.state.global_step // updates)
        rows = processes.all_of(prompts)
        seeds = [derived_seed(of_step, "row", place) for place in range(len(rows))]
        shared.model.eval()
        completions = processes.own_of(rollouts.write(shared, rows, options, seeds))
        shared.back_to_training()
        return (completions, None) if isinstance(trainer, GRPOTrainer) else completions

    trainer._generate_single_turn = generate


def train(
    trainer: Trainer, run: RunDir, options: GroupOptions, evaluate: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """`training_loop.train`, with the rewards of the first step and of the last five."""
    metrics = training_loop.train(trainer, run, options, evaluate)
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    return {**metrics, "first_reward": rewards[0], "last_reward": sum(rewards[-5:]) / len(rewards[-5:])}
