"""Train a policy from completions called good or bad: Kahneman-Tversky Optimization (Ethayarajh et al. 2024,
arXiv 2402.01306).

    python -m training.recipes.kto RUN_DIR

TRL's KTOTrainer on a LoRA adapter; the reference model is the same model without the adapter, or with a frozen copy
of the parent adapter. A completion gains or loses against a zero point: how far the policy has moved, on average, on
completions put to prompts they do not belong to. It is estimated from all completions of a step, however few of them
are computed together and by however many processes; TRL's is that of what is computed together, of which a small
micro_batch_size makes noise. Departures from the paper: LoRA instead of all weights, AdamW instead of RMSprop and a
higher learning rate to go with it; completions of one prompt may share a step, and are then kept from being put to
their own prompt.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import TaskType
from transformers import PreTrainedTokenizerBase, set_seed
from trl import KTOConfig, KTOTrainer
from trl.trainer.utils import use_adapter

from training.recipes import held_out, loading, processes, training_loop
from training.recipes.answers import (
    Answer,
    answer_order,
    put_to_other_prompts,
    read_outcomes,
    refuse_one_class,
)
from training.recipes.cutting import FEWEST, Row, learnable
from training.recipes.fitting import refuse_alone
from training.recipes.forward_once import completion_log_probs
from training.recipes.judging import judged_by_reward_model
from training.recipes.log_probs import log_probs
from training.recipes.lora_layers import spare_passes
from training.recipes.options import parse_options
from training.recipes.rendering import completion_rows
from training.recipes.run_dir import RunDir, run


def main(run: RunDir) -> dict[str, Any]:
    options = parse_options("kto", run.config["options"])
    loading.be_quiet()
    loading.use_threads(run.config["threads"])
    base, parent = Path(run.config["base"]), run.config.get("parent")
    run.report_progress(0, options.steps, "loading")

    tokenizer = loading.load_tokenizer(base)
    if parent is not None:  # before its data are rendered: another template would be blamed on them
        loading.check_adapter(Path(parent), TaskType.CAUSAL_LM, base)
    train_file, test_file = (run.path / run.config["data"][split] for split in ("train", "held_out"))
    train, train_rows, cut = read(train_file, tokenizer, options.max_length, FEWEST)
    test, test_rows, test_cut = read(test_file, tokenizer, options.max_length, 1)
    refuse_one_class([outcome.is_good for outcome in train], train_file.name)
    order = answer_order(train, options.steps * options.batch_size, run.config["seed"])

    set_seed(run.config["seed"])
    model, lora = loading.with_parent(loading.load_policy(base, tokenizer), parent, options)

    together, _ = training_loop.rows_together(options)
    refuse_alone(options, together, processes.COUNT)
    trainer = TrainerOnTokens(
        model=model,
        args=KTOConfig(
            **training_loop.trainer_settings(run, options),
            beta=options.beta,
            desirable_weight=options.desirable_weight,
            undesirable_weight=options.undesirable_weight,
            max_length=options.max_length,
        ),
        train_dataset=Dataset.from_list(in_order(train, train_rows, order, options.batch_size)),
        processing_class=tokenizer,
        peft_config=lora,
    )
    longest = max(row.prompt for row in train_rows) + max(len(row.ids) - row.prompt for row in train_rows)
    spare_passes(trainer.model)
    base_model = trainer.model.get_base_model()
    base_model.set_attn_implementation(loading.attention_for(min(longest, options.max_length)))
    completion_log_probs(base_model)
    judged = judged_by_reward_model(run, trainer, options, test)

    reference: dict[Row, float] = {}  # log p of each held-out completion: computed once, it does not change

    def evaluate() -> dict[str, Any]:
        if not reference:
            reference.update(log_probs(trainer, test_rows, options.max_length, of_reference=True))
        # At the start the policy is its reference: no need to compute it twice.
        at_start = trainer.state.global_step == 0
        policy = reference if at_start else log_probs(trainer, test_rows, options.max_length)
        gained = [options.beta * (policy[row] - reference[row]) for row in test_rows]
        return {**held_out.good_over_bad(gained, test), **judged()}

    metrics = training_loop.train(trainer, run, options, evaluate)
    good = sum(outcome.is_good for outcome in train)
    metrics |= {"train_good": good, "train_bad": len(train) - good}
    metrics |= {name: cut[name] + test_cut[name] for name in cut}

    run.report_progress(options.steps, options.steps, "saving")
    facts = {"method": "kto", "seed": run.config["seed"], "options": run.config["options"]}
    training_loop.save_adapter(trainer.model, run, facts)
    return metrics


class TrainerOnTokens(KTOTrainer):
    """TRL's trainer on rows that are tokens already, each with its completion from another prompt.

    Its zero point is that of the whole step: TRL's would be that of each part, averaged over the processes.
    """

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset

    def get_batch_samples(self, *args: Any) -> tuple[list[dict[str, Any]], Any]:
        """The parts of the next step; nothing is learnt between them, so all of them have one zero point."""
        parts, counted = super().get_batch_samples(*args)
        base = self.accelerator.unwrap_model(self.model)
        with self.compute_loss_context_manager():
            policy = [self._log_probs_elsewhere(part) for part in parts]
            with use_adapter(base, "ref" if "ref" in base.peft_config else None):
                reference = [self._log_probs_elsewhere(part) for part in parts]
        self.zero_point = (torch.cat(policy) - torch.cat(reference)).mean()
        return parts, counted

    def _log_probs_elsewhere(self, part: dict[str, Any]) -> torch.Tensor:
        """(rows,) log-probabilities of the completions at the prompts they do not belong to."""
        return super()._compute_kl_logps(self.model, self._prepare_inputs(part))

    def _compute_kl_logps(self, *args: Any) -> torch.Tensor:
        """What TRL subtracts from each other: the zero point of the policy, and 0 of its reference.

        It asks the reference with gradients off.
        """
        return self.zero_point if torch.is_grad_enabled() else torch.zeros_like(self.zero_point)


def read(
    path: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, fewest: int
) -> tuple[list[Answer], list[Row], dict[str, int]]:
    """The completions of a file, their tokens, and counts of what was cut."""
    outcomes = read_outcomes(path)
    rows = completion_rows(tokenizer, [(outcome.prompt, outcome.completion) for outcome in outcomes])
    outcomes, sides, counts = learnable(outcomes, [(row,) for row in rows], max_length, fewest=fewest)
    return outcomes, [row for (row,) in sides], counts


def in_order(
    outcomes: Sequence[Answer], rows: Sequence[Row], order: Sequence[int], batch_size: int
) -> list[dict[str, Any]]:
    """Rows as KTOTrainer reads them, in the order they are learnt from, `batch_size` in a step."""
    partners = put_to_other_prompts([outcomes[place] for place in order], batch_size)
    return [
        {
            "prompt_ids": rows[place].ids[: rows[place].prompt],
            "completion_ids": completion_of(rows[place]),
            "KL_completion_ids": completion_of(rows[order[partner]]),
            "label": outcomes[place].is_good,
        }
        for place, partner in zip(order, partners, strict=True)
    ]


def completion_of(row: Row) -> tuple[int, ...]:
    return row.ids[row.prompt :]


if __name__ == "__main__":
    run("kto", main)
