"""RLOO and GRPO by the shortest script one would write with TRL alone: the baselines of `bench train` for both.

    python -m tests.benchmarks.by_hand_online rloo|grpo RUN_DIR

Reads the RUN_DIR of our recipe: same base, prompts in the same order, seed, options and reward. Prints the CPU-seconds
of the loop, and the mean loss and reward of the last five steps, which are what the recipe calls `last_loss` and
`last_reward`. A learned reward is not centred and scaled here, so the gradient of RLOO has another length.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any


def rloo(folder: Path) -> None:
    from trl import RLOOConfig, RLOOTrainer

    train(folder, "rloo", RLOOTrainer, RLOOConfig)


def grpo(folder: Path) -> None:
    from trl import GRPOConfig, GRPOTrainer

    train(folder, "grpo", GRPOTrainer, GRPOConfig)


def train(folder: Path, method: str, trainer_class: Any, config_class: Any) -> None:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.recipes.loading import compute_dtype
    from training.recipes.options import parse_options
    from training.recipes.prompts import prompt_order

    config = json.loads((folder / "config.json").read_text())
    options = parse_options(method, config["options"])
    rows = [json.loads(line) for line in (folder / config["data"]["train"]).read_text().split("\n") if line]
    order = prompt_order(len(rows), options.steps * options.batch_size // options.group_size, config["seed"])
    of_method = {"beta": options.beta}
    if method == "grpo":
        of_method |= {"loss_type": "grpo", "num_iterations": options.epochs, "epsilon": options.clip_range}
    trainer = trainer_class(
        model=AutoModelForCausalLM.from_pretrained(config["base"], dtype=compute_dtype()),
        processing_class=AutoTokenizer.from_pretrained(config["base"]),
        reward_funcs=reward(config, options),
        train_dataset=Dataset.from_list([{"prompt": rows[i]["prompt"]} for i in order]),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=options.lora_rank,
            lora_alpha=options.lora_alpha,
            target_modules="all-linear",
        ),
        args=config_class(
            output_dir=str(folder / "trl"),
            max_steps=options.steps * getattr(options, "epochs", 1),
            per_device_train_batch_size=options.micro_batch_size,
            gradient_accumulation_steps=options.batch_size // options.micro_batch_size,
            num_generations=options.group_size,
            max_completion_length=options.max_new_tokens,
            temperature=options.temperature,
            shuffle_dataset=False,
            learning_rate=options.learning_rate,
            lr_scheduler_type=options.schedule,
            warmup_steps=options.warmup_steps,
            max_grad_norm=options.max_grad_norm,
            seed=config["seed"],
            bf16=compute_dtype() == torch.bfloat16,
            use_cpu=not torch.cuda.is_available(),
            activation_checkpointing=torch.cuda.is_available(),
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **of_method,
        ),
    )
    before = time.process_time()
    trainer.train()
    print(f"\ncpu_seconds_loop {time.process_time() - before}")
    for name in ("loss", "reward"):
        found = [entry[name] for entry in trainer.state.log_history if name in entry]
        print(f"last_{name} {sum(found[-5:]) / len(found[-5:])}")


def reward(config: dict[str, Any], options: Any) -> Any:
    """What TRL is given: a function of texts for a reward that can be checked, else the reward model itself."""
    from training.recipes.rewards import check_of

    check = check_of(options)
    if check is not None:
        return lambda completions, **_: [check(messages[0]["content"]) for messages in completions]
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    from training.recipes.loading import compute_dtype

    judge = AutoModelForSequenceClassification.from_pretrained(
        config["base"], num_labels=1, dtype=compute_dtype()
    )
    return PeftModel.from_pretrained(judge, config["reward_model"]).merge_and_unload()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("rloo", "grpo"):
        sys.exit("usage: python -m tests.benchmarks.by_hand_online rloo|grpo RUN_DIR")
    {"rloo": rloo, "grpo": grpo}[sys.argv[1]](Path(sys.argv[2]))
