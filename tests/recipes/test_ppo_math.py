"""Each formula of PPO beside a slow plain twin, written with loops over single numbers."""

import math
import random

import pytest
import torch

from training.recipes import ppo_math

BATCH, TOKENS = 5, 7


@pytest.fixture(params=range(3))
def numbers(request) -> random.Random:
    return random.Random(request.param)


def tensor(numbers: random.Random) -> torch.Tensor:
    return torch.tensor([[numbers.gauss(0, 1) for _ in range(TOKENS)] for _ in range(BATCH)])


def some_mask(numbers: random.Random) -> torch.Tensor:
    """Completions of 1 to TOKENS tokens, the longest and the shortest among them."""
    lengths = [1, TOKENS, *(numbers.randint(1, TOKENS) for _ in range(BATCH - 2))]
    return torch.tensor([[1.0] * n + [0.0] * (TOKENS - n) for n in lengths])


def lengths_of(mask: torch.Tensor) -> list[int]:
    return [int(row.sum()) for row in mask]


def test_the_score_comes_at_the_last_token_and_the_kl_penalty_at_each(numbers):
    mask, ratio, scores = some_mask(numbers), tensor(numbers), tensor(numbers)[:, 0]
    rewards = ppo_math.token_rewards(scores, ratio, mask, 0.3)
    for i, length in enumerate(lengths_of(mask)):
        for t in range(TOKENS):
            wanted = 0.0
            if t < length:
                wanted = -0.3 * float(ratio[i, t])
            if t == length - 1:
                wanted += float(scores[i])
            assert float(rewards[i, t]) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 0.95), (0.9, 1.0), (0.99, 0.0)])
def test_advantages_are_discounted_sums_of_temporal_differences(numbers, gamma, gae_lambda):
    mask, rewards, values = some_mask(numbers), tensor(numbers), tensor(numbers)
    advantages, returns = ppo_math.advantages_and_returns(
        rewards * mask, values * mask, mask, gamma, gae_lambda
    )
    for i, length in enumerate(lengths_of(mask)):
        r, v = rewards[i].tolist(), values[i].tolist()
        for t in range(length):
            wanted = 0.0
            for later in range(t, length):  # equation 16 of Schulman et al. 2016, its sum written out
                next_value = v[later + 1] if later + 1 < length else 0.0
                delta = r[later] + gamma * next_value - v[later]
                wanted += (gamma * gae_lambda) ** (later - t) * delta
            assert float(advantages[i, t]) == pytest.approx(wanted, abs=1e-5)
            assert float(returns[i, t]) == pytest.approx(wanted + v[t], abs=1e-5)
        assert float(advantages[i, length:].abs().sum()) == float(returns[i, length:].abs().sum()) == 0.0


def test_whitened_advantages_have_mean_0_and_variance_1_over_tokens_alone(numbers):
    mask, values = some_mask(numbers), tensor(numbers)
    there = [float(values[i, t]) for i, n in enumerate(lengths_of(mask)) for t in range(n)]
    mean = sum(there) / len(there)
    spread = math.sqrt(sum((value - mean) ** 2 for value in there) / len(there))
    white = ppo_math.whiten(values, mask)
    for i, length in enumerate(lengths_of(mask)):
        for t in range(TOKENS):
            wanted = (float(values[i, t]) - mean) / spread if t < length else 0.0
            assert float(white[i, t]) == pytest.approx(wanted, abs=1e-4)


def test_equal_advantages_whiten_to_nothing():
    assert ppo_math.whiten(torch.full((2, 3), 4.0), torch.ones(2, 3)).abs().max() == 0


def test_the_policy_loss_is_clipped_where_it_would_gain_from_going_further(numbers):
    log_probs, old, advantages = tensor(numbers), tensor(numbers), tensor(numbers)
    losses = ppo_math.policy_losses(log_probs, old, advantages, 0.2)
    for i in range(BATCH):
        for t in range(TOKENS):
            ratio = math.exp(float(log_probs[i, t]) - float(old[i, t]))
            clipped = min(max(ratio, 0.8), 1.2)
            gain = min(ratio * float(advantages[i, t]), clipped * float(advantages[i, t]))
            assert float(losses[i, t]) == pytest.approx(-gain, abs=1e-4, rel=1e-4)


def test_no_gradient_pushes_a_token_further_out_of_the_clip_range():
    log_probs = torch.tensor([[math.log(1.5), math.log(0.5)]], requires_grad=True)
    ppo_math.policy_losses(log_probs, torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]), 0.2).sum().backward()
    assert log_probs.grad.tolist() == [[0.0, 0.0]]


def test_the_value_loss_takes_the_worse_of_moved_and_clipped(numbers):
    values, old, returns = tensor(numbers), tensor(numbers), tensor(numbers)
    losses = ppo_math.value_losses(values, old, returns, 0.2)
    for i in range(BATCH):
        for t in range(TOKENS):
            v, o, r = (float(x[i, t]) for x in (values, old, returns))
            clipped = min(max(v, o - 0.2), o + 0.2)
            assert float(losses[i, t]) == pytest.approx(0.5 * max((v - r) ** 2, (clipped - r) ** 2), abs=1e-5)


def test_how_far_a_policy_moved_is_never_negative_and_0_only_for_the_same(numbers):
    mask, log_probs, old = some_mask(numbers), tensor(numbers), tensor(numbers)
    total, tokens = 0.0, 0
    for i, length in enumerate(lengths_of(mask)):
        for t in range(length):
            difference = float(log_probs[i, t]) - float(old[i, t])
            total += math.exp(difference) - 1 - difference
            tokens += 1
    moved = float(ppo_math.policy_moved(log_probs, old, mask))
    assert moved == pytest.approx(total / tokens, rel=1e-4)
    assert moved > 0
    assert float(ppo_math.policy_moved(old, old, mask)) == 0


def test_tokens_after_the_end_change_nothing(numbers):
    mask, log_probs, old = some_mask(numbers), tensor(numbers), tensor(numbers)
    values, rewards, scores = tensor(numbers), tensor(numbers), tensor(numbers)[:, 0]
    noise = tensor(numbers) * 100 * (1 - mask)

    def everything(extra: torch.Tensor) -> list[torch.Tensor]:
        token_rewards = ppo_math.token_rewards(scores, log_probs - old + extra, mask, 0.1)
        advantages, returns = ppo_math.advantages_and_returns(
            rewards * mask + token_rewards, values + extra, mask, 0.99, 0.9
        )
        return [
            token_rewards,
            advantages,
            returns,
            ppo_math.whiten(rewards + extra, mask),
            ppo_math.masked_mean(rewards + extra, mask),
            ppo_math.clipped_share(log_probs + extra.clamp(-5, 5), old, mask, 0.2),
        ]

    for clean, noisy in zip(everything(torch.zeros_like(mask)), everything(noise), strict=True):
        assert torch.allclose(clean, noisy, atol=1e-5)


def test_the_kl_coefficient_rises_above_the_target_and_falls_below_it():
    def adapted(kl: float, target: float = 6.0) -> float:
        return ppo_math.adapted_kl_coefficient(0.1, kl, target=target, horizon=1000, completions=100)

    assert adapted(6.0) == pytest.approx(0.1)
    assert adapted(6.6) == pytest.approx(0.1 * (1 + 0.1 * 0.1))
    assert adapted(100.0) == pytest.approx(0.1 * (1 + 0.2 * 0.1))  # the error is clipped
    assert adapted(0.0) == pytest.approx(0.1 * (1 - 0.2 * 0.1))
    assert adapted(100.0, target=0.0) == 0.1
