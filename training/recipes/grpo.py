"""Train a policy by group relative policy optimisation (Shao et al. 2024, arXiv 2402.03300) against a reward.

    python -m training.recipes.grpo RUN_DIR

TRL's GRPOTrainer. A step samples `group_size` completions to each of its prompts; the advantage of each is its reward
less the mean of its group, divided by the group's standard deviation, the same for all its tokens; the clipped loss
is averaged over the tokens of a completion, then over completions, and the KL to the reference is added per token
(equations 3 and 4). Departures from the paper: LoRA instead of all weights, AdamW; 0.0001 is added to the standard
deviation, whose divisor is one less than the group; learned rewards are centred and scaled, which only that 0.0001
can tell; the reference stays what it was at the start; rewards are for outcomes, not for the steps of a solution.

The reference is the base without the adapter, or with a frozen copy of the parent, and a reward model is a third
adapter on the same base (`groups.py`): the base is in memory once.
"""

from pathlib import Path
from typing import Any

from peft import TaskType
from transformers import set_seed
from trl import GRPOConfig, GRPOTrainer

from training.recipes import groups, loading, rollouts, training_loop
from training.recipes.fitting import refuse_unfit
from training.recipes.options import parse_options
from training.recipes.options_from_samples import GrpoOptions
from training.recipes.prompts import prompt_order, read_prompts
from training.recipes.run_dir import RunDir, run


def main(run: RunDir) -> dict[str, Any]:
    options: GrpoOptions = parse_options("grpo", run.config["options"])
    refuse_unfit(options)
    loading.be_quiet()
    loading.use_threads(run.config["threads"])
    base, parent, seed = Path(run.config["base"]), run.config.get("parent"), run.config["seed"]
    run.report_progress(0, options.steps, "loading")

    prompts = read_prompts(run.path / run.config["data"]["train"])
    test = read_prompts(run.path / run.config["data"]["held_out"])
    tokenizer = loading.load_tokenizer(base)
    longest = rollouts.longest_row(prompts + test, tokenizer, options)
    order = prompt_order(len(prompts), options.steps * groups.prompts_per_step(options), seed)

    set_seed(seed)
    if parent is not None:
        loading.check_adapter(Path(parent), TaskType.CAUSAL_LM, base)
    model, lora = loading.with_parent(loading.load_policy(base, tokenizer), parent, options)

    rewards = groups.GroupRewards(options, len(prompts))
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=rewards,
        args=GRPOConfig(
            **training_loop.trainer_settings(run, options),
            **groups.sampling_settings(options),
            beta=options.beta,
            num_iterations=options.epochs,
            epsilon=options.clip_range,
            scale_rewards="group",
            loss_type="grpo",
        ),
        train_dataset=groups.as_dataset(prompts, order, tokenizer),
        processing_class=tokenizer,
        peft_config=lora,
    )
    shared = groups.open_trainer(trainer, rewards, run.config, longest)
    held_out = rollouts.HeldOut(test, options, seed)

    def evaluate() -> dict[str, Any]:
        at_start = trainer.state.global_step == 0
        return shared.evaluate(held_out, rewards.reward, at_start=at_start)

    metrics = groups.train(trainer, run, options, evaluate)
    metrics["train_prompts"] = len(prompts)

    run.report_progress(options.steps, options.steps, "saving")
    facts = {"method": "grpo", "seed": seed, "options": run.config["options"]}
    training_loop.save_adapter(trainer.model, run, facts)
    return metrics


if __name__ == "__main__":
    run("grpo", main)
