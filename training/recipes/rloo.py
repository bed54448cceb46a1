"""Train a policy by REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024, arXiv 2402.14740) against a reward.

    python -m training.recipes.rloo RUN_DIR

TRL's RLOOTrainer. A step samples `group_size` completions to each of its prompts, takes beta times the KL to the
reference off the reward of each, and compares it with the mean of the others to the same prompt; what is left over
weighs the gradient of the whole completion's log-probability. Departures from the paper: LoRA instead of all weights,
AdamW; learned rewards are centred and scaled by what the reward model gave its own held-out completions; TRL's ratio
to the policy that sampled is clipped at 0.2, but with one update per step it is 1.

The reference is the base without the adapter, or with a frozen copy of the parent, and a reward model is a third
adapter on the same base (`groups.py`): the base is in memory once.
"""

from pathlib import Path
from typing import Any

from peft import TaskType
from transformers import set_seed
from trl import RLOOConfig, RLOOTrainer

from training.recipes import groups, loading, rollouts, training_loop
from training.recipes.fitting import refuse_unfit
from training.recipes.options import parse_options
from training.recipes.options_from_samples import RlooOptions
from training.recipes.prompts import prompt_order, read_prompts
from training.recipes.run_dir import RunDir, run


def main(run: RunDir) -> dict[str, Any]:
    options: RlooOptions = parse_options("rloo", run.config["options"])
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
    trainer = RLOOTrainer(
        model=model,
        reward_funcs=rewards,
        args=RLOOConfig(
            **training_loop.trainer_settings(run, options),
            **groups.sampling_settings(options),
            beta=options.beta,
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
    facts = {"method": "rloo", "seed": seed, "options": run.config["options"]}
    training_loop.save_adapter(trainer.model, run, facts)
    return metrics


if __name__ == "__main__":
    run("rloo", main)
