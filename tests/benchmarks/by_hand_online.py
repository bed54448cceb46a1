"""RLOO and GRPO by the shortest script one would write with TRL alone: the baselines of `bench train` for both.

It reads the RUN_DIR of our recipe: same base, prompts in the same order, seed, options and reward, which must be one
that a program can check. TRL draws its tokens from one stream of random numbers, ours has one for each row: the
completions are others, and with them the losses.
"""

import json
import time
from pathlib import Path


def train(folder: Path) -> tuple[list[float], float]:
    """(loss of each step, CPU-seconds of the loop)."""
    import torch
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    from training.recipes.loading import compute_dtype
    from training.recipes.options import parse_options
    from training.recipes.prompts import prompt_order
    from training.recipes.rewards import check_of

    config = json.loads((folder / "config.json").read_text())
    method = config["method"]
    options = parse_options(method, config["options"])
    rows = [json.loads(line) for line in (folder / config["data"]["train"]).read_text().split("\n") if line]
    order = prompt_order(len(rows), options.steps * options.batch_size // options.group_size, config["seed"])
    of_method = {"beta": options.beta}
    if method == "grpo":
        of_method |= {"loss_type": "grpo", "num_iterations": options.epochs, "epsilon": options.clip_range}
    check = check_of(options)
    set_seed(config["seed"])
    trainer = getattr(trl, f"{method.upper()}Trainer")(
        model=AutoModelForCausalLM.from_pretrained(config["base"], dtype=compute_dtype()),
        processing_class=AutoTokenizer.from_pretrained(config["base"]),
        reward_funcs=lambda completions, **_: [check(messages[0]["content"]) for messages in completions],
        train_dataset=Dataset.from_list([{"prompt": rows[i]["prompt"]} for i in order]),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=options.lora_rank,
            lora_alpha=options.lora_alpha,
            target_modules="all-linear",
        ),
        args=getattr(trl, f"{method.upper()}Config")(
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
            warmup_steps=options.warmup_steps * getattr(options, "epochs", 1),
            max_grad_norm=options.max_grad_norm,
            seed=config["seed"],
            bf16=compute_dtype() == torch.bfloat16,
            use_cpu=not torch.cuda.is_available(),
            activation_checkpointing=torch.cuda.is_available(),
            logging_steps=getattr(options, "epochs", 1),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **of_method,
        ),
    )
    before = time.process_time()
    trainer.train()
    seconds = time.process_time() - before
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], seconds
