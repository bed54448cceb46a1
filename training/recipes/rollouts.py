"""Rollouts: completions that a policy samples to learn from, with what was measured of each, and their evaluation."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from training.recipes import held_out as statistics
from training.recipes import processes
from training.recipes.lora_layers import for_sampling
from training.recipes.options import DecodingOptions
from training.recipes.options_from_samples import SAMPLED_TOGETHER, RolloutOptions
from training.recipes.prompts import Prompt
from training.recipes.rendering import conversation_ids, prompt_ids
from training.recipes.rewards import check_of
from training.recipes.run_dir import RecipeError
from training.recipes.sampling import derived_seed, end_tokens, generate_ids, text_of
from training.recipes.shared_base import POLICY, VALUE, Rows, SharedBase, in_their_places, rows_of

Reward = Callable[[Sequence[Prompt], Sequence[str]], list[float]]  # one number per completion
BEST_OF = 4
# About each token of a completion. Last the policy, whose answers take the most memory where they are kept.
ASKED = ("reference", "values", "log_probs")


@dataclass(frozen=True)
class Rollouts:
    """Completions of one step. `rewards` and `finished` are (batch,), the others (batch, new).

    `kept` holds by adapter, once, answers that lead to its gradients: all rows in the order of `parts`.
    """

    rows: Rows
    texts: list[str]
    rewards: Tensor
    finished: Tensor
    log_probs: Tensor
    reference: Tensor
    values: Tensor
    kept: dict[str, Tensor] = field(default_factory=dict)

    def parts(self, rows: Sequence[int], together: int) -> Iterator[list[int]]:
        """`rows` in groups of like length, so that little is computed for padding; one at least for each process."""
        together = processes.at_most(together, len(rows))
        lengths = self.rows.attention.sum(dim=1)
        by_length = sorted(rows, key=lambda row: (int(lengths[row]), row))
        for start in range(0, len(by_length), together):
            yield by_length[start : start + together]

    def describe(self) -> dict[str, float]:
        """What the completions are like: reward, its spread, length, how many end by themselves, repetition."""
        return {
            "reward": float(self.rewards.mean()),
            "reward_spread": float(self.rewards.std(unbiased=False)),
            "length": float(self.rows.mask.sum(dim=1).mean()),
            "finished_share": float(self.finished.float().mean()),
            "repetition": float(np.mean([repeated_share(text) for text in self.texts])),
        }


def longest_row(
    prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, options: RolloutOptions
) -> int:
    """Tokens of the longest prompt with the longest completion. Raises RecipeError when a prompt leaves no room."""
    room = options.max_length - options.max_new_tokens
    lengths = [len(prompt_ids(tokenizer, prompt.messages)) for prompt in prompts]
    long = [prompt.prompt_id for prompt, length in zip(prompts, lengths, strict=True) if length > room]
    if long:
        raise RecipeError(
            f"{len(long)} prompts have more than {room} tokens, so completions of max_new_tokens = "
            f"{options.max_new_tokens} would exceed max_length = {options.max_length}; one is prompt {min(long)}. "
            "Raise max_length, or leave them out."
        )
    return max(lengths) + options.max_new_tokens


def open_reward(config: dict[str, Any], options: RolloutOptions, shared: SharedBase, base: Path) -> Reward:
    """The reward that the options name. A learned one is centred and scaled by its model's scores of held-out pairs.

    Raises RecipeError when it lacks something.
    """
    check = check_of(options)
    if check is not None:
        return lambda prompts, texts: [check(text) for text in texts]
    if not config.get("reward_model"):
        raise RecipeError(
            "reward is reward_model, and the run names none. Train one first, or choose another reward."
        )
    adapter = Path(config["reward_model"])
    shared.add_reward(base, adapter)
    mean, spread = score_scale(adapter)

    def learned(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
        conversations = [
            conversation_ids(shared.tokenizer, [*prompt.messages, {"role": "assistant", "content": text}])
            for prompt, text in zip(prompts, texts, strict=True)
        ]
        scores = shared.scores(conversations, options.micro_batch_size)
        return [(score - mean) / spread for score in scores]

    return learned


def score_scale(adapter: Path) -> tuple[float, float]:
    """Mean and spread of a reward model's scores on its held-out pairs, from its recipe.json."""
    try:
        facts = json.loads((adapter / "recipe.json").read_text(encoding="utf-8"))
        mean, spread = float(facts["score_mean"]), float(facts["score_spread"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RecipeError(
            f"{adapter} does not say how its scores are spread (recipe.json). Train the reward model again."
        ) from None
    if not spread > 0:
        raise RecipeError(
            "The reward model gives every completion the same score, so nothing can be learnt from it."
        )
    return mean, spread


def sample(
    shared: SharedBase, prompts: Sequence[Prompt], options: RolloutOptions, seed: int
) -> list[list[int]]:
    """One completion per prompt, as tokens, by the adapter that is worn."""
    inputs = [prompt_ids(shared.tokenizer, prompt.messages) for prompt in prompts]
    return write(shared, inputs, options, [derived_seed(seed, "row", i) for i in range(len(inputs))])


def write(
    shared: SharedBase, inputs: Sequence[list[int]], options: RolloutOptions, seeds: Sequence[int]
) -> list[list[int]]:
    """What comes after each of the `inputs`, by its own seed: how many are written at a time does not change it."""
    decoding = DecodingOptions(temperature=options.temperature, max_new_tokens=options.max_new_tokens)
    by_length = sorted(range(len(inputs)), key=lambda i: (-len(inputs[i]), i))
    size = processes.at_most(SAMPLED_TOGETHER * options.micro_batch_size, len(inputs))
    batches = [by_length[start : start + size] for start in range(0, len(inputs), size)]

    def write_batch(_: int, batch: list[int]) -> list[list[int]]:
        chosen, theirs = [inputs[i] for i in batch], [seeds[i] for i in batch]
        return generate_ids(shared.model, shared.tokenizer, chosen, decoding, theirs)

    with for_sampling(shared.model):
        return in_their_places(batches, shared.divided(batches, write_batch))


@torch.no_grad()
def collect(
    shared: SharedBase,
    reward: Reward,
    prompts: Sequence[Prompt],
    options: RolloutOptions,
    seed: int,
    ask: Sequence[str] = ASKED,
    keep: Sequence[str] = (),
) -> Rollouts:
    """Sample one completion per prompt, reward it, and ask policy, reference and value model about each token.

    What is not asked stays 0. The answers of adapters to `keep` are kept with the graph that leads to their gradients,
    which needs `batch_size` to be at most `micro_batch_size`.
    """
    shared.model.eval()
    shared.wear(POLICY)
    completions = sample(shared, prompts, options, seed)
    texts = [text_of(shared.tokenizer, ids) for ids in completions]
    inputs = [prompt_ids(shared.tokenizer, prompt.messages) for prompt in prompts]
    rows = rows_of(inputs, completions, shared.tokenizer.pad_token_id, shared.device)
    ends = end_tokens(shared.model, shared.tokenizer)
    made = Rollouts(
        rows=rows,
        texts=texts,
        rewards=torch.tensor(reward(prompts, texts), device=shared.device),
        finished=torch.tensor([ids[-1] in ends for ids in completions], device=shared.device),
        **{name: torch.zeros_like(rows.mask) for name in ASKED},
    )
    answer = {"log_probs": shared.policy, "reference": shared.reference, "values": shared.values}
    adapters = {"log_probs": POLICY, "values": VALUE}
    parts = list(made.parts(range(len(rows)), options.micro_batch_size))
    for name in ask:
        if adapters.get(name) in keep:
            with torch.enable_grad(), shared.for_learning():
                made.kept[adapters[name]] = answer[name](rows.select(parts[0]))
            answers = [made.kept[adapters[name]].detach()]
        else:
            answers = shared.divided(parts, lambda _, part, name=name: answer[name](rows.select(part)).cpu())
        for part, found in zip(parts, answers, strict=True):  # found: (part, its longest completion)
            getattr(made, name)[part, : found.shape[1]] = found.to(shared.device)
    return made


class HeldOut:
    """Held-out prompts on which a policy meets its parent, by a reward.

    What the parent earns there is computed once: it does not change.
    """

    def __init__(self, prompts: Sequence[Prompt], options: RolloutOptions, seed: int) -> None:
        self.prompts, self.options = prompts, options
        self.seeds = [derived_seed(seed, "held out", number) for number in range(1 + BEST_OF)]
        self.parents: np.ndarray | None = None  # (5, prompts): what is met, and four to choose the best of
        # The reward of each text to a prompt, so that equal ones tie.
        self.known: dict[tuple[str, str], float] = {}

    def evaluate(self, shared: SharedBase, reward: Reward, *, at_start: bool) -> dict[str, Any]:
        """The policy against its parent by the reward, and best-of-4 beside. `at_start` it is its parent still.

        `win_rate` is the share of prompts whose completion by the policy has the higher reward, ties half, with its
        interval; `samples` are those completions; `best_of_4` is what the parent reaches against the same completion of
        its own when the best of four others is picked by the reward, which costs no training.
        """
        reward = self._remembered(reward)
        ask = () if at_start else ("log_probs", "reference")
        made = collect(shared, reward, self.prompts, self.options, self.seeds[0], ask)
        if self.parents is None:
            known = [made.rewards.cpu().numpy()] if at_start else []
            more = [self._rewards_of_parent(shared, reward, seed) for seed in self.seeds[len(known) :]]
            self.parents = np.array([*known, *more])
        met, best = self.parents[0], self.parents[1:].max(axis=0)  # (prompts,) each
        wins = statistics.outcomes(made.rewards.cpu().numpy() - met)
        wins_of_best = statistics.outcomes(best - met)
        prompts = [prompt.prompt_id for prompt in self.prompts]
        return {
            **made.describe(),
            "kl": float(((made.log_probs - made.reference) * made.rows.mask).sum(dim=1).mean()),
            "win_rate": float(wins.mean()),
            "interval": list(statistics.interval_by_cluster(wins.tolist(), prompts)),
            "parent_reward": float(self.parents.mean()),
            "best_of_4_reward": float(best.mean()),
            "best_of_4_win_rate": float(wins_of_best.mean()),
            "best_of_4_win_rate_interval": list(
                statistics.interval_by_cluster(wins_of_best.tolist(), prompts)
            ),
            "prompts": len(self.prompts),
            "samples": [
                {"prompt_id": prompt.prompt_id, "text": text, "reward": reward}
                for prompt, text, reward in zip(self.prompts, made.texts, made.rewards.tolist(), strict=True)
            ],
        }

    def _remembered(self, reward: Reward) -> Reward:
        """The reward, which is asked once of each text: rounding depends on what else is computed beside it."""

        def remembered(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
            keys = [(prompt.prompt_id, text) for prompt, text in zip(prompts, texts, strict=True)]
            new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self.known}
            if new:
                found = reward(list(new.values()), [text for _, text in new])
                self.known |= zip(new, found, strict=True)
            return [self.known[key] for key in keys]

        return remembered

    @torch.no_grad()
    def _rewards_of_parent(self, shared: SharedBase, reward: Reward, seed: int) -> np.ndarray:
        """(prompts,) rewards of one completion each by the policy that training began with."""
        with shared.as_reference():
            completions = sample(shared, self.prompts, self.options, seed)
        texts = [text_of(shared.tokenizer, ids) for ids in completions]
        # In float32 as those of the policy, so that equal ones are equal.
        return np.array(reward(self.prompts, texts), dtype=np.float32)


def equal_parts(rows: Sequence[int], parts: int) -> list[list[int]]:
    """`rows` in that many parts of like size, none of them empty."""
    parts = min(parts, len(rows))
    borders = [round(number * len(rows) / parts) for number in range(parts + 1)]
    return [list(rows[low:high]) for low, high in pairwise(borders)]


def repeated_share(text: str) -> float:
    """The share of three-word sequences that came before in the text: 0 for none, near 1 for a loop."""
    words = text.casefold().split()
    triples = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    return 1 - len(set(triples)) / len(triples) if triples else 0.0
