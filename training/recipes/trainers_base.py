"""The model inside a TRL trainer, worn as the shared base that PPO has: it writes, is its own reference, and judges."""

import functools
from typing import Any

from transformers import Trainer

from training.recipes.fitting import NO_WHOLE_MODEL
from training.recipes.lora_layers import spare_passes
from training.recipes.rollouts import HeldOut, Reward
from training.recipes.run_dir import RecipeError
from training.recipes.shared_base import POLICY, REFERENCE, REWARD, SharedBase


class TrainersBase(SharedBase):
    """The model inside a TRL trainer: its policy is named `default`, and `ref` the frozen copy of a parent."""

    NAMES = {POLICY: "default", REFERENCE: "ref"}

    def __init__(self, trainer: Trainer, parent: str | None) -> None:
        """Raises RecipeError where the whole model is on no card."""
        if trainer.is_fsdp_enabled:
            raise RecipeError(NO_WHOLE_MODEL)
        self.model, self.tokenizer = trainer.model, trainer.processing_class
        self.has_parent = parent is not None
        if parent is not None and self.NAMES[REFERENCE] not in self.model.peft_config:
            # A trainer that needs no reference has made none.
            self.model.load_adapter(parent, adapter_name=self.NAMES[REFERENCE], is_trainable=False)
        spare_passes(self.model)
        self.value_head = self.reward_head = None

    def wear(self, adapter: str) -> None:
        frozen = adapter in (REFERENCE, REWARD)
        self.model.set_adapter(self.NAMES.get(adapter, adapter), inference_mode=frozen)

    def back_to_training(self) -> None:
        """As the trainer knows it: wearing the policy, in training mode."""
        self.wear(POLICY)
        self.model.train()

    def evaluate(self, held_out: HeldOut, reward: Reward, *, at_start: bool) -> dict[str, Any]:
        """As PPO is evaluated. Sampling draws random numbers of its own: training goes on as if it had not been."""
        found = held_out.evaluate(self, reward, at_start=at_start)
        self.back_to_training()
        return found

    def save_the_policy_alone(self) -> None:
        """A checkpoint of the trainer holds what learns: reference and reward model are where they came from."""
        self.model.save_pretrained = functools.partial(
            self.model.save_pretrained, selected_adapters=[self.NAMES[POLICY]]
        )
