"""Registering contestants: the same source of completions is always the same row."""

import hashlib
import json
from typing import Any

from annotation.models import Contestant, Project


def contestant_digest(*, weights: str, system_prompt: str, retriever: str, decoding: dict[str, Any]) -> str:
    """SHA-256 (hex) over everything that decides what a contestant writes. `weights` is a checkpoint's digest."""
    canonical = json.dumps([weights, system_prompt, retriever, decoding], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def register_contestant(
    *,
    project: Project,
    name: str,
    weights: str,
    decoding: dict[str, Any],
    system_prompt: str = "",
    retriever: str = "",
    kind: str = Contestant.Kind.POLICY,
) -> Contestant:
    """The contestant of that source, made when it is new. An existing one keeps its name."""
    digest = contestant_digest(
        weights=weights, system_prompt=system_prompt, retriever=retriever, decoding=decoding
    )
    contestant, _ = Contestant.objects.get_or_create(
        project=project,
        digest=digest,
        defaults={
            "name": name,
            "kind": kind,
            "system_prompt": system_prompt,
            "retriever": retriever,
            "decoding": decoding,
        },
    )
    return contestant
