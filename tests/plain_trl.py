"""The script one would write with TRL alone, for each method: what our recipes are compared with.

It reads the RUN_DIR of a recipe and trains with the same base, rows, order, seed, steps and LoRA, each step in one
part, so that losses are comparable step by step. Nothing of ours stands between the texts and TRL's trainer.
"""

import json
import time
from pathlib import Path
from typing import Any

from training.recipes.answers import answer_order, read_answers, read_outcomes
from training.recipes.options import parse_options
from training.recipes.pairs import read_pairs, training_order

NAMES = {"sft": "SFT", "reward": "Reward", "dpo": "DPO", "kto": "KTO"}


def train(folder: Path) -> tuple[list[float], float]:
    """(loss of each step, CPU-seconds of the loop)."""
    import torch
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        set_seed,
    )

    from training.recipes.loading import compute_dtype

    config = json.loads((folder / "config.json").read_text())
    method, seed = config["method"], config["seed"]
    options = parse_options(method, config["options"])
    if config.get("threads"):
        torch.set_num_threads(config["threads"])
    tokenizer = AutoTokenizer.from_pretrained(config["base"])
    set_seed(seed)
    if method == "reward":
        model = AutoModelForSequenceClassification.from_pretrained(
            config["base"], dtype=compute_dtype(), num_labels=1
        )
    else:
        model = AutoModelForCausalLM.from_pretrained(config["base"], dtype=compute_dtype())
    trainer = getattr(trl, f"{NAMES[method]}Trainer")(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(
            rows_in_order(folder / config["data"]["train"], method, options, seed)
        ),
        peft_config=LoraConfig(
            task_type="SEQ_CLS" if method == "reward" else "CAUSAL_LM",
            r=options.lora_rank,
            lora_alpha=options.lora_alpha,
            target_modules="all-linear",
            modules_to_save=["score"] if method == "reward" else None,
        ),
        args=getattr(trl, f"{NAMES[method]}Config")(
            **own_settings(method, options),
            output_dir=str(folder / "trl"),
            max_steps=options.steps,
            per_device_train_batch_size=options.batch_size,
            train_sampling_strategy="sequential",
            learning_rate=options.learning_rate,
            warmup_steps=options.warmup_steps,
            max_length=options.max_length,
            seed=seed,
            bf16=compute_dtype() == torch.bfloat16,
            use_cpu=not torch.cuda.is_available(),
            activation_checkpointing=torch.cuda.is_available(),
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
    )
    with (
        torch.no_grad()
    ):  # what torch does once is done before the clock runs, as a recipe's first evaluation does it
        model(input_ids=torch.ones((2, 32), dtype=torch.int64, device=model.device))
    before = time.process_time()
    trainer.train()
    seconds = time.process_time() - before
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], seconds


def own_settings(method: str, options: Any) -> dict[str, Any]:
    """What of TRL's configuration belongs to one method."""
    if method == "reward":
        return {"center_rewards_coefficient": options.center_weight or None}
    if method == "dpo":
        with_sft = bool(options.sft_weight)
        return {
            "beta": options.beta,
            "label_smoothing": options.flipped_share,
            "loss_type": [options.loss, "sft"] if with_sft else [options.loss],
            "loss_weights": [1.0, options.sft_weight] if with_sft else [1.0],
        }
    if method == "kto":
        return {name: getattr(options, name) for name in ("beta", "desirable_weight", "undesirable_weight")}
    return {}


def rows_in_order(path: Path, method: str, options: Any, seed: int) -> list[dict[str, Any]]:
    """Rows in TRL's form, in the order in which the recipe takes them."""
    count = options.steps * options.batch_size
    if method in ("sft", "kto"):
        answers = (read_answers if method == "sft" else read_outcomes)(path)
        rows = [{"prompt": a.prompt, "completion": a.completion} for a in answers]
        if method == "kto":
            rows = [row | {"label": answer.is_good} for row, answer in zip(rows, answers, strict=True)]
        order = answer_order(answers, count, seed)
    else:
        pairs = read_pairs(path)
        rows = [{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in pairs]
        if method == "reward" and options.margin_per_strength:
            margins = [options.margin_per_strength * ((pair.strength or 1) - 1) for pair in pairs]
            rows = [row | {"margin": margin} for row, margin in zip(rows, margins, strict=True)]
        order = training_order(pairs, options.steps, options.batch_size, seed)
    return [rows[place] for place in order]
