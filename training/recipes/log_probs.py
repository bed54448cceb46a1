"""Log-probabilities of completions under a policy or its reference, for held-out evaluation."""

from collections.abc import Iterable
from contextlib import nullcontext

import torch
from transformers import Trainer
from trl.trainer.utils import use_adapter

from training.recipes.cutting import Row
from training.recipes.estimates import EVALUATED_TOGETHER


@torch.no_grad()
def log_probs(
    trainer: Trainer, rows: Iterable[Row], max_length: int, of_reference: bool = False
) -> dict[Row, float]:
    """log p(completion | prompt) of every different row, in nats summed over what `max_length` leaves of it.

    The model is that of a TRL trainer with its fused language head; its reference is what training began with: a model
    of its own, or the trainer's under another adapter or none.
    """
    frozen = getattr(trainer, "ref_model", None) if of_reference else None
    model = (frozen or trainer.model).eval()
    different = sorted(set(rows), key=lambda row: (len(row.ids), row))
    found: dict[Row, float] = {}
    adapter = nullcontext()
    if of_reference and frozen is None:
        adapter = use_adapter(model, "ref" if "ref" in model.peft_config else None)
    with adapter, trainer.compute_loss_context_manager():
        for start in range(0, len(different), EVALUATED_TOGETHER):
            batch = different[start : start + EVALUATED_TOGETHER]
            padded = trainer.processing_class.pad(
                {"input_ids": [list(row.ids[:max_length]) for row in batch]},
                padding_side="right",
                return_tensors="pt",
            ).to(model.device)
            ids, mask = padded["input_ids"], padded["attention_mask"]  # (batch, seq)
            places = torch.arange(ids.shape[1], device=model.device)
            starts = torch.tensor([row.prompt for row in batch], device=model.device)[:, None]
            labels = ids.masked_fill((mask == 0) | (places < starts), -100)
            output = model(
                input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True, use_cache=False
            )
            found |= zip(batch, output.log_probs.sum(dim=1).tolist(), strict=True)
    trainer.model.train()
    return found
