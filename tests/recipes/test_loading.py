"""Where a model is loaded to, and the score head that computes in float32 whatever becomes of its weights."""

import pytest
import torch

from training.recipes import loading
from training.recipes.shared_base import SharedBase


@pytest.mark.parametrize(("sharded", "moved"), [("true", 0), ("false", 1)])
def test_what_a_trainer_is_to_spread_over_cards_is_put_whole_on_none(tiny_model, monkeypatch, sharded, moved):
    to_cards = count_moves(monkeypatch)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", sharded)
    loading.load_policy(tiny_model, loading.load_tokenizer(tiny_model))
    loading.load_reward_base(tiny_model, loading.load_tokenizer(tiny_model))
    assert len(to_cards) == 2 * moved


def test_ppo_has_the_whole_model_on_each_card_under_any_settings(tiny_model, monkeypatch):
    to_cards = count_moves(monkeypatch)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    SharedBase(tiny_model, loading.load_tokenizer(tiny_model), None, 4, 8)
    assert len(to_cards) == 1


def count_moves(monkeypatch) -> list[torch.nn.Module]:
    """As if there were a card: what is moved there."""
    moved: list[torch.nn.Module] = []
    monkeypatch.setattr(loading, "has_gpu", lambda: True)
    monkeypatch.setattr(loading, "compute_dtype", lambda: torch.float32)
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda self: moved.append(self) or self)
    return moved


def test_a_score_head_whose_weights_have_become_bfloat16_still_tells_near_scores_apart():
    torch.manual_seed(0)
    head = loading.Float32Head(torch.nn.Linear(8, 1)).to(torch.bfloat16)
    hidden = torch.randn(2, 3, 8)
    scores = head(hidden)
    assert scores.dtype == torch.float32
    slow = (hidden.double() * head.weight.double()).sum(dim=-1) + head.bias.double()
    assert torch.allclose(scores[..., 0].double(), slow, atol=1e-6)
