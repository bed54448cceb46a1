"""Safetensors files and LoRA adapters that are only files: no torch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# One linear layer of two inputs and two outputs.
LAYER = "model.layers.0.self_attn.q_proj"
ADAPTER = {
    f"base_model.model.{LAYER}.lora_A.weight": (1, 2),
    f"base_model.model.{LAYER}.lora_B.weight": (2, 1),
}
ADAPTER_CONFIG: dict[str, Any] = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 1, "lora_alpha": 2}


def safetensors(shapes: Mapping[str, Sequence[int]], content: bytes = b"") -> bytes:
    """A safetensors file of bytes in the given shapes, filled with `content` again and again."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 1
        for length in shape:
            size *= length
        header[name] = {"dtype": "U8", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    filling = (content or b"\0") * end
    return len(text).to_bytes(8, "little") + text + filling[:end]


def write_adapter(folder: Path, content: bytes = b"", **config: Any) -> Path:
    """A folder with an adapter for LAYER, whose configuration says `config` besides the usual."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER_CONFIG | config))
    (folder / "adapter_model.safetensors").write_bytes(safetensors(ADAPTER, content))
    return folder
