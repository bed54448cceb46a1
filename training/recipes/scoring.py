"""Score conversations with a reward model. Rows are scored in batches of like length; order and padding do not show."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel, TaskType
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.recipes.forward_once import score_once
from training.recipes.loading import check_adapter, compute_dtype, load_reward_base, without_adapter
from training.recipes.lora_layers import spare_passes
from training.recipes.model_folders import refuse_disagreement, tensors_of
from training.recipes.rendering import Message, conversation_ids
from training.recipes.run_dir import RecipeError

# What every reward model is asked before and after it is saved; the scores go into recipe.json beside its
# weights.
PROBES: list[list[Message]] = [
    [{"role": "user", "content": "What is the capital of France?"}, {"role": "assistant", "content": text}]
    for text in ("The capital of France is Paris.", "France France France France", "I do not know.", "")
]


def load_reward_model(
    base: Path, trained: Path, tokenizer: PreTrainedTokenizerBase, attention: str = "sdpa"
) -> PreTrainedModel | PeftModel:
    """A reward model as the recipe saved it, an adapter on the base or a whole model, ready to score.

    Another `attention`, or other rows in a batch, round scores otherwise (bfloat16: 0.03 on average where they spread
    by 1.3). Raises RecipeError when it is none, or reads other tokens.
    """
    if (trained / "adapter_config.json").is_file():
        check_adapter(trained, TaskType.SEQ_CLS, base)
        try:
            model = PeftModel.from_pretrained(load_reward_base(base, tokenizer, attention), trained)
        except RuntimeError as error:
            raise RecipeError(f"The adapter {trained} does not fit the base model {base}: {error}") from error
    else:
        model = _load_whole(base, trained, tokenizer, attention)
    score_once(without_adapter(model))  # as in training, to the bit
    spare_passes(model)
    return model.eval()


def _load_whole(
    base: Path, trained: Path, tokenizer: PreTrainedTokenizerBase, attention: str
) -> PreTrainedModel:
    """A whole reward model, held in float32 as it was trained."""
    if "score.weight" not in tensors_of(trained):
        raise RecipeError(f"{trained} is no reward model: it has no score head. Choose one that has.")
    refuse_disagreement(base, {"reward model": trained})
    return load_reward_base(trained, tokenizer, attention, torch.float32)


def score_conversations(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[list[Message]],
    batch_size: int = 32,
) -> list[float]:
    """One score per conversation, in the given order."""
    return score_rows(model, tokenizer, [conversation_ids(tokenizer, c) for c in conversations], batch_size)


@torch.no_grad()
def score_rows(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[list[int]],
    batch_size: int = 32,
) -> list[float]:
    """One score per row of token ids, in the given order."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    scores = [0.0] * len(rows)
    by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(rows), batch_size):
        batch = by_length[start : start + batch_size]
        padded = tokenizer.pad(
            {"input_ids": [rows[i] for i in batch]}, padding_side="right", return_tensors="pt"
        )
        padded = {name: padded[name].to(device) for name in ("input_ids", "attention_mask")}  # (batch, seq)
        with torch.autocast(device.type, torch.bfloat16, enabled=compute_dtype() == torch.bfloat16):
            logits = model(**padded, use_cache=False).logits  # (batch, 1)
        for i, score in zip(batch, logits[:, 0].float().tolist(), strict=True):
            scores[i] = score
    model.train(was_training)
    return scores
