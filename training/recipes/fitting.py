"""Options that are each in range and do not go together. Pure; refused before anything is queued."""

from typing import Any

from training.recipes.options_from_data import KtoOptions
from training.recipes.options_from_samples import PpoOptions, RolloutOptions
from training.recipes.rewards import check_of
from training.recipes.run_dir import RecipeError
from training.recipes.training_options import TrainingOptions, share_of_step

NO_WHOLE_MODEL = (
    "To sample, each card needs the whole model, and under FSDP2 it has a piece. Train by the settings of DDP or "
    "DeepSpeed ZeRO-2; or, where a reward model only measures, without it."
)


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
    if isinstance(options, PpoOptions):
        _refuse_a_controller_that_fails(options)
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


def _refuse_a_controller_that_fails(options: PpoOptions) -> None:
    """Raise RecipeError when the coefficient on the KL could never rise, or would change its sign in one step."""
    if options.kl_target and not options.kl_coefficient:
        raise RecipeError(
            f"kl_coefficient is 0, and what steers it towards kl_target = {options.kl_target:g} multiplies it, so it "
            "would stay 0. Set kl_coefficient above 0, or kl_target to 0, too."
        )
    if options.kl_target and options.kl_horizon < options.batch_size:
        raise RecipeError(
            f"kl_horizon is {options.kl_horizon}, fewer than the {options.batch_size} completions of one step, so the "
            f"KL coefficient would swing from step to step. Set kl_horizon to {10 * options.batch_size}, for example."
        )


def refuse_unshared(options: Any, *, processes: int, is_sharded: bool, samples: bool) -> None:
    """Raise RecipeError when so many processes can't train by these options.

    `is_sharded` is true where each has a piece of the model; `samples` of a policy that writes while it trains, to
    learn from what it wrote or to be measured by it.
    """
    if isinstance(options, PpoOptions):  # divides its work by hand
        return
    together, _ = share_of_step(options.batch_size, options.micro_batch_size, processes)
    if isinstance(options, KtoOptions):
        refuse_alone(options, together, processes)
    if samples and is_sharded:
        raise RecipeError(NO_WHOLE_MODEL)


def refuse_alone(options: KtoOptions, together: int, processes: int) -> None:
    """Raise RecipeError when each process would compute one completion at a time, which TRL's trainer refuses."""
    if together < 2:
        raise RecipeError(
            f"Of a batch_size of {options.batch_size}, each of {processes} processes would compute one completion at a "
            "time, and TRL's KTO computes no fewer than 2. Raise batch_size."
        )


def refuse_full_from_adapter(options: TrainingOptions) -> None:
    """Raise RecipeError when these options train all weights: for a run that would go on from an adapter."""
    if options.weights == "full":
        raise RecipeError(
            "weights is full, and the run would go on from a LoRA adapter, which is no whole model. Merge the adapter "
            "into its base (manage.py export_checkpoint --merge) and start from that (manage.py register_base), start "
            "from the base itself, or set weights to lora."
        )
