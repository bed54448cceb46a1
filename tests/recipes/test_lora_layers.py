"""LoRA layers that do less: beside peft's own, on a tiny random model."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, inject_adapter_in_model
from peft.tuners import lora
from transformers.pytorch_utils import Conv1D

from training.recipes import loading
from training.recipes.lora_layers import for_sampling, spare_passes

IDS = torch.tensor([[1, 60, 61, 62, 40, 41, 2], [1, 70, 71, 72, 50, 51, 52]])


def adapted(base: Path, dtype: torch.dtype = torch.float32, **changes) -> PeftModel:
    """The tiny model under an adapter that says something."""
    torch.manual_seed(0)
    policy = loading.load_policy(base, loading.load_tokenizer(base), dtype=dtype)
    config = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": TaskType.CAUSAL_LM}
    model = get_peft_model(policy, LoraConfig(**config | changes), adapter_name="first").eval()
    return speaking(model)


def speaking(model: PeftModel) -> PeftModel:
    """The model with adapters that are the same each time and not nothing, as LoRA begins."""
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return model


def answers_and_gradients(model: PeftModel, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        logits = model(input_ids=IDS).logits.float()
    model.zero_grad()
    logits.pow(2).sum().backward()
    grads = [weight.grad.flatten().float() for weight in model.parameters() if weight.grad is not None]
    return logits.detach(), torch.cat(grads)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_answers_and_gradients_are_those_of_peft(tiny_model, dtype, near):
    model = adapted(tiny_model, dtype)
    wanted = answers_and_gradients(model, dtype)
    with model.disable_adapter(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        assert not torch.allclose(model(input_ids=IDS).logits.float(), wanted[0], atol=0.01)
    spare_passes(model)
    found = answers_and_gradients(model, dtype)
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(ours, theirs, rtol=near, atol=theirs.abs().max() * near)


def test_adapters_are_changed_and_taken_off_as_with_peft(tiny_model):
    model, plain = adapted(tiny_model), adapted(tiny_model)
    for one in (model, plain):
        one.add_adapter("second", LoraConfig(r=2, target_modules="all-linear", task_type=TaskType.CAUSAL_LM))
        speaking(one)
    spare_passes(model)
    seen = []
    with torch.no_grad():
        for worn in ("first", "second"):
            for one in (model, plain):
                one.set_adapter(worn)
            seen.append(model(input_ids=IDS).logits)
            assert torch.allclose(seen[-1], plain(input_ids=IDS).logits, atol=1e-5)
        with model.disable_adapter(), plain.disable_adapter():
            seen.append(model(input_ids=IDS).logits)
            assert torch.equal(seen[-1], plain(input_ids=IDS).logits)
    assert not any(torch.allclose(seen[a], seen[b], atol=1e-3) for a, b in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("changes", [{"lora_dropout": 0.5}, {"use_dora": True}, {"lora_bias": True}])
def test_other_kinds_of_lora_are_left_to_peft(tiny_model, changes, monkeypatch):
    model = adapted(tiny_model, **changes)
    spare_passes(model)
    asked = []
    original = lora.Linear.forward
    monkeypatch.setattr(lora.Linear, "forward", lambda layer, x: asked.append(layer) or original(layer, x))
    with torch.no_grad():
        before = model(input_ids=IDS).logits
        assert len(asked) == sum(type(layer) is lora.Linear for layer in model.modules())
        with for_sampling(model):
            assert torch.allclose(model(input_ids=IDS).logits, before, atol=1e-5)
    assert len(asked) == 2 * sum(type(layer) is lora.Linear for layer in model.modules())


def test_while_it_samples_in_float32_a_layer_is_one_product(tiny_model):
    model = adapted(tiny_model)
    spare_passes(model)
    layers = dict(model.named_modules())
    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    with torch.no_grad():
        before = model(input_ids=IDS).logits
        with pytest.raises(KeyboardInterrupt), for_sampling(model):
            assert not any(isinstance(layer, lora.Linear) for layer in model.modules())
            assert torch.allclose(model(input_ids=IDS).logits, before, atol=1e-5)
            raise KeyboardInterrupt
        assert torch.equal(model(input_ids=IDS).logits, before)
        with model.disable_adapter():
            alone = model(input_ids=IDS).logits
            with for_sampling(model):
                assert torch.allclose(model(input_ids=IDS).logits, alone, atol=1e-5)
    assert all(layer is layers[name] for name, layer in model.named_modules())
    assert all(torch.equal(weight, weights[name]) for name, weight in model.named_parameters())


def test_a_fresh_adapter_writes_as_the_model_without_it_to_the_bit(tiny_model):
    model = adapted(tiny_model)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(weight)
    with torch.no_grad():
        with for_sampling(model):
            fresh = model(input_ids=IDS).logits
        with model.disable_adapter(), for_sampling(model):
            assert torch.equal(model(input_ids=IDS).logits, fresh)


@pytest.mark.parametrize(
    ("layer", "width"),
    [(torch.nn.Linear(8, 1), 8), (torch.nn.Linear(1, 8), 1), (Conv1D(12, 8), 8), (Conv1D(8, 8), 8)],
)
def test_a_layer_of_width_1_or_with_its_weight_turned_is_left_as_it_was(layer, width):
    class Model(torch.nn.Module):
        dtype, device = torch.float32, torch.device("cpu")

        def __init__(self) -> None:
            super().__init__()
            self.part = layer

    model = inject_adapter_in_model(LoraConfig(r=4, target_modules=["part"]), Model())
    speaking(model)
    before = layer.weight.detach().clone()
    x = torch.randn(2, width)
    with torch.no_grad():
        wanted = model.part(x)
        assert not torch.allclose(layer(x), wanted, atol=1e-3)
        spare_passes(model)
        assert torch.allclose(model.part(x), wanted, atol=1e-5)
        for _ in range(2):
            with for_sampling(model):
                assert torch.allclose(model.part(x), wanted, atol=1e-5)
    assert torch.equal(layer.weight, before)


def test_while_it_samples_in_bfloat16_an_adapter_is_cast_once_and_comes_back_exact(tiny_model):
    model = adapted(tiny_model, torch.bfloat16)
    weights = {name: weight for name, weight in model.named_parameters() if "lora_" in name}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    with for_sampling(model):
        cast = [weight for name, weight in model.named_parameters() if "lora_" in name]
        assert {weight.dtype for weight in cast} == {torch.bfloat16}
    for name, weight in model.named_parameters():
        if name in weights:
            assert weight is weights[name] and weight.requires_grad
            assert torch.equal(weight, before[name])
