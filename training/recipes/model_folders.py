"""Whether a folder of weights may be opened, judged by its files alone. Standard library only, no torch.

An upload, a checkpoint and a base model are data from somebody else. What may be in their configuration is listed here;
anything that could make a library run code or fetch some is refused, with the file and the remedy. `loading.py` asks
before it opens a folder; the platform asks before it takes one in, so that nothing is found out after an hour.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from training.recipes.fingerprints import disagreement
from training.recipes.run_dir import RecipeError

PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".h5"}
CODE = {".py", ".pyc", ".so"}
HEADER_LIMIT = 100_000_000  # bytes; safetensors' own
# Anything else names a kernel on a hub, which is code.
ATTENTIONS = (None, "eager", "sdpa", "flash_attention_2", "flex_attention")

# Where a config.json may hold words, at any depth: they name parts that transformers has. Numbers name nothing; a word
# under another key could name code from elsewhere.
TEXT_KEYS = {
    *("model_type", "architectures", "dtype", "torch_dtype", "transformers_version"),
    *("_name_or_path", "_model_name_or_path"),  # never followed
    *(
        "unsloth_version",
        "tokenizer_class",
        "problem_type",
        "finetuning_task",
        "prefix",
        "cache_implementation",
    ),
    *(
        "hidden_act",
        "hidden_activation",
        "activation_function",
        "activation",
        "act_fn",
        "afn",
        "ff_activation",
    ),
    *(
        "mamba_hidden_act",
        "mlp_hidden_act",
        "hidden_mamba_act",
        "conv_activation",
        "dense_act_fn",
        "feed_forward_proj",
    ),
    *("summary_type", "summary_activation", "classifier_activation", "norm_type", "rope_type", "type"),
    *(
        "position_embedding_type",
        "attention_type",
        "attention_types",
        "attention_layers",
        "attn_type",
        "attn_layers",
    ),
    *("layer_types", "mlp_layer_types", "layers_block_type", "block_types", "indexer_types", "scoring_func"),
    *(
        "topk_method",
        "expert_selection_fn",
        "mamba_ssm_cache_dtype",
        "attn_implementation",
        "_attn_implementation",
    ),
    *(
        "_attn_implementation_internal",
        "time_step_init_scheme",
        "shared_expert_combination_strategy",
        "init_device",
    ),
    *("use_bidirectional_attention", "mtp_layers_block_type"),
}
FREE_KEYS = {"id2label", "label2id", "task_specific_params"}  # what is in them is text for people

# What an adapter_config.json may say, key by key. peft adds keys with each version: one that is not listed may be there
# as long as it is switched off.
_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
HEADS = {"score", "classifier"}  # peft's names for the head of a reward model
_OFF = (None, False, {}, [])
ADAPTER_KEYS: dict[str, Callable[[Any], bool]] = {
    "peft_type": lambda value: value == "LORA",
    "task_type": lambda value: value in ("CAUSAL_LM", "SEQ_CLS"),
    "peft_version": lambda value: value is None or isinstance(value, str),
    "base_model_name_or_path": lambda value: value is None or isinstance(value, str),  # never followed
    "revision": lambda value: value is None or isinstance(value, str),  # nor this
    "inference_mode": lambda value: isinstance(value, bool),
    "r": lambda value: type(value) is int and 1 <= value <= 1024,
    "lora_alpha": lambda value: type(value) in (int, float) and 0 < value <= 1e6,
    "lora_dropout": lambda value: type(value) in (int, float) and 0 <= value < 1,
    "target_modules": lambda value: value == "all-linear" or _are_names(value),
    "modules_to_save": lambda value: value is None or (_are_names(value) and {*value} <= HEADS),
    "bias": lambda value: value == "none",
    "use_rslora": lambda value: isinstance(value, bool),
    "init_lora_weights": lambda value: (
        value in (True, False, "gaussian")
    ),  # others rewrite the base's own weights
    "megatron_core": lambda value: (
        value in (None, "megatron.core")
    ),  # imported only where megatron_config is set
    "qalora_group_size": lambda value: type(value) is int,  # read only where use_qalora is set
}
_LORA = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<side>[AB])\.weight")
_HEAD = "base_model.model.score.weight"
# The layer's number and what follows: libraries put different things before it.
_PLACE = re.compile(r"(?:^|\.)(\d+\..+)$")


def _are_names(value: Any) -> bool:
    """Whether it is a list of plain names: a text would be read as a pattern."""
    return isinstance(value, list) and all(isinstance(name, str) and _NAME.fullmatch(name) for name in value)


# --- folders ---


def check_model(folder: Path) -> dict[str, Any]:
    """The config.json of a model's folder. Raises RecipeError unless it can be opened without running code of it."""
    config = _check_files(folder, "config.json")
    for name in ("config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json"):
        if (folder / name).is_file() and _mentions(read_json(folder / name), "auto_map"):
            raise RecipeError(
                f"{folder}/{name} asks for code of its own (auto_map). Use a model without remote code."
            )
    if _mentions(config, "quantization_config") or _mentions(config, "compression_config"):
        raise RecipeError(
            f"{folder}/config.json asks for quantised weights, whose kernels are code from elsewhere. "
            "Save the model with plain weights (bfloat16 or float32)."
        )
    for key in _text_keys(config) - TEXT_KEYS:
        raise RecipeError(
            f"{folder}/config.json has words under {shortened(key)}, which is not on the list of what a model may "
            "name. Remove it from there unless the model needs it; one that does can't be used."
        )
    for key in ("attn_implementation", "_attn_implementation", "_attn_implementation_internal"):
        for value in _values_of(config, key):
            if value not in ATTENTIONS:
                raise RecipeError(
                    f"{folder}/config.json asks for the attention {value!r}, code from elsewhere. Remove {key} from it."
                )
    tensors_of(folder)
    return config


def check_adapter(folder: Path, base: Path | None = None) -> dict[str, Any]:
    """The adapter_config.json of a LoRA adapter's folder. Raises RecipeError unless it and its tensors are on the list.

    With `base`, each tensor must belong to one of that model's layers and have its shape.
    """
    if (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        raise RecipeError(
            f"{folder} is a whole model: it has no adapter_config.json. A LoRA adapter is needed here, one that was "
            "trained with weights set to lora."
        )
    config = _check_files(folder, "adapter_config.json")
    where = f"{folder}/adapter_config.json"
    if config.get("peft_type") != "LORA":
        raise RecipeError(f"{where} is of a {config.get('peft_type')} adapter. Only LoRA adapters are read.")
    for key, value in config.items():
        allowed = ADAPTER_KEYS.get(key, lambda value: value in _OFF)
        if not allowed(value):
            raise RecipeError(
                f"{where} has {key} = {shortened(value)}, which is not on the list of what an adapter may ask for. "
                "Train or save the adapter without it."
            )
    tensors = tensors_of(folder)
    for name, shape in tensors.items():
        found = _LORA.fullmatch(name)
        if len(shape) != 2 or not (found or (name == _HEAD and config.get("task_type") == "SEQ_CLS")):
            raise RecipeError(f"{folder} holds a tensor {shortened(name)}, which no LoRA adapter has.")
    if base is not None:
        _refuse_misfit(folder, tensors, base)
    return config


def _text_keys(config: Mapping[str, Any]) -> set[str]:
    """Keys under which a configuration has words, at any depth."""
    found = set()
    for key, value in config.items():
        if key in FREE_KEYS:
            continue
        inner = value if isinstance(value, list) else [value]
        if any(isinstance(one, str) for one in inner):
            found.add(key)
        for one in inner:
            if isinstance(one, Mapping):
                found |= _text_keys(one)
    return found


def _check_files(folder: Path, config_name: str) -> dict[str, Any]:
    """The parsed `config_name` of a folder that holds safetensors weights and nothing that could run."""
    if not (folder / config_name).is_file():
        raise RecipeError(
            f"{folder} is no model folder: it has no {config_name}. Give a folder saved as safetensors."
        )
    files = sorted(file for file in folder.rglob("*") if not file.is_dir())
    for kinds, what in ((PICKLES, "pickle files, which can run code when read"), (CODE, "code of its own")):
        found = [file.relative_to(folder).as_posix() for file in files if file.suffix.lower() in kinds]
        if found:
            raise RecipeError(
                f"{folder} holds {what}: {', '.join(found[:5])}. Save the model as safetensors and delete them."
            )
    if not any(folder.glob("*.safetensors")):
        raise RecipeError(f"{folder} holds no *.safetensors weights. Save the model with save_pretrained().")
    config = read_json(folder / config_name)
    if _mentions(config, "auto_map"):
        raise RecipeError(
            f"{folder}/{config_name} asks for code of its own (auto_map). Use a model without remote code."
        )
    return config


def _refuse_misfit(folder: Path, tensors: Mapping[str, tuple[int, ...]], base: Path) -> None:
    """Raise RecipeError when a tensor of an adapter belongs to no layer of the base."""
    shapes: dict[str, set[tuple[int, ...]]] = {}
    for name, shape in tensors_of(base).items():
        shapes.setdefault(_place(name.removesuffix(".weight")), set()).add(shape)
    for name, shape in tensors.items():
        found = _LORA.fullmatch(name)
        if found is None:
            continue
        # A is (rank, in) and B (out, rank); the layer's weight is (out, in), in some models the other way round.
        width = shape[1] if found["side"] == "A" else shape[0]
        if not any(width in layer for layer in shapes.get(_place(found["layer"]), ())):
            raise RecipeError(
                f"The adapter {folder} does not fit the base {base}, "
                f"which has no layer for {shortened(name)} {shape}. Choose an adapter trained on this base."
            )


def _place(layer: str) -> str:
    found = _PLACE.search(layer)
    return found[1] if found else layer.rpartition(".")[2]


# --- files ---


def of_language_model(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config.json says of the language model, also where that is a part of a larger model."""
    return {**config, **config.get("text_config", {})}


def context_window(config: Mapping[str, Any]) -> int | None:
    """How many tokens the model of a config.json reads at most; None where it does not tell."""
    return of_language_model(config).get("max_position_embeddings")


def tensors_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in a folder's safetensors files, by their headers alone.

    Raises RecipeError naming a file that is not one, or is cut off.
    """
    found: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            found |= _header_of(file)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RecipeError(
                f"{file} is not whole safetensors ({error}). Save or copy the model again."
            ) from None
    return found


def _header_of(file: Path) -> dict[str, tuple[int, ...]]:
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 0 < length <= min(size - 8, HEADER_LIMIT):
            raise ValueError("it does not begin with a header")
        header = json.loads(opened.read(length))
    header.pop("__metadata__", None)
    if size != 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0):
        raise ValueError("its size is not what its header says")
    return {name: tuple(map(int, tensor["shape"])) for name, tensor in header.items()}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, or RecipeError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path} is not JSON ({error}). Save the model again.") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path} is not a JSON object. Save the model again.")
    return content


def _values_of(content: Any, key: str) -> list[Any]:
    """Every value under `key`, however deep: a model of several parts has a configuration in its configuration."""
    if isinstance(content, list):
        return [value for part in content for value in _values_of(part, key)]
    if not isinstance(content, dict):
        return []
    here = [content[key]] if key in content else []
    return here + [value for part in content.values() for value in _values_of(part, key)]


def _mentions(content: Any, key: str) -> bool:
    return any(value is not None for value in _values_of(content, key))


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def refuse_disagreement(base: Path, adapters: Mapping[str, Path]) -> None:
    """Raise RecipeError when an adapter was trained on another tokenizer or chat template than the base has.

    `adapters` are folders by what they are to the run ("parent", "reward model").
    """
    for role, adapter in adapters.items():
        other = disagreement(base, adapter)
        if other is not None:
            raise RecipeError(
                f"The {role} was trained with another {other} than the base {base.name} has, and would misread every "
                f"conversation. Choose a {role} trained on this base."
            )
