"""Train a reward model: a score per conversation, from pairs (Ouyang et al. 2022, https://arxiv.org/abs/2203.02155).

    python -m training.recipes.reward RUN_DIR

TRL's RewardTrainer with the loss -log sigmoid(score of chosen - score of rejected), on a LoRA adapter with a
score head of its own. Departures from the paper: LoRA instead of all weights; the language model's own head
is dropped, not kept beside; scores are not shifted to mean 0 (recipe.json holds mean and spread, for whoever
uses them as rewards). As in the paper, the pairs of a ranking share a batch and each completion is computed
once in it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from peft import PeftModel, TaskType, get_peft_model
from transformers import PreTrainedTokenizerBase, set_seed
from trl import RewardConfig, RewardTrainer

from training.recipes import held_out, loading, scoring, training_loop
from training.recipes.forward_once import share_equal_rows
from training.recipes.options import parse_options
from training.recipes.pairs import Pair, read_pairs, training_order
from training.recipes.rendering import Message, conversation_ids
from training.recipes.run_dir import RecipeError, RunDir, run

RELOADED_WITHIN = (
    0.02  # a score may move by this much over saving and loading: bfloat16 sums in another order
)


def main(run: RunDir) -> dict[str, Any]:
    options = parse_options("reward", run.config["options"])
    loading.be_quiet()
    loading.use_threads(run.config["threads"])
    base, parent = Path(run.config["base"]), run.config.get("parent")
    run.report_progress(0, options.steps, "loading")

    # Data: pairs as two rows of tokens. A row too long would lose its end, where the score is read: it is
    # left out.
    train = read_pairs(run.path / run.config["data"]["train"])
    test = read_pairs(run.path / run.config["data"]["held_out"])
    tokenizer = loading.load_tokenizer(base)
    train, train_rows, dropped = render(train, tokenizer, options.max_length)
    test, test_rows, test_dropped = render(test, tokenizer, options.max_length)
    order = training_order(train, options.steps * options.batch_size, run.config["seed"])

    # Model: the base with a fresh score head, which the seed decides, under LoRA.
    set_seed(run.config["seed"])
    longest = max(len(ids) for row in train_rows for ids in row.values())
    attention = loading.attention_for(longest)
    model = loading.load_reward_base(base, tokenizer, attention)
    if parent is None:
        lora = loading.lora_config(options.lora_rank, options.lora_alpha, TaskType.SEQ_CLS)
        model = get_peft_model(model, lora)
    else:
        loading.check_adapter(Path(parent), TaskType.SEQ_CLS, base)
        model = PeftModel.from_pretrained(model, parent, is_trainable=True)
    share_equal_rows(model.get_base_model())

    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(**training_loop.trainer_settings(run, options), max_length=None),
        train_dataset=Dataset.from_list(train_rows),
        processing_class=tokenizer,
    )
    trainer.train_dataset = trainer.train_dataset.select(order)

    def evaluate() -> dict[str, Any]:
        scores = np.array(score_pairs(trainer.model, tokenizer, test_rows))  # (pairs, 2)
        margins = scores[:, 0] - scores[:, 1]
        return {
            **held_out.accuracy(margins.tolist(), test),
            "margin": float(margins.mean()),
            "score_mean": float(scores.mean()),
            "score_spread": float(scores.std()),
        }

    metrics = training_loop.train(trainer, run, options, evaluate)
    metrics["length_baseline"] = held_out.length_baseline(train, test)
    metrics |= {"train_pairs": len(train), "truncated": 0, "dropped": dropped + test_dropped}

    # Save, then open it again the way everyone else will, and ask both the same questions.
    run.report_progress(options.steps, options.steps, "saving")
    probes = scoring.score_conversations(trainer.model, tokenizer, scoring.PROBES)
    facts = {
        "method": "reward",
        "seed": run.config["seed"],
        "options": run.config["options"],
        "score_mean": metrics["score_mean"],
        "score_spread": metrics["score_spread"],
        "probes": probes,
    }
    output = training_loop.save_adapter(trainer.model, run, facts)
    with run.clock.phase("saving"):
        reloaded = scoring.load_reward_model(base, output, tokenizer, attention)
        again = scoring.score_conversations(reloaded, tokenizer, scoring.PROBES)
    if not np.allclose(probes, again, rtol=RELOADED_WITHIN, atol=RELOADED_WITHIN):
        raise RuntimeError(f"the saved reward model scores {again} where the trained one scored {probes}")
    return metrics


def render(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[list[Pair], list[dict[str, list[int]]], int]:
    """Pairs as token rows: those that fit, their rows, and how many did not. Raises RecipeError when none fits."""
    kept, rows = [], []
    rendered: dict[str, list[int]] = {}  # a completion is in several pairs

    def render_once(conversation: list[Message]) -> list[int]:
        key = json.dumps(conversation)
        if key not in rendered:
            rendered[key] = conversation_ids(tokenizer, conversation)
        return rendered[key]

    for pair in pairs:
        chosen, rejected = render_once(pair.prompt + pair.chosen), render_once(pair.prompt + pair.rejected)
        if max(len(chosen), len(rejected)) <= max_length:
            kept.append(pair)
            rows.append({"chosen_ids": chosen, "rejected_ids": rejected})
    if not kept:
        raise RecipeError(
            f"All {len(pairs)} pairs are longer than max_length = {max_length} tokens. Raise max_length."
        )
    return kept, rows, len(pairs) - len(kept)


def score_pairs(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict[str, list[int]]]
) -> list[tuple[float, float]]:
    """(score of chosen, score of rejected) per pair; a completion in several pairs is scored once."""
    different = {tuple(ids) for row in rows for ids in row.values()}
    unique = sorted(different)
    scores = dict(
        zip(unique, scoring.score_rows(model, tokenizer, [list(ids) for ids in unique]), strict=True)
    )
    return [(scores[tuple(row["chosen_ids"])], scores[tuple(row["rejected_ids"])]) for row in rows]


if __name__ == "__main__":
    run("reward", main)
