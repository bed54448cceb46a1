"""Train a policy straight from pairs: Direct Preference Optimization (Rafailov et al. 2023, arXiv 2305.18290).

    python -m training.recipes.dpo RUN_DIR

TRL's DPOTrainer on a LoRA adapter; the reference model is the same model without the adapter, or with a
frozen copy of the parent adapter. Where all weights learn (`weights`), it is a frozen copy of the whole model.
Departures from the paper: LoRA by default, AdamW instead of RMSprop and a higher learning rate to go with LoRA; the
pairs of a comparison share a batch, and what they share is computed once in each part of it. Two other losses can take
the place of its own: IPO (Azar et al. 2023, 2310.12036), as in TRL on log-probabilities per token, and robust DPO
(Chowdhury et al. 2024, 2403.00409); and the plain loss on chosen completions can be added (Pang et al. 2024,
2404.19733).
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from peft import TaskType
from transformers import PreTrainedTokenizerBase, set_seed
from trl import DPOConfig, DPOTrainer

from training.recipes import held_out, loading, training_loop
from training.recipes.cutting import FEWEST, Row, learnable
from training.recipes.forward_once import completion_log_probs
from training.recipes.judging import judged_by_reward_model
from training.recipes.log_probs import log_probs
from training.recipes.lora_layers import spare_passes
from training.recipes.options import parse_options
from training.recipes.options_from_data import DpoOptions
from training.recipes.pairs import Pair, read_pairs, training_order
from training.recipes.rendering import completion_rows
from training.recipes.run_dir import RunDir, run

AT_START = 0.02  # how far from its due the first loss or margin may be: bfloat16 rounds


def main(run: RunDir) -> dict[str, Any]:
    options = parse_options("dpo", run.config["options"])
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
    order = training_order(train, options.steps, options.batch_size, run.config["seed"])

    set_seed(run.config["seed"])
    dtype = loading.training_dtype(options)
    model, lora = loading.with_parent(loading.load_policy(base, tokenizer, dtype=dtype), parent, options)
    frozen = None  # under LoRA the model is its own reference
    if options.weights == "full":
        frozen = loading.load_policy(base, tokenizer, dtype=dtype).requires_grad_(False)

    trainer = TrainerOnTokens(
        model=model,
        ref_model=frozen,
        args=DPOConfig(
            **training_loop.trainer_settings(run, options),
            **loss_settings(options),
            beta=options.beta,
            max_length=options.max_length,
        ),
        train_dataset=Dataset.from_list([as_tokens(chosen, rejected) for chosen, rejected in train_rows]),
        processing_class=tokenizer,
        peft_config=lora,
    )
    trainer.train_dataset = trainer.train_dataset.select(order)
    spare_passes(trainer.model)
    longest = max(len(row.ids) for sides in train_rows + test_rows for row in sides)
    attention = loading.attention_for(min(longest, options.max_length))
    for each in filter(None, (loading.without_adapter(trainer.model), frozen)):
        each.set_attn_implementation(attention)
        completion_log_probs(each)
    if frozen is not None:  # under autocast like the policy: TRL had put there what has just been replaced
        frozen.forward = trainer.accelerator.autocast()(frozen.forward)

    judged = judged_by_reward_model(run, trainer, options, test)
    completions = [row for sides in test_rows for row in sides]
    reference: dict[Row, float] = {}  # log p of each held-out completion: computed once, it does not change

    def evaluate() -> dict[str, Any]:
        if not reference:
            reference.update(log_probs(trainer, completions, options.max_length, of_reference=True))
        # At the start the policy is its reference, as the first loss will confirm: no need to compute it twice.
        at_start = trainer.state.global_step == 0
        policy = reference if at_start else log_probs(trainer, completions, options.max_length)
        gained = {row: policy[row] - reference[row] for row in policy}
        margins = options.beta * np.array(
            [gained[chosen] - gained[rejected] for chosen, rejected in test_rows]
        )
        found = {**held_out.accuracy(margins.tolist(), test), "margin": float(margins.mean())}
        return {**found, **judged()}

    metrics = training_loop.train(trainer, run, options, evaluate)
    logged = trainer.state.log_history
    refuse_wrong_start(options, next(entry for entry in logged if "rewards/margins" in entry))
    metrics |= {"train_pairs": len(train), **{name: cut[name] + test_cut[name] for name in cut}}

    run.report_progress(options.steps, options.steps, "saving")
    facts = {"method": "dpo", "seed": run.config["seed"], "options": run.config["options"]}
    training_loop.save_trained(trainer, run, facts)
    return metrics


class TrainerOnTokens(DPOTrainer):
    """TRL's trainer on rows that are tokens already."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset


def read(
    path: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, fewest: int
) -> tuple[list[Pair], list[tuple[Row, Row]], dict[str, int]]:
    """The pairs of a file, their tokens as (chosen, rejected), and counts of what was cut."""
    pairs = read_pairs(path)
    chosen = completion_rows(tokenizer, [(pair.prompt, pair.chosen) for pair in pairs])
    rejected = completion_rows(tokenizer, [(pair.prompt, pair.rejected) for pair in pairs])
    return learnable(pairs, list(zip(chosen, rejected, strict=True)), max_length, fewest=fewest)


def as_tokens(chosen: Row, rejected: Row) -> dict[str, tuple[int, ...]]:
    """A pair as DPOTrainer reads it."""
    return {
        "prompt_ids": chosen.ids[: chosen.prompt],
        "chosen_ids": chosen.ids[chosen.prompt :],
        "rejected_ids": rejected.ids[rejected.prompt :],
    }


def loss_settings(options: DpoOptions) -> dict[str, Any]:
    """Which losses TRL adds up, and how: sigmoid and ipo with beta, robust with the share of flipped judgments too."""
    losses, weights = [options.loss], [1.0]
    if options.sft_weight:
        losses, weights = [*losses, "sft"], [*weights, options.sft_weight]
    return {"loss_type": losses, "loss_weights": weights, "label_smoothing": options.flipped_share}


def refuse_wrong_start(options: DpoOptions, first: dict[str, float]) -> None:
    """Raise RuntimeError unless the policy started as its reference: `first` is what TRL logged of the first step.

    Then no pair has a margin yet, and the loss is what that makes it. The plain loss on chosen completions, when it is
    added, is not known beforehand, but never negative.
    """
    due = loss_without_margin(options)
    beyond = first["loss"] - due
    near = AT_START * max(1.0, due)
    if (
        abs(first["rewards/margins"]) > AT_START
        or beyond < -near
        or (beyond > near and not options.sft_weight)
    ):
        raise RuntimeError(
            f"the first loss is {first['loss']:.4f} at a margin of {first['rewards/margins']:.4f}, not {due:.4f} at 0: "
            "the reference is not the parent"
        )


def loss_without_margin(options: DpoOptions) -> float:
    """What the preference loss is when chosen and rejected have gained alike."""
    return 1 / (2 * options.beta) ** 2 if options.loss == "ipo" else math.log(2)


if __name__ == "__main__":
    run("dpo", main)
