"""Whole steps of PPO beside a slow plain twin of them: how the formulas are put together, in loops over single numbers.

Policy and value model are linear in made-up features of each token, so that the twin can write their gradients out.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from training.recipes.options import parse_options
from training.recipes.ppo import Learner
from training.recipes.rollouts import Rollouts
from training.recipes.shared_base import POLICY, VALUE, Rows, rows_of

LENGTHS = (1, 4, 2, 4, 3, 2)  # tokens of each completion
TOKENS, FEATURES = max(LENGTHS), 3
CUT = (1, 3)  # rows that did not end by themselves
OPTIONS = {
    "steps": 4,
    "warmup_steps": 1,
    "value_warmup_steps": 1,
    "schedule": "linear",
    "learning_rate": 0.02,
    "value_learning_rate": 0.05,
    "batch_size": 6,
    "mini_batches": 3,
    "micro_batch_size": 1,
    "epochs": 2,
    "gamma": 0.9,
    "gae_lambda": 0.8,
    "clip_range": 0.1,
    "value_clip_range": 0.1,
    "max_grad_norm": 0.3,
    "missing_eos_penalty": 0.7,
    "kl_coefficient": 0.2,
    "kl_target": 1.0,
    "kl_horizon": 60,
    "kl_stop": 10.0,
    "reward": "length",
}


class LinearModels:
    """In the place of SharedBase: what policy and value model say of a token is a weighted sum of its features."""

    device = torch.device("cpu")

    def __init__(self, seed: int) -> None:
        numbers = torch.Generator().manual_seed(seed)
        options = {"generator": numbers, "dtype": torch.float64}
        self.features = torch.randn(len(LENGTHS), TOKENS, FEATURES, **options)
        self.weights = {name: torch.randn(FEATURES, **options).requires_grad_() for name in (POLICY, VALUE)}

    def parameters_of(self, adapter: str) -> dict[str, Tensor]:
        return {"weight": self.weights[adapter]}

    @contextmanager
    def for_learning(self) -> Iterator[None]:
        yield

    def policy(self, rows: Rows) -> Tensor:
        return self._said(POLICY, rows)

    def values(self, rows: Rows) -> Tensor:
        return self._said(VALUE, rows)

    def _said(self, adapter: str, rows: Rows) -> Tensor:
        which = rows.ids[:, 0]  # each prompt begins with the number of its row
        return (self.features[which] @ self.weights[adapter])[:, : rows.mask.shape[1]]


def some_rollouts(models: LinearModels, seed: int) -> Rollouts:
    numbers = torch.Generator().manual_seed(seed)

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(len(LENGTHS), TOKENS, generator=numbers, dtype=torch.float64)

    rows = rows_of([[n, 9] for n in range(len(LENGTHS))], [[5] * n for n in LENGTHS], 0, "cpu")
    log_probs = models.policy(rows).detach() + noise(0.1)
    return Rollouts(
        rows=rows,
        texts=["some words"] * len(LENGTHS),
        rewards=noise(1.0)[:, 0],
        finished=torch.tensor([n not in CUT for n in range(len(LENGTHS))]),
        log_probs=log_probs,
        reference=log_probs + noise(0.5),
        values=models.values(rows).detach() + noise(0.1),
    )


class PlainTwin:
    """The same steps in Python's own numbers."""

    def __init__(self, models: LinearModels) -> None:
        self.features = models.features.tolist()
        self.weights = {name: weight.tolist() for name, weight in models.weights.items()}
        self.moments = {name: ([0.0] * FEATURES, [0.0] * FEATURES) for name in self.weights}
        self.updates = dict.fromkeys(self.weights, 0)
        self.step, self.coefficient = 0, OPTIONS["kl_coefficient"]
        self.score = self.kl = math.nan

    def learn(self, made: Rollouts, orders: list[list[int]]) -> None:
        old, reference, values = (some.tolist() for some in (made.log_probs, made.reference, made.values))
        scores = [reward - (0.7 if row in CUT else 0.0) for row, reward in enumerate(made.rewards.tolist())]
        advantages, returns = [], []
        for row, length in enumerate(LENGTHS):
            rewards = [-self.coefficient * (old[row][t] - reference[row][t]) for t in range(length)]
            rewards[-1] += scores[row]
            following, gained = 0.0, [0.0] * length
            for t in reversed(range(length)):
                after = values[row][t + 1] if t + 1 < length else 0.0
                following = rewards[t] + 0.9 * after - values[row][t] + 0.9 * 0.8 * following
                gained[t] = following
            advantages.append(gained)
            returns.append([gained[t] + values[row][t] for t in range(length)])
        every = [one for row in advantages for one in row]
        mean = sum(every) / len(every)
        spread = math.sqrt(sum((one - mean) ** 2 for one in every) / len(every) + 1e-8)
        white = [[(one - mean) / spread for one in row] for row in advantages]
        for order in orders:  # of an epoch
            for first in (0, 2, 4):  # three mini-batches of two
                learning = (POLICY, VALUE) if self.step >= 1 else (VALUE,)
                some = order[first : first + 2]
                gradients = {
                    name: self._gradient(name, some, old, values, white, returns) for name in learning
                }
                for name, gradient in gradients.items():
                    self._adam(name, gradient)
        self.score = sum(scores) / len(scores)
        self.kl = sum(
            sum(old[row][t] - reference[row][t] for t in range(length)) for row, length in enumerate(LENGTHS)
        ) / len(LENGTHS)
        error = max(-0.2, min(0.2, self.kl / 1.0 - 1))
        self.coefficient *= 1 + error * len(LENGTHS) / 60
        self.step += 1

    def _gradient(
        self, name: str, rows: list[int], old: Any, values: Any, white: Any, returns: Any
    ) -> list[float]:
        tokens = sum(LENGTHS[row] for row in rows)
        gradient = [0.0] * FEATURES
        for row in rows:
            for t in range(LENGTHS[row]):
                features = self.features[row][t]
                said = sum(w * x for w, x in zip(self.weights[name], features, strict=True))
                if name == POLICY:
                    ratio, advantage = math.exp(said - old[row][t]), white[row][t]
                    went_too_far = ratio > 1.1 if advantage > 0 else ratio < 0.9
                    slope = 0.0 if went_too_far else -advantage * ratio
                else:
                    error, wanted = said - returns[row][t], returns[row][t]
                    clipped = min(max(said, values[row][t] - 0.1), values[row][t] + 0.1)
                    slope = error if abs(error) >= abs(clipped - wanted) else 0.0
                for n in range(FEATURES):
                    gradient[n] += slope * features[n] / tokens
        norm = math.sqrt(sum(one**2 for one in gradient))
        return [one * min(1.0, 0.3 / (norm + 1e-6)) for one in gradient]

    def _adam(self, name: str, gradient: list[float]) -> None:
        peak = {POLICY: 0.02, VALUE: 0.05}[name]
        rate = peak * (0.5 if self.step == 0 else 1 - (self.step - 1) / 3)
        self.updates[name] += 1
        first, second = self.moments[name]
        for n, one in enumerate(gradient):
            first[n] = 0.9 * first[n] + 0.1 * one
            second[n] = 0.999 * second[n] + 0.001 * one**2
            mean = first[n] / (1 - 0.9 ** self.updates[name])
            spread = math.sqrt(second[n] / (1 - 0.999 ** self.updates[name]))
            self.weights[name][n] -= rate * mean / (spread + 1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_steps_are_put_together_as_a_plain_twin_puts_them(seed):
    models = LinearModels(seed)
    twin, learner = PlainTwin(models), Learner(parse_options("ppo", OPTIONS), models)
    for step in range(4):
        made = some_rollouts(models, seed=100 * seed + step)
        shuffled = torch.Generator().manual_seed(step)
        orders = [torch.randperm(len(LENGTHS), generator=shuffled).tolist() for _ in range(2)]
        twin.learn(made, orders)
        measured = learner.learn(made, seed=step)
        assert (measured["score"], measured["kl"]) == pytest.approx((twin.score, twin.kl))
        assert learner.kl_coefficient == pytest.approx(twin.coefficient)
        assert measured["updates"] == 6
        assert ("policy_loss" in measured) == (step >= 1)
        for name, weights in twin.weights.items():
            assert models.weights[name].tolist() == pytest.approx(weights, rel=1e-6)
    assert twin.coefficient != pytest.approx(0.2)
