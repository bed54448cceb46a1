"""What a reward model thinks of a policy that learns from data: measured as those that learn from rewards are.

SFT, DPO and KTO need no reward model. A run that is given one also has the policy answer held-out prompts, before and
after training, and tells the reward, KL, length and win rate of its answers, and best-of-4 of the parent beside.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import Trainer

from training.recipes import rollouts
from training.recipes.answers import Answer
from training.recipes.options_from_data import PolicyOptions
from training.recipes.options_from_samples import RolloutOptions
from training.recipes.pairs import Pair
from training.recipes.prompts import Prompt
from training.recipes.rendering import prompt_ids
from training.recipes.run_dir import RecipeError, RunDir
from training.recipes.trainers_base import TrainersBase

MOST_PROMPTS = 128  # that are answered: each costs six completions, five of them by the parent
Measure = Callable[[], dict[str, Any]]


def judged_by_reward_model(
    run: RunDir, trainer: Trainer, options: PolicyOptions, rows: Sequence[Pair | Answer]
) -> Measure:
    """What measures the policy in `trainer` on the prompts of held-out `rows`; it finds nothing without a reward model.

    The figures are those of `rollouts.HeldOut`, but the win rate with its interval stands in an object `judged`, as
    such a run has another figure to be judged by. Training goes on as if nothing had been measured. Raises RecipeError
    when no prompt leaves room for an answer, or the reward model does not fit.
    """
    if not run.config.get("reward_model"):
        return dict
    if options.weights == "full":
        raise RecipeError(
            "A reward model to measure by is worn as an adapter beside the policy's, and here all weights are trained. "
            "Leave it out, or set weights to lora."
        )
    base = Path(run.config["base"])
    shared = TrainersBase(trainer, run.config.get("parent"))
    of_answers = RolloutOptions(
        max_new_tokens=options.judged_tokens,
        max_length=options.max_length,
        micro_batch_size=options.micro_batch_size,
    )
    reward = rollouts.open_reward(run.config, of_answers, shared, base)
    shared.back_to_training()
    shared.save_the_policy_alone()
    held_out = rollouts.HeldOut(prompts_with_room(rows, trainer, options), of_answers, run.config["seed"])

    def measure() -> dict[str, Any]:
        found = shared.evaluate(held_out, reward, at_start=trainer.state.global_step == 0)
        found["judged"] = {name: found.pop(name) for name in ("win_rate", "interval", "prompts")}
        return found

    return measure


def prompts_with_room(
    rows: Sequence[Pair | Answer], trainer: Trainer, options: PolicyOptions
) -> list[Prompt]:
    """The different prompts of the rows, at most MOST_PROMPTS, that leave room for an answer."""
    room = options.max_length - options.judged_tokens
    different = {row.prompt_id: Prompt(row.prompt, row.prompt_id) for row in rows}.values()
    fitting = [
        prompt for prompt in different if len(prompt_ids(trainer.processing_class, prompt.messages)) <= room
    ]
    if not fitting:
        raise RecipeError(" ".join(no_room(options.judged_tokens, options.max_length)))
    return fitting[:MOST_PROMPTS]


def no_room(judged_tokens: int, max_length: int) -> tuple[str, str]:
    """What is wrong, and what to do."""
    return (
        f"No held-out prompt leaves room for an answer of judged_tokens = {judged_tokens} within max_length = "
        f"{max_length}, so the reward model would have nothing to judge.",
        "Raise max_length, lower judged_tokens, or leave the reward model out.",
    )
