"""Train a reward model: a score per conversation, from pairs (Ouyang et al. 2022, https://arxiv.org/abs/2203.02155).

    python -m training.recipes.reward RUN_DIR

TRL's RewardTrainer with the loss -log sigmoid(score of chosen - score of rejected), on a LoRA adapter with a
score head of its own, or on all weights and a head (`weights`). Departures from the paper: LoRA by default; the
language model's own head is dropped, not kept beside; scores are not shifted to mean 0 (recipe.json holds mean and
spread, for whoever uses them as rewards). As in the paper, the pairs of a comparison share a batch; what they share is
computed once in each part of it. A margin by strength of preference (Touvron et al. 2023, 2307.09288, section 3.2.2)
and a pull of scores towards 0 (Eisenstein et al. 2023, 2312.09244) can be added to the loss.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from peft import PeftModel, TaskType, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl import RewardConfig, RewardTrainer

from training.recipes import held_out, loading, scoring, training_loop
from training.recipes.cutting import FEWEST, Row, learnable
from training.recipes.forward_once import score_once
from training.recipes.lora_layers import spare_passes
from training.recipes.options import parse_options
from training.recipes.pairs import Pair, read_pairs, training_order
from training.recipes.rendering import Message, conversation_ids
from training.recipes.run_dir import RunDir, run

# A score is the same to the bit after saving and loading on one processor. Cards may add up in another order.
RELOADED_WITHIN = 0.02


def main(run: RunDir) -> dict[str, Any]:
    options = parse_options("reward", run.config["options"])
    loading.be_quiet()
    loading.use_threads(run.config["threads"])
    base, parent = Path(run.config["base"]), run.config.get("parent")
    run.report_progress(0, options.steps, "loading")

    # Data: pairs as two rows of tokens. A row too long would lose its end, where the score is read: it is
    # left out.
    tokenizer = loading.load_tokenizer(base)
    # Before its data are rendered: another template would be blamed on them.
    loading.check_parent(parent, TaskType.SEQ_CLS, base, options)
    train, train_rows, cut = read(
        run.path / run.config["data"]["train"], tokenizer, options.max_length, FEWEST
    )
    test, test_rows, test_cut = read(
        run.path / run.config["data"]["held_out"], tokenizer, options.max_length, 1
    )
    order = training_order(train, options.steps, options.batch_size, run.config["seed"])

    # Model: the base with a fresh score head, which the seed decides, under LoRA unless all weights learn.
    set_seed(run.config["seed"])
    longest = max(len(row.ids) for sides in train_rows for row in sides)
    attention = loading.attention_for(longest)
    model = loading.load_reward_base(base, tokenizer, attention, loading.training_dtype(options))
    if parent is not None:
        model = PeftModel.from_pretrained(model, parent, is_trainable=True)
    elif options.weights == "lora":
        lora = loading.lora_config(options.lora_rank, options.lora_alpha, TaskType.SEQ_CLS)
        model = get_peft_model(model, lora)
    score_once(loading.without_adapter(model))

    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(
            **training_loop.trainer_settings(run, options),
            center_rewards_coefficient=options.center_weight or None,
            max_length=None,
        ),
        train_dataset=Dataset.from_list(
            [
                as_tokens(pair, sides, options.margin_per_strength)
                for pair, sides in zip(train, train_rows, strict=True)
            ]
        ),
        processing_class=tokenizer,
    )
    trainer.train_dataset = trainer.train_dataset.select(order)
    spare_passes(trainer.model)

    def evaluate() -> dict[str, Any]:
        scores = np.array(score_pairs(trainer.model, tokenizer, test_rows))  # (pairs, 2)
        margins = scores[:, 0] - scores[:, 1]
        return {
            **held_out.accuracy(margins.tolist(), test),
            "calibration_error": held_out.calibration_error(margins.tolist()),
            "human_ceiling": held_out.human_ceiling(margins.tolist(), test),
            "margin": float(margins.mean()),
            "score_mean": float(scores.mean()),
            "score_spread": float(scores.std()),
        }

    metrics = training_loop.train(trainer, run, options, evaluate)
    metrics["length_baseline"] = held_out.length_baseline(train, test)
    metrics |= {"train_pairs": len(train), **{name: cut[name] + test_cut[name] for name in cut}}

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
    output = training_loop.save_trained(trainer, run, facts)
    with run.clock.phase("saving"):
        reloaded = scoring.load_reward_model(base, output, tokenizer, attention)
        again = scoring.score_conversations(reloaded, tokenizer, scoring.PROBES)
    if not np.allclose(probes, again, rtol=RELOADED_WITHIN, atol=RELOADED_WITHIN):
        raise RuntimeError(f"the saved reward model scores {again} where the trained one scored {probes}")
    return metrics


def read(
    path: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, fewest: int
) -> tuple[list[Pair], list[tuple[Row, Row]], dict[str, int]]:
    """The pairs of a file that fit, their tokens as (chosen, rejected), and counts of what was left out."""
    pairs = read_pairs(path)
    rendered: dict[str, Row] = {}  # a completion is in several pairs

    def row(conversation: list[Message]) -> Row:
        key = json.dumps(conversation)
        if key not in rendered:
            rendered[key] = Row(0, tuple(conversation_ids(tokenizer, conversation)))
        return rendered[key]

    rows = [(row(pair.prompt + pair.chosen), row(pair.prompt + pair.rejected)) for pair in pairs]
    return learnable(pairs, rows, max_length, whole=True, fewest=fewest)


def as_tokens(pair: Pair, sides: tuple[Row, Row], margin_per_strength: float) -> dict[str, Any]:
    """A pair as RewardTrainer reads it. With a margin its scores must be that far apart before the loss is content:
    a pair of strength 1, or of which none is known, asks for none.
    """
    tokens: dict[str, Any] = {"chosen_ids": sides[0].ids, "rejected_ids": sides[1].ids}
    if margin_per_strength:
        tokens["margin"] = margin_per_strength * ((pair.strength or 1) - 1)
    return tokens


def score_pairs(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[tuple[Row, Row]]
) -> list[tuple[float, float]]:
    """(score of chosen, score of rejected) per pair; a completion in several pairs is scored once."""
    unique = sorted({row.ids for sides in rows for row in sides})
    scores = dict(
        zip(unique, scoring.score_rows(model, tokenizer, [list(ids) for ids in unique]), strict=True)
    )
    return [(scores[chosen.ids], scores[rejected.ids]) for chosen, rejected in rows]


if __name__ == "__main__":
    run("reward", main)
