"""One frozen base model in memory that writes, values and judges, by which LoRA adapter it wears.

PPO needs a policy, the reference it started from, a value model and a reward model. Here they are one base and up to
four adapters, with two small heads beside: a model of 7 billion parameters is in memory once instead of four times.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from training.recipes import processes
from training.recipes.beginnings import ends, hidden_states, layers_of
from training.recipes.loading import (
    Float32Head,
    check_adapter,
    compute_dtype,
    has_gpu,
    load_policy,
    lora_config,
    placed,
)
from training.recipes.lora_layers import spare_passes
from training.recipes.run_dir import RecipeError

Found = TypeVar("Found")
POLICY, REFERENCE, VALUE, REWARD = "policy", "reference", "value", "reward"
HEAD = "base_model.model.score.weight"


@dataclass(frozen=True)
class Rows:
    """Conversations as tokens, padded on the right, with the places of their completions.

    `ids` and `attention` are (batch, seq); `starts` (batch,) counts the tokens of each prompt; `tokens` and `mask` are
    (batch, new): the completion's tokens from its start on, and 1.0 where there is one.
    """

    ids: Tensor
    attention: Tensor
    starts: Tensor
    tokens: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Sequence[int]) -> "Rows":
        """Some of the rows, cut to the longest of them."""
        which = torch.tensor(list(rows), device=self.ids.device)
        seq = int(self.attention[which].sum(dim=1).max())
        new = int(self.mask[which].sum(dim=1).max())
        return Rows(
            self.ids[which, :seq],
            self.attention[which, :seq],
            self.starts[which],
            self.tokens[which, :new],
            self.mask[which, :new],
        )


def rows_of(
    prompts: Sequence[list[int]], completions: Sequence[list[int]], pad: int, device: str | torch.device
) -> Rows:
    """Prompts and their completions as Rows. Raises ValueError for an empty completion."""
    if not all(completions):
        raise ValueError("a completion without a token has nothing to learn from")
    whole = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    ids, attention = _padded(whole, pad)
    tokens, mask = _padded(completions, pad)
    starts = torch.tensor([len(prompt) for prompt in prompts])
    return Rows(*(part.to(device) for part in (ids, attention, starts, tokens, mask.float())))


def in_their_places(places: Sequence[list[int]], found: Sequence[Sequence[Found]]) -> list[Found]:
    """One list of what was found in parts: `found[n][k]` goes to `places[n][k]`."""
    placed = dict(zip(chain(*places), chain(*found), strict=True))
    return [placed[place] for place in range(len(placed))]


def _padded(rows: Sequence[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """(rows, longest) of ids and of ones where there is one."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])


class SharedBase:
    """The base with its adapters. Only `policy` and `value` learn; whatever is asked wears its adapter first."""

    temperature = 1.0  # at which it samples, and therefore at which its tokens have their probability

    def __init__(
        self, base: Path, tokenizer: PreTrainedTokenizerBase, parent: Path | None, rank: int, alpha: int
    ) -> None:
        """Raises RecipeError when base or parent is not what it should be. A fresh adapter is random: seed first."""
        bare = placed(load_policy(base, tokenizer))  # whole: PPO divides its work by hand, under FSDP too
        if parent is None:
            lora = lora_config(rank, alpha, TaskType.CAUSAL_LM)
            self.model = get_peft_model(bare, lora, adapter_name=POLICY)
        else:
            check_adapter(parent, TaskType.CAUSAL_LM, base)
            self.model = PeftModel.from_pretrained(bare, parent, adapter_name=POLICY, is_trainable=True)
            self.model.load_adapter(parent, adapter_name=REFERENCE, is_trainable=False)
        spare_passes(self.model)
        self.has_parent = parent is not None
        self.tokenizer = tokenizer
        self.value_head: Float32Head | None = None
        self.reward_head: Float32Head | None = None
        self.recomputes = has_gpu()  # trades time for memory, which a CPU has

    @property
    def device(self) -> torch.device:
        return self.model.device

    def add_value(self, rank: int, alpha: int) -> None:
        """A fresh value adapter, and a head of zeros: at first every value is 0, and learning starts from there."""
        self._add(VALUE, lora_config(rank, alpha, TaskType.CAUSAL_LM))
        self.value_head = self._head()

    def add_reward(self, base: Path, adapter: Path) -> None:
        """The adapter and head of a reward model trained on the same base. Raises RecipeError when it is another."""
        config = check_adapter(adapter, TaskType.SEQ_CLS, base)
        weights = load_file(adapter / "adapter_model.safetensors")
        if HEAD not in weights:
            raise RecipeError(f"{adapter} has no score head ({HEAD}). Train the reward model again.")
        self.reward_head = self._head()
        self.reward_head.weight.data.copy_(weights.pop(HEAD))
        lora = LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=config.r,
            lora_alpha=config.lora_alpha,
            lora_dropout=0.0,
            target_modules=config.target_modules,
        )
        self._add(REWARD, lora)
        try:
            outcome = set_peft_model_state_dict(self.model, weights, adapter_name=REWARD)
        except RuntimeError as error:
            raise RecipeError(f"The reward model {adapter} does not fit the base {base}: {error}") from error
        if outcome.unexpected_keys or any(f".{REWARD}." in key for key in outcome.missing_keys):
            raise RecipeError(f"The reward model {adapter} does not fit the base {base}: other layers.")

    def _add(self, adapter: str, config: LoraConfig) -> None:
        self.model.add_adapter(adapter, config)
        spare_passes(self.model)  # it may lie on layers that had none

    def _head(self) -> Float32Head:
        width = self.model.get_base_model().config.get_text_config().hidden_size
        head = Float32Head(torch.nn.Linear(width, 1, bias=False)).to(self.device)
        torch.nn.init.zeros_(head.weight)
        return head

    @contextmanager
    def for_learning(self) -> Iterator[None]:
        """While a gradient is computed, layers that are to be computed anew for it keep no more than their input.

        They do so in training mode, which they alone are put into: dropout stays off, else the ratio would not begin
        at 1.
        """
        layers = layers_of(self.model.get_base_model()) if self.recomputes else []
        if layers:
            kwargs = {"use_reentrant": False}
            self.model.get_base_model().activation_checkpointing_enable(
                activation_checkpointing_kwargs=kwargs
            )
        for layer in layers:
            layer.training = True
        try:
            yield
        finally:
            for layer in layers:
                layer.training = False

    def wear(self, adapter: str) -> None:
        """Answer through this adapter from now on; it alone requires gradients."""
        self.model.set_adapter(adapter, inference_mode=adapter in (REFERENCE, REWARD))

    def parameters_of(self, adapter: str) -> dict[str, torch.nn.Parameter]:
        """The weights of an adapter by name, with the value head's among those of `value`."""
        named = {name: weight for name, weight in self.model.named_parameters() if f".{adapter}." in name}
        if adapter == VALUE and self.value_head is not None:
            named["value_head"] = self.value_head.weight
        return dict(sorted(named.items()))

    def divided(self, parts: Sequence[list[int]], work: Callable[[int, list[int]], Found]) -> list[Found]:
        """`work(number, part)` of every part, in their order; several processes divide them (processes.py)."""
        return processes.divided(parts, work)

    # --- what the adapters say ---

    def log_probs(self, rows: Rows) -> Tensor:
        """Log-probability of each completion token under the adapter that is worn. (batch, new), 0 at padding."""
        hidden = self._completion_hidden(rows)  # (batch, new, width)
        there = rows.mask.bool()
        with self._autocast():
            logits = self.model.get_output_embeddings()(hidden[there]).float()  # (tokens, vocabulary)
        if self.temperature != 1.0:
            logits = logits / self.temperature
        found = -torch.nn.functional.cross_entropy(logits, rows.tokens[there], reduction="none")
        return found.new_zeros(rows.mask.shape).masked_scatter(there, found)

    def policy(self, rows: Rows) -> Tensor:
        self.wear(POLICY)
        return self.log_probs(rows)

    @torch.no_grad()
    def reference(self, rows: Rows) -> Tensor:
        """The log-probabilities of the policy that training began with."""
        with self.as_reference():
            return self.log_probs(rows)

    def as_reference(self) -> AbstractContextManager:
        """Answer as the policy that training began with: its frozen copy, or the base without an adapter."""
        if not self.has_parent:
            return self.model.disable_adapter()
        self.wear(REFERENCE)
        return nullcontext()

    def values(self, rows: Rows) -> Tensor:
        """What the value model expects to come, before each completion token. (batch, new), 0 at padding."""
        self.wear(VALUE)
        return self.value_head(self._completion_hidden(rows))[..., 0] * rows.mask

    @torch.no_grad()
    def scores(self, conversations: Sequence[list[int]], together: int) -> list[float]:
        """The reward model's score of each conversation, given as tokens, in the given order.

        Equal ones are scored once: rounding depends on what else is in a batch, and equal texts must come out equal.
        """
        self.wear(REWARD)
        different = sorted(
            {tuple(conversation) for conversation in conversations}, key=lambda one: (len(one), one)
        )
        batches = [
            list(range(start, min(start + together, len(different))))
            for start in range(0, len(different), together)
        ]

        def score(number: int, batch: list[int]) -> list[float]:
            ids, attention = _padded([list(different[i]) for i in batch], self.tokenizer.pad_token_id)
            ids, attention = ids.to(self.device), attention.to(self.device)
            last = ends(attention) - 1
            hidden, first = self._hidden(ids, attention, last)
            last = hidden[torch.arange(len(batch)), last - first]  # (batch, width)
            return self.reward_head(last)[:, 0].tolist()

        found = dict(zip(different, chain(*self.divided(batches, score)), strict=True))
        return [found[tuple(conversation)] for conversation in conversations]

    def _completion_hidden(self, rows: Rows) -> Tensor:
        """The last hidden state before each completion token: what predicts it. (batch, new, width)"""
        hidden, first = self._hidden(rows.ids, rows.attention, rows.starts - 1)
        places = (rows.starts - 1 - first)[:, None] + torch.arange(rows.mask.shape[1], device=hidden.device)
        places = places.clamp(max=hidden.shape[1] - 1)[..., None].expand(-1, -1, hidden.shape[2])
        return hidden.gather(1, places)  # (batch, new) places

    def _hidden(self, ids: Tensor, attention: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """The last hidden states of each row from a column on that is at most `wanted`, and that column."""
        with self._autocast():
            return hidden_states(self.model.get_base_model().base_model, ids, attention, wanted)

    def _autocast(self) -> AbstractContextManager:
        if compute_dtype() != torch.bfloat16:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)
