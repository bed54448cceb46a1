"""Which tokenizer and chat template a model folder has, as digests: what an adapter learnt to read. No torch.

A reward model scores the very string it was trained on, so a policy with another tokenizer or template must not be
rewarded by it: every adapter keeps both digests in its recipe.json, and a launch compares them.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

NAMES = {"tokenizer": "tokenizer", "chat_template": "chat template"}


def fingerprints(folder: Path) -> dict[str, str]:
    """SHA-256 of tokenizer.json and of the chat template of a model folder; empty where it has none."""
    tokenizer = folder / "tokenizer.json"
    template = _template(folder)
    return {
        "tokenizer": hashlib.sha256(tokenizer.read_bytes()).hexdigest() if tokenizer.is_file() else "",
        "chat_template": hashlib.sha256(template.encode()).hexdigest() if template else "",
    }


def recorded(adapter: Path) -> dict[str, str]:
    """What an adapter's recipe.json says it was trained with; nothing for one that was made before this was kept."""
    facts = _read(adapter / "recipe.json")
    return {name: facts[name] for name in NAMES if isinstance(facts.get(name), str)}


def disagreement(base: Path, adapter: Path) -> str | None:
    """What of an adapter's tokenizer or template is not the base's, or None when they agree."""
    has = fingerprints(base)
    other = [NAMES[name] for name, digest in recorded(adapter).items() if digest != has[name]]
    return " and ".join(other) or None


def _template(folder: Path) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = _read(folder / "tokenizer_config.json").get("chat_template") or ""
    return template if isinstance(template, str) else json.dumps(template, sort_keys=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
