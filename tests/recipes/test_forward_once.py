"""Computing equal rows once, and completion tokens only, changes what is computed, not what comes out."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from trl.trainer.utils import add_fused_lm_head

from training.recipes.beginnings import different_rows
from training.recipes.forward_once import completion_log_probs, score_once

FIELDS = ("log_probs", "entropy", "mean_logits", "is_top1")


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Six rows of which three differ, of unequal length, as the pairs of a ranking make them."""
    ids = torch.tensor([[1, 9, 8, 7, 2], [1, 9, 6, 2, 0], [1, 9, 5, 5, 2]])[[0, 1, 0, 2, 2, 1]]
    mask = (ids != 0).long()
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :2] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_log_probabilities_and_gradients_equal_those_of_trl(tiny_model, batch):
    by_trl, ours = (AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32) for _ in range(2))
    for model in (by_trl, ours):
        add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    completion_log_probs(ours)
    outputs = [model(**batch, fused_lm_head=True, use_cache=False) for model in (by_trl, ours)]
    for name in FIELDS:
        torch.testing.assert_close(getattr(outputs[1], name), getattr(outputs[0], name), rtol=1e-4, atol=1e-5)
    weights = torch.arange(1.0, 25.0).view(
        6, 4
    )  # another weight for each place, so that no mix-up cancels out
    for output in outputs:
        (output.log_probs * weights).sum().backward()
    expected, found = gradients(by_trl), gradients(ours)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)


def test_scores_of_equal_rows_are_computed_once_and_are_the_same(tiny_model, batch):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1, dtype=torch.float32)
    model.config.pad_token_id = 0
    rows = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    expected = model(**rows).logits
    computed = []
    model.model.register_forward_hook(
        lambda _, inputs, output: computed.append(tuple(output.last_hidden_state.shape[:2]))
    )
    score_once(model)
    torch.testing.assert_close(model(**rows).logits, expected)
    assert computed == [(1, 2), (3, 3)]  # what all begin with, and the rest of the three that differ


def test_a_batch_of_different_rows_keeps_its_order():
    ids = torch.tensor([[3, 1], [1, 2], [2, 2]])
    (same,), where = different_rows(ids)
    assert same is ids
    assert where.tolist() == [0, 1, 2]


def test_rows_that_differ_in_their_labels_alone_are_kept_apart():
    ids, labels = torch.tensor([[5, 6], [5, 6]]), torch.tensor([[-100, 6], [5, 6]])
    (rows, _), where = different_rows(ids, labels)
    assert len(rows) == 2
    assert len(set(where.tolist())) == 2
