"""Train a policy to write as people do: supervised fine-tuning (Ouyang et al. 2022, https://arxiv.org/abs/2203.02155).

    python -m training.recipes.sft RUN_DIR

TRL's SFTTrainer on a LoRA adapter, or on all weights (`weights`). The loss is on completions only: every token that
the chat template puts after the prompt, end of turn included, and none before. Departures from the paper: LoRA by
default and a higher learning rate to go with it; one pass or two instead of sixteen, and no dropout; the tokens of a
step weigh alike, so a long answer counts for more than a short one, as in TRL.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from peft import TaskType
from transformers import PreTrainedTokenizerBase, set_seed
from trl import SFTConfig, SFTTrainer

from training.recipes import held_out, loading, training_loop
from training.recipes.answers import Answer, answer_order, read_answers
from training.recipes.cutting import FEWEST, Row, learnable
from training.recipes.forward_once import completion_log_probs
from training.recipes.judging import judged_by_reward_model
from training.recipes.log_probs import log_probs
from training.recipes.lora_layers import spare_passes
from training.recipes.options import parse_options
from training.recipes.rendering import completion_rows
from training.recipes.run_dir import RecipeError, RunDir, run
from training.recipes.sampling import end_tokens


def main(run: RunDir) -> dict[str, Any]:
    options = parse_options("sft", run.config["options"])
    loading.be_quiet()
    loading.use_threads(run.config["threads"])
    base, parent = Path(run.config["base"]), run.config.get("parent")
    run.report_progress(0, options.steps, "loading")

    tokenizer = loading.load_tokenizer(base)
    # Before its data are rendered: another template would be blamed on them.
    loading.check_parent(parent, TaskType.CAUSAL_LM, base, options)
    train, train_rows, cut = read(
        run.path / run.config["data"]["train"], tokenizer, options.max_length, FEWEST
    )
    test, test_rows, test_cut = read(
        run.path / run.config["data"]["held_out"], tokenizer, options.max_length, 1
    )
    order = answer_order(train, options.steps * options.batch_size, run.config["seed"])

    set_seed(run.config["seed"])
    model = loading.load_policy(base, tokenizer, dtype=loading.training_dtype(options))
    refuse_endless(train_rows, end_tokens(model, tokenizer), tokenizer)
    model, lora = loading.with_parent(model, parent, options)

    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**training_loop.trainer_settings(run, options), max_length=None),
        train_dataset=Dataset.from_list([with_labels(row, options.max_length) for row in train_rows]),
        processing_class=tokenizer,
        peft_config=lora,
    )
    trainer.train_dataset = trainer.train_dataset.select(order)
    spare_passes(trainer.model)
    longest = min(max(len(row.ids) for row in train_rows + test_rows), options.max_length)
    base_model = loading.without_adapter(trainer.model)
    base_model.set_attn_implementation(loading.attention_for(longest))
    completion_log_probs(base_model)
    judged = judged_by_reward_model(run, trainer, options, test)

    def evaluate() -> dict[str, Any]:
        found = log_probs(trainer, test_rows, options.max_length)
        tokens = [min(len(row.ids), options.max_length) - row.prompt for row in test_rows]
        losses = [-found[row] for row in test_rows]
        return {**loss_per_token(losses, tokens, test), **judged()}

    metrics = training_loop.train(trainer, run, options, evaluate)
    metrics |= {"train_answers": len(train), **{name: cut[name] + test_cut[name] for name in cut}}

    run.report_progress(options.steps, options.steps, "saving")
    facts = {"method": "sft", "seed": run.config["seed"], "options": run.config["options"]}
    training_loop.save_trained(trainer, run, facts)
    return metrics


def read(
    path: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, fewest: int
) -> tuple[list[Answer], list[Row], dict[str, int]]:
    """The answers of a file, their tokens, and counts of what was cut."""
    answers = read_answers(path)
    rows = completion_rows(tokenizer, [(answer.prompt, answer.completion) for answer in answers])
    answers, sides, counts = learnable(answers, [(row,) for row in rows], max_length, fewest=fewest)
    return answers, [row for (row,) in sides], counts


def refuse_endless(rows: Sequence[Row], ends: set[int], tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise RecipeError when the chat template does not end an answer: the policy would learn to go on for ever."""
    if not ends & set(rows[0].ids[rows[0].prompt :]):
        names = ", ".join(sorted(tokenizer.convert_ids_to_tokens(list(ends))))
        raise RecipeError(
            f"The model's chat template puts none of {names} after an answer, so the policy would never learn to stop. "
            "Name the template's end of turn as eos_token_id in generation_config.json."
        )


def with_labels(row: Row, max_length: int) -> dict[str, list[int]]:
    """A row as SFTTrainer reads it, cut to `max_length`; -100 marks tokens without a loss."""
    ids = list(row.ids[:max_length])
    return {"input_ids": ids, "labels": [-100] * row.prompt + ids[row.prompt :]}


def loss_per_token(
    losses: Sequence[float], tokens: Sequence[int], answers: Sequence[Answer]
) -> dict[str, Any]:
    """Mean loss per token in nats and its perplexity, with the loss's interval resampled by prompt.

    `losses` are sums over the `tokens` of each answer.
    """
    mean = sum(losses) / sum(tokens)
    low, high = held_out.interval_by_cluster(losses, [answer.prompt_id for answer in answers], sizes=tokens)
    return {
        "loss": mean,
        "interval": [low, high],
        "perplexity": float(np.exp(mean)),  # infinite rather than an error when training went wrong
        "answers": len(answers),
        "tokens": sum(tokens),
    }


if __name__ == "__main__":
    run("sft", main)
