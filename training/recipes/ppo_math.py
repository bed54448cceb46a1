"""The formulas of PPO, each on its own, as pure functions of tensors (batch, tokens).

`mask` is 1.0 at the tokens of a completion, its end-of-sequence token included, and 0.0 at the padding after it. Tokens
that a mask leaves out change nothing, whatever stands there.
"""

import torch
from torch import Tensor


def token_rewards(scores: Tensor, log_ratio: Tensor, mask: Tensor, kl_coefficient: float) -> Tensor:
    """Reward of each token: the KL penalty everywhere, and the score of the whole completion at its last token.

    `scores` is (batch,); `log_ratio` is log policy - log reference of the sampled tokens (Ziegler et al. 2019,
    section 2.2; Stiennon et al. 2020). A completion has at least one token.
    """
    rewards = -kl_coefficient * log_ratio * mask
    last = mask.sum(dim=1).long() - 1  # (batch,)
    rewards[torch.arange(len(rewards)), last] += scores
    return rewards


def advantages_and_returns(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates (Schulman et al. 2016, equation 16) and the returns values are fitted to.

    The value after the last token of a completion is 0: the episode is over there, also when it was cut.
    """
    advantages = torch.zeros_like(rewards)
    following, next_value = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    for token in reversed(range(rewards.shape[1])):
        is_token = mask[:, token]
        delta = rewards[:, token] + gamma * next_value - values[:, token]
        following = is_token * (delta + gamma * gae_lambda * following)
        next_value = is_token * values[:, token]
        advantages[:, token] = following
    return advantages, (advantages + values) * mask


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """`values` shifted and scaled to mean 0 and variance 1 over all tokens of the batch; 0 at padding.

    Huang et al. 2024. One token, or equal ones, have no variance: they become 0.
    """
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    return (values - mean) * torch.rsqrt(variance + 1e-8) * mask


def policy_losses(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """The clipped surrogate of each token (Schulman et al. 2017, equation 7), to be minimised."""
    ratio = torch.exp(log_probs - old_log_probs)
    return torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - clip_range, 1 + clip_range))


def value_losses(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float) -> Tensor:
    """Half the squared error of each value, or of the value clipped around its old one when that is larger.

    Ziegler et al. 2019; Huang et al. 2024.
    """
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return 0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2)


def policy_moved(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor) -> Tensor:
    """KL from the policy that sampled to the present one, in nats per token: mean of ratio - 1 - log ratio.

    Never negative (Schulman 2020, "Approximating KL divergence", estimator k3).
    """
    log_ratio = log_probs - old_log_probs
    return masked_mean(torch.exp(log_ratio) - 1 - log_ratio, mask)


def clipped_share(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor, clip_range: float) -> Tensor:
    """Share of tokens whose ratio lies outside the clip range."""
    ratio = torch.exp(log_probs - old_log_probs)
    return masked_mean(((ratio - 1).abs() > clip_range).float(), mask)


def adapted_kl_coefficient(
    coefficient: float, kl: float, *, target: float, horizon: int, completions: int
) -> float:
    """The KL coefficient for the next step, moved so that `kl` (nats per completion) comes nearer to `target`.

    Ziegler et al. 2019, section 2.2: a proportional controller whose error is clipped to 0.2. A target of 0 keeps the
    coefficient.
    """
    if target == 0:
        return coefficient
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * completions / horizon)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens of the mask."""
    return (values * mask).sum() / mask.sum()
