"""Options that are each in range and do not go together. Pure; refused before anything is queued."""

from typing import Any

from training.recipes.options_from_samples import RolloutOptions
from training.recipes.rewards import check_of
from training.recipes.run_dir import RecipeError
from training.recipes.training_options import TrainingOptions


def refuse_unfit(options: Any) -> None:
    """Raise RecipeError, naming the option and the remedy, when `options` can't work together."""
    group = getattr(options, "group_size", None)
    if group is not None and options.batch_size % group:
        raise RecipeError(
            f"batch_size is {options.batch_size}, which is no multiple of group_size = {group}. "
            f"Set batch_size to {max(group, options.batch_size // group * group)}, for example."
        )
    if isinstance(options, RolloutOptions):
        check_of(options)
        for option, reward in (("json_schema", "valid_json"), ("required_words", "required_words")):
            if getattr(options, option) and options.reward != reward:
                raise RecipeError(
                    f"{option} is given, which only the reward {reward} reads, and reward is {options.reward}. "
                    f"Leave {option} empty, or set reward to {reward}."
                )
        if options.max_new_tokens >= options.max_length:
            raise RecipeError(
                f"max_new_tokens is {options.max_new_tokens} and leaves a prompt no room within max_length = "
                f"{options.max_length}. Raise max_length, or lower max_new_tokens."
            )
    if getattr(options, "value_warmup_steps", 0) >= options.steps:
        raise RecipeError(
            f"value_warmup_steps is {options.value_warmup_steps}, and the policy learns only after it, so in "
            f"{options.steps} steps it would not learn at all. Raise steps, or lower value_warmup_steps."
        )
    if options.warmup_steps > options.steps:
        raise RecipeError(
            f"warmup_steps is {options.warmup_steps}, more than the {options.steps} steps there are, so the learning "
            f"rate would never reach its peak. Set warmup_steps to {options.steps // 10}, for example."
        )


def refuse_full_from_adapter(options: TrainingOptions) -> None:
    """Raise RecipeError when these options train all weights: for a run that would go on from an adapter."""
    if options.weights == "full":
        raise RecipeError(
            "weights is full, and the run would go on from a LoRA adapter, which is no whole model. Merge the adapter "
            "into its base and start from that, start from the base itself, or set weights to lora."
        )
