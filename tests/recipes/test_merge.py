"""Merging an adapter into its base: the whole model says what both said together, for policies and reward models."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from tests.recipes.runs import make_training_run, run_here
from training.recipes.merge import WITHIN
from training.recipes.run_dir import RecipeError

MODELS = {"dpo": AutoModelForCausalLM, "reward": AutoModelForSequenceClassification}


def merge(folder: Path, base: Path, adapter: Path) -> tuple[Path, dict]:
    """(the merged model's folder, what was measured)"""
    folder.mkdir(parents=True)
    config = {"method": "merge", "base": str(base), "adapter": str(adapter), "threads": 1}
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "output", run_here(folder)


@pytest.fixture(scope="module", params=["dpo", "reward"])
def trained(request, tiny_model, tmp_path_factory) -> tuple[str, Path]:
    """(method, its adapter)"""
    run = make_training_run(
        tmp_path_factory.mktemp("trained") / "run", request.param, tiny_model, options={"steps": 2}
    )
    run_here(run)
    return request.param, run / "output"


@pytest.fixture(scope="module")
def merged(trained, tiny_model, tmp_path_factory) -> tuple[Path, dict]:
    return merge(tmp_path_factory.mktemp("merged") / "run", tiny_model, trained[1])


@torch.no_grad()
def test_the_merged_model_answers_as_base_and_adapter_did_together(trained, merged, tiny_model):
    method, adapter = trained
    folder, measured = merged
    ids = torch.tensor([[5, 9, 12, 33, 7, 21]])
    head = {"num_labels": 1} if method == "reward" else {}
    base = MODELS[method].from_pretrained(tiny_model, dtype=torch.float32, **head).eval()
    base.config.pad_token_id = 0
    plain = base(input_ids=ids).logits
    together = PeftModel.from_pretrained(base, adapter).eval()(input_ids=ids).logits
    whole = MODELS[method].from_pretrained(folder, dtype=torch.float32).eval()(input_ids=ids).logits
    assert torch.allclose(whole, together, atol=1e-4)
    assert not torch.allclose(whole, plain, atol=1e-3)
    assert measured["moved"] < 1e-3 and measured["dtype"] == "float32"


def test_it_is_a_whole_model_with_its_tokenizer_and_nothing_of_an_adapter(trained, merged, tiny_model):
    folder, _ = merged
    names = {file.name for file in folder.iterdir()}
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= names
    assert not any("adapter" in name for name in names)
    assert not any("lora" in name for name in load_file(folder / "model.safetensors"))
    was, now = (AutoTokenizer.from_pretrained(each) for each in (tiny_model, folder))
    assert now.chat_template == was.chat_template
    assert now("Say something.").input_ids == was("Say something.").input_ids
    assert str(tiny_model.parent) not in (folder / "config.json").read_text()


def dtypes_in(folder: Path) -> set[torch.dtype]:
    return {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()}


def test_it_keeps_the_number_format_of_the_base(trained, half_model, tmp_path):
    method, adapter = trained
    folder, measured = merge(tmp_path / "run", half_model, adapter)
    assert dtypes_in(folder) == {torch.bfloat16}
    assert 0 < measured["moved"] < 0.05
    if method == "dpo":
        assert measured["moved"] < measured["adapter_moves"]


def test_what_rounding_would_make_another_model_stays_in_float32(trained, half_model, tmp_path, monkeypatch):
    monkeypatch.setitem(WITHIN, torch.bfloat16, 0.0)
    folder, measured = merge(tmp_path / "run", half_model, trained[1])
    assert dtypes_in(folder) == {torch.float32}
    assert json.loads((folder / "config.json").read_text())["dtype"] == measured["dtype"] == "float32"
    assert measured["moved"] < 1e-3


@pytest.mark.slow
def test_a_policy_of_the_default_model_keeps_its_number_format(default_model, tmp_path):
    from training.recipes.loading import lora_config

    torch.manual_seed(1)
    policy = AutoModelForCausalLM.from_pretrained(default_model, dtype=torch.float32)
    policy = get_peft_model(policy, lora_config(8, 16, TaskType.CAUSAL_LM))
    for name, weight in policy.named_parameters():
        if "lora_B" in name:  # about as far as thirty steps of DPO bring them
            torch.nn.init.normal_(weight, std=2e-3)
    policy.save_pretrained(tmp_path / "adapter")
    folder, measured = merge(tmp_path / "run", default_model, tmp_path / "adapter")
    assert dtypes_in(folder) == {torch.bfloat16}
    assert measured["moved"] < measured["adapter_moves"]


def test_an_adapter_that_does_not_fit_or_is_none_is_refused_and_nothing_is_written(
    trained, tiny_model, tmp_path
):
    broken = tmp_path / "broken"
    shutil.copytree(trained[1], broken)
    weights = load_file(broken / "adapter_model.safetensors")
    name = next(name for name in weights if "lora_A" in name)
    save_file(weights | {name: weights[name][:, :-1].contiguous()}, broken / "adapter_model.safetensors")
    with pytest.raises(RecipeError, match="does not fit the base"):
        merge(tmp_path / "first", tiny_model, broken)
    with pytest.raises(RecipeError, match=r"has no adapter_config\.json"):
        merge(tmp_path / "second", tiny_model, tiny_model)
    assert not (tmp_path / "first" / "output").exists()


def test_a_merged_model_that_answers_otherwise_is_not_given_out(trained, tiny_model, tmp_path, monkeypatch):
    save = PreTrainedModel.save_pretrained

    def damaged(self, folder, **options):
        with torch.no_grad():
            next(self.parameters()).mul_(1.5)
        save(self, folder, **options)

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", damaged)
    with pytest.raises(RuntimeError, match="answers otherwise"):
        merge(tmp_path / "run", tiny_model, trained[1])
    assert not (tmp_path / "run" / "output").exists()
