"""Savings inside the model's forward, so that TRL's trainers, left as they are, do less work for equal results.

A ranking of four completions gives six pairs, and TRL computes both completions of each: twelve rows of which
four differ. `score_once` and `completion_log_probs` compute each different row once and hand its result to every
pair that holds it, and on a CPU they compute the prompt of those four once (beginnings.py). The gradient is the sum
over those pairs, as before.

On a CPU, TRL also projects every token, prompts included, onto the whole vocabulary, and accumulates
gradients by float32 products: two thirds of a DPO step. `completion_log_probs` projects completion tokens
only and leaves the products in the dtype of the model. On GPUs TRL has kernels for this, so there only equal
rows are shared; so too for models that scale or cap what their language head gives.
"""

import functools
import types
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutputWithPast
from trl.trainer.utils import FusedCausalLMOutput

from training.recipes.beginnings import different_rows, ends, hidden_states


def score_once(model: PreTrainedModel) -> None:
    """Make a sequence classifier score equal rows of a batch once: logits stay (batch, labels)."""
    original = model.forward
    reads_the_last = isinstance(model, GenericForSequenceClassification)

    @functools.wraps(type(model).forward)
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any) -> Any:
        (ids, mask), where = different_rows(input_ids, attention_mask)
        if reads_the_last:
            last = ends(mask) - 1
            hidden, first = hidden_states(self.base_model, ids, mask, last, **kwargs)
            logits = self.score(hidden[torch.arange(len(hidden), device=hidden.device), last - first])
        else:
            logits = original(input_ids=ids, attention_mask=mask, **kwargs).logits
        return SequenceClassifierOutputWithPast(
            logits=logits[where]
        )  # (different, labels) -> (batch, labels)

    model.forward = types.MethodType(forward, model)


# Options of a model that change what its language head gives. TRL knows them all.
HEAD_OPTIONS = (
    "final_logit_softcapping",
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
)
FIELDS = ("log_probs", "entropy", "mean_logits", "is_top1", "label_mask")


def completion_log_probs(model: PreTrainedModel, temperature: float = 1.0) -> None:
    """Replace the fused language head that a trainer of TRL gave `model` (its base model, inside peft).

    Called with `fused_lm_head=True` it returns what TRL reads, each (batch, seq - 1) and zero where the label
    is -100. `temperature` is what the trainer samples with.
    """
    fused_by_trl = model.forward
    config = model.config.get_text_config()
    has_plain_head = all(getattr(config, name, None) in (None, 1.0) for name in HEAD_OPTIONS)

    @functools.wraps(type(model).forward)
    def forward(
        self, input_ids=None, attention_mask=None, labels=None, fused_lm_head=False, **kwargs: Any
    ) -> Any:
        if not fused_lm_head:
            return fused_by_trl(input_ids=input_ids, attention_mask=attention_mask, labels=labels, **kwargs)
        (ids, mask, labels), where = different_rows(input_ids, attention_mask, labels)
        if ids.device.type == "cpu" and has_plain_head:
            fields = _token_statistics(self, ids, mask, labels[:, 1:], temperature, **kwargs)
        else:
            output = fused_by_trl(
                input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True, **kwargs
            )
            given = {name: getattr(output, name) for name in FIELDS}  # a trainer asks for some of them
            fields = {name: field for name, field in given.items() if field is not None}
        return FusedCausalLMOutput(**{name: field[where] for name, field in fields.items()})

    model.forward = types.MethodType(forward, model)


def _token_statistics(
    model: PreTrainedModel,
    ids: torch.Tensor,
    mask: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    **kwargs: Any,
) -> dict[str, torch.Tensor]:
    """Log-probability of each target (-100: none) and, while training, what TRL logs beside it.

    `ids` and `mask` are (batch, seq), `targets` and every result (batch, seq - 1).
    """
    judged = targets != -100
    places = judged.long()
    earliest = torch.where(judged.any(dim=1), places.argmax(dim=1), places.shape[1] - 1)  # (batch,)
    hidden, first = hidden_states(model.base_model, ids, mask, earliest, **kwargs)
    rows, columns = judged.nonzero(as_tuple=True)
    head = model.get_output_embeddings()
    logits = head(hidden[rows, columns - first[rows]]).float()  # (tokens, vocabulary)
    if temperature != 1.0:
        logits = logits / temperature
    labels = targets[judged]
    all_log_probs = torch.log_softmax(logits, dim=-1)
    fields = {"log_probs": all_log_probs.gather(1, labels[:, None])[:, 0]}  # (tokens,)
    if torch.is_grad_enabled():
        with torch.no_grad():
            fields["entropy"] = -(all_log_probs.exp() * all_log_probs).sum(dim=-1)
            fields["mean_logits"] = logits.mean(dim=-1)
            fields["is_top1"] = logits.argmax(dim=-1) == labels
    found = {
        name: field.new_zeros(judged.shape).masked_scatter(judged, field) for name, field in fields.items()
    }
    return found | {"label_mask": judged}
