"""The model inside a TRL trainer, worn as the shared base that PPO has: it writes, is its own reference, and judges."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from training.recipes.shared_base import POLICY, REFERENCE, REWARD, Found, SharedBase


class TrainersBase(SharedBase):
    """The model inside a TRL trainer: its policy is named `default`, and `ref` the frozen copy of a parent."""

    NAMES = {POLICY: "default", REFERENCE: "ref"}

    def __init__(self, model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.has_parent = "ref" in model.peft_config
        self.value_head = self.reward_head = None

    def add_parent(self, parent: Path) -> None:
        """The frozen copy of a parent that a trainer without a reference has not made."""
        self.model.load_adapter(parent, adapter_name=self.NAMES[REFERENCE], is_trainable=False)
        self.has_parent = True

    def wear(self, adapter: str) -> None:
        frozen = adapter in (REFERENCE, REWARD)
        self.model.set_adapter(self.NAMES.get(adapter, adapter), inference_mode=frozen)

    def divided(self, parts: Sequence[list[int]], work: Callable[[int, list[int]], Found]) -> list[Found]:
        """Every process does all of them: under FSDP2 each forward needs all processes, with as many tokens."""
        return [work(number, part) for number, part in enumerate(parts)]

    def back_to_training(self) -> None:
        """As the trainer knows it: wearing the policy, in training mode."""
        self.wear(POLICY)
        self.model.train()

    def save_the_policy_alone(self) -> None:
        """A checkpoint of the trainer holds what learns: reference and reward model are where they came from."""
        self.model.save_pretrained = functools.partial(
            self.model.save_pretrained, selected_adapters=[self.NAMES[POLICY]]
        )
