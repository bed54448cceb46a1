"""Train a policy straight from pairs: Direct Preference Optimization (Rafailov et al. 2023, arXiv 2305.18290).

    python -m training.recipes.dpo RUN_DIR

TRL's DPOTrainer on a LoRA adapter; the reference model is the same model without the adapter, or with a
frozen copy of the parent adapter. Departures from the paper: LoRA instead of all weights, AdamW instead of
RMSprop and a higher learning rate to go with it; the pairs of a ranking share a batch, and each completion is
computed once in it.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel, TaskType
from transformers import PreTrainedTokenizerBase, set_seed
from trl import DPOConfig, DPOTrainer
from trl.trainer.utils import use_adapter

from training.recipes import held_out, loading, training_loop
from training.recipes.forward_once import completion_log_probs
from training.recipes.options import parse_options
from training.recipes.pairs import Pair, read_pairs, training_order
from training.recipes.rendering import neutralise_messages, prompt_ids
from training.recipes.run_dir import RecipeError, RunDir, run

Row = tuple[int, tuple[int, ...]]  # (number of prompt tokens, all tokens)
EVALUATED_TOGETHER = 16
FIRST_LOSS = float(np.log(2))  # the policy starts as its reference, so no pair has a margin yet


def main(run: RunDir) -> dict[str, Any]:
    options = parse_options("dpo", run.config["options"])
    loading.be_quiet()
    loading.use_threads(run.config["threads"])
    base, parent = Path(run.config["base"]), run.config.get("parent")
    run.report_progress(0, options.steps, "loading")

    train = read_pairs(run.path / run.config["data"]["train"])
    test = read_pairs(run.path / run.config["data"]["held_out"])
    tokenizer = loading.load_tokenizer(base)
    order = training_order(train, options.steps * options.batch_size, run.config["seed"])

    set_seed(run.config["seed"])
    model = loading.load_policy(base, tokenizer)
    lora = None
    if parent is None:
        lora = loading.lora_config(options.lora_rank, options.lora_alpha, TaskType.CAUSAL_LM)
    else:
        loading.check_adapter(Path(parent), TaskType.CAUSAL_LM, base)
        model = PeftModel.from_pretrained(model, parent, is_trainable=True)

    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(
            **training_loop.trainer_settings(run, options), beta=options.beta, max_length=options.max_length
        ),
        train_dataset=as_dataset(train, tokenizer),
        eval_dataset=as_dataset(test, tokenizer),
        processing_class=tokenizer,
        peft_config=lora,
    )
    refuse_dropped(trainer, train + test, tokenizer, options.max_length)
    train_rows, test_rows = completions_of(trainer.train_dataset), completions_of(trainer.eval_dataset)
    lengths = [max(len(chosen[1]), len(rejected[1])) for chosen, rejected in train_rows + test_rows]
    trainer.train_dataset = trainer.train_dataset.select(order)
    base_model = trainer.model.get_base_model()
    base_model.set_attn_implementation(loading.attention_for(min(max(lengths), options.max_length)))
    completion_log_probs(base_model)

    reference: dict[Row, float] = {}  # log p of each held-out completion: computed once, it does not change

    def evaluate() -> dict[str, Any]:
        if not reference:
            reference.update(log_probs(trainer, test_rows, of_reference=True))
        # At the start the policy is its reference, as the first loss will confirm: no need to compute it twice.
        policy = reference if trainer.state.global_step == 0 else log_probs(trainer, test_rows)
        gained = {row: policy[row] - reference[row] for row in policy}
        margins = options.beta * np.array(
            [gained[chosen] - gained[rejected] for chosen, rejected in test_rows]
        )
        return {**held_out.accuracy(margins.tolist(), test), "margin": float(margins.mean())}

    metrics = training_loop.train(trainer, run, options, evaluate)
    if abs(metrics["first_loss"] - FIRST_LOSS) > 0.02:
        raise RuntimeError(
            f"the first loss is {metrics['first_loss']:.4f}, not log 2: the reference is not the parent"
        )
    metrics |= {"train_pairs": len(train), "dropped": 0}
    metrics["truncated"] = sum(length > options.max_length for length in lengths)

    run.report_progress(options.steps, options.steps, "saving")
    facts = {"method": "dpo", "seed": run.config["seed"], "options": run.config["options"]}
    training_loop.save_adapter(trainer.model, run, facts)
    return metrics


def as_dataset(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Pairs in TRL's conversational format, control tokens neutralised; TRL applies the chat template itself."""
    fields = ("prompt", "chosen", "rejected")
    return Dataset.from_list(
        [{f: neutralise_messages(tokenizer, getattr(p, f)) for f in fields} for p in pairs]
    )


def refuse_dropped(
    trainer: DPOTrainer, pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> None:
    """Raise RecipeError when a prompt leaves its completions no room: TRL drops such pairs without a word."""
    if len(trainer.train_dataset) + len(trainer.eval_dataset) == len(pairs):
        return
    names = {pair.prompt_id for pair in pairs if len(prompt_ids(tokenizer, pair.prompt)) >= max_length}
    raise RecipeError(
        f"{len(names)} prompts alone fill max_length = {max_length} tokens, so nothing of their completions would be "
        f"learnt; one is {min(names)}. Raise max_length, or leave them out of the dataset."
    )


def completions_of(rows: Dataset) -> list[tuple[Row, Row]]:
    """(chosen, rejected) of each pair, as TRL has tokenised it."""
    return [
        (
            (len(row["prompt_ids"]), tuple(row["prompt_ids"] + row["chosen_ids"])),
            (len(row["prompt_ids"]), tuple(row["prompt_ids"] + row["rejected_ids"])),
        )
        for row in rows
    ]


@torch.no_grad()
def log_probs(
    trainer: DPOTrainer, pairs: Sequence[tuple[Row, Row]], of_reference: bool = False
) -> dict[Row, float]:
    """log p(completion | prompt) of every different row in `pairs`, under the policy or under its reference."""
    model = trainer.model.eval()
    rows = sorted({row for pair in pairs for row in pair}, key=lambda row: (len(row[1]), row))
    found: dict[Row, float] = {}
    adapter = (
        use_adapter(model, "ref" if "ref" in model.peft_config else None) if of_reference else nullcontext()
    )
    with adapter, trainer.compute_loss_context_manager():
        for start in range(0, len(rows), EVALUATED_TOGETHER):
            batch = rows[start : start + EVALUATED_TOGETHER]
            padded = trainer.processing_class.pad(
                {"input_ids": [list(ids[: trainer.args.max_length]) for _, ids in batch]},
                padding_side="right",
                return_tensors="pt",
            ).to(model.device)
            ids, mask = padded["input_ids"], padded["attention_mask"]  # (batch, seq)
            places = torch.arange(ids.shape[1], device=model.device)
            starts = torch.tensor([prompt for prompt, _ in batch], device=model.device)[:, None]
            labels = ids.masked_fill((mask == 0) | (places < starts), -100)
            output = model(
                input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True, use_cache=False
            )
            found |= zip(batch, output.log_probs.sum(dim=1).tolist(), strict=True)
    model.train()
    return found


if __name__ == "__main__":
    run("dpo", main)
