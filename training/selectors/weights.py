"""What a checkpoint's files are: an adapter's rank and targets, the number of parameters, the size. Without torch."""

import json
from dataclasses import dataclass, field
from math import prod
from typing import Any

from training import store
from training.models import Checkpoint, RunInput

ADAPTER_CONFIG = "adapter_config.json"
_LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit


@dataclass(frozen=True)
class Weights:
    """The files of a checkpoint. `rank` and what follows are an adapter's; whole weights have none."""

    size: int  # bytes, all files together
    parameters: int
    dtypes: list[str]
    rank: int | None = None
    alpha: float | None = None
    targets: list[str] = field(default_factory=list)
    heads: list[str] = field(
        default_factory=list
    )  # saved whole beside the adapter: a reward model's score head
    parent: Checkpoint | None = None  # the adapter that training went on from

    @property
    def is_adapter(self) -> bool:
        return self.rank is not None


def weights_of(checkpoint: Checkpoint) -> Weights:
    """Read from the manifest, the configuration and the heads of the files, a few kilobytes in all.

    Raises DamagedArtifact, naming the file that is missing or is not what it should be.
    """
    files = store.read_manifest(checkpoint.digest)["files"]
    tensors = [
        tensor
        for name in files
        if name.endswith(".safetensors")
        for tensor in _tensors(checkpoint.digest, name)
    ]
    found: dict[str, Any] = {
        "size": sum(file["size"] for file in files.values()),
        "parameters": sum(prod(tensor["shape"]) for tensor in tensors),
        "dtypes": sorted({str(tensor["dtype"]) for tensor in tensors}),
    }
    if ADAPTER_CONFIG in files:
        config = _adapter_config(checkpoint.digest)
        targets = config.get("target_modules") or []
        found |= {
            "rank": int(config.get("r", 0)),
            "alpha": config.get("lora_alpha"),
            "targets": [targets] if isinstance(targets, str) else sorted(map(str, targets)),
            "heads": sorted(map(str, config.get("modules_to_save") or [])),
            "parent": _parent_of(checkpoint),
        }
    return Weights(**found)


def _parent_of(checkpoint: Checkpoint) -> Checkpoint | None:
    if checkpoint.run is None:
        return None
    found = checkpoint.run.inputs.filter(role=RunInput.Role.PARENT).select_related("checkpoint").first()
    return found.checkpoint if found else None


def _adapter_config(digest: str) -> dict[str, Any]:
    try:
        config = json.loads(store.read_head(digest, ADAPTER_CONFIG))
        int(config.get("r", 0))
    except (ValueError, AttributeError, TypeError):
        raise store.DamagedArtifact(f"Artifact {digest[:12]}: {ADAPTER_CONFIG} can't be read.") from None
    return config


def _tensors(digest: str, name: str) -> list[dict[str, Any]]:
    """The head of a safetensors file: eight bytes of length, then JSON that names each tensor's dtype and shape."""
    length = int.from_bytes(store.read_head(digest, name, 8), "little")
    try:
        if not 0 < length <= _LONGEST_HEADER:
            raise ValueError(length)
        header = json.loads(store.read_head(digest, name, 8 + length)[8:])
        tensors = [tensor for key, tensor in header.items() if key != "__metadata__"]
        for tensor in tensors:
            prod(tensor["shape"]), tensor["dtype"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise store.DamagedArtifact(f"Artifact {digest[:12]}: {name} is no whole safetensors file.") from None
    return tensors
