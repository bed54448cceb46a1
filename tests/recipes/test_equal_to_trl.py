"""What the recipes save on computing changes nothing: their losses are those of TRL's own trainers, step by step."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.recipes.runs import make_training_run, metrics_of, run_here, some_outcomes, write_pairs
from training.recipes.answers import answer_order, read_answers, read_outcomes
from training.recipes.options import parse_options
from training.recipes.pairs import read_pairs, training_order

STEPS = 3
BOTH_REWARD_OPTIONS = {"margin_per_strength": 0.5, "center_weight": 0.01, "learning_rate": 0.001}
ROBUST = {"loss": "robust", "flipped_share": 0.2, "sft_weight": 0.5}
KTO_WEIGHTS = {"desirable_weight": 1.5, "undesirable_weight": 0.8}


@pytest.mark.parametrize(
    ("method", "own"),
    [
        ("sft", {}),
        ("reward", BOTH_REWARD_OPTIONS),
        ("dpo", {}),
        ("dpo", {"loss": "ipo"}),
        ("dpo", ROBUST),
        ("kto", KTO_WEIGHTS),
    ],
)
def test_its_losses_are_those_of_plain_trl(tiny_model, tmp_path, method, own):
    options = {"steps": STEPS, "batch_size": 8, "learning_rate": 0.003, **own}
    folder = make_training_run(tmp_path / "run", method, tiny_model, options=options)
    if method == "kto":  # each completion has a prompt of its own, so that TRL pairs none with its own prompt
        rows = [row for number in range(16) for row in some_outcomes(1, seed=number)[number % 4 :][:1]]
        write_pairs(folder / "train.jsonl", rows)
    if method == "reward":
        lines = (folder / "train.jsonl").read_text().splitlines()
        rows = [json.loads(line) | {"strength": (None, 1, 2, 3)[i % 4]} for i, line in enumerate(lines)]
        write_pairs(folder / "train.jsonl", rows)
    run_here(folder)
    ours = [line["value"] for line in metrics_of(folder) if line["name"] == "loss"]
    assert ours == pytest.approx(losses_of_plain_trl(folder, method), rel=1e-3, abs=1e-3)


def losses_of_plain_trl(folder: Path, method: str) -> list[float]:
    """Losses of each step by a bare script on the same rows in the same order: texts in, nothing of ours between."""
    import torch
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, set_seed

    from training.recipes.loading import Float32Head, compute_dtype

    config = json.loads((folder / "config.json").read_text())
    options, seed = parse_options(method, config["options"]), config["seed"]
    rows, order = rows_and_order(folder / "train.jsonl", method, options, seed)
    named: dict[str, Any] = {}
    if method == "reward":
        named["center_rewards_coefficient"] = options.center_weight
    else:
        named["max_length"] = options.max_length
    if method == "dpo":
        named |= {"beta": options.beta, "label_smoothing": options.flipped_share}
        named["loss_type"] = [options.loss, "sft"] if options.sft_weight else [options.loss]
        named["loss_weights"] = [1.0, options.sft_weight] if options.sft_weight else [1.0]
    if method == "kto":
        named |= {name: getattr(options, name) for name in ("beta", "desirable_weight", "undesirable_weight")}
    settings = {
        "output_dir": str(folder / "trl"),
        "max_steps": options.steps,
        "per_device_train_batch_size": options.batch_size,
        "train_sampling_strategy": "sequential",
        "learning_rate": options.learning_rate,
        "max_grad_norm": options.max_grad_norm,
        "seed": seed,
        "bf16": compute_dtype() == torch.bfloat16,
        "use_cpu": True,
        "activation_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    name = {"sft": "SFT", "reward": "Reward", "dpo": "DPO", "kto": "KTO"}[method]
    tokenizer = AutoTokenizer.from_pretrained(config["base"])
    is_reward = method == "reward"
    set_seed(seed)
    kind = AutoModelForSequenceClassification if is_reward else AutoModelForCausalLM
    model = kind.from_pretrained(
        config["base"],
        dtype=compute_dtype(),
        attn_implementation="eager",
        **({"num_labels": 1} if is_reward else {}),
    )
    if is_reward:
        model.config.pad_token_id = tokenizer.pad_token_id
        model.score = Float32Head(model.score)
    trainer = getattr(trl, f"{name}Trainer")(
        model=model,
        args=getattr(trl, f"{name}Config")(**settings, **named),
        train_dataset=Dataset.from_list([rows[place] for place in order]),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            task_type="SEQ_CLS" if is_reward else "CAUSAL_LM",
            r=options.lora_rank,
            lora_alpha=options.lora_alpha,
            target_modules="all-linear",
            modules_to_save=["score"] if is_reward else None,
        ),
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def rows_and_order(
    path: Path, method: str, options: Any, seed: int
) -> tuple[list[dict[str, Any]], list[int]]:
    """Rows in TRL's form, and the order in which the recipe takes them."""
    count = options.steps * options.batch_size
    if method in ("sft", "kto"):
        answers = (read_answers if method == "sft" else read_outcomes)(path)
        rows = [{"prompt": a.prompt, "completion": a.completion} for a in answers]
        if method == "kto":
            rows = [row | {"label": answer.is_good} for row, answer in zip(rows, answers, strict=True)]
        return rows, answer_order(answers, count, seed)
    pairs = read_pairs(path)
    rows = [{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in pairs]
    if method == "reward":
        rows = [
            row | {"margin": options.margin_per_strength * ((pair.strength or 1) - 1)}
            for row, pair in zip(rows, pairs, strict=True)
        ]
    return rows, training_order(pairs, count, seed)
