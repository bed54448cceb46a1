"""Reading a frozen dataset from the store."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.db.models import Max, QuerySet

from annotation.models import Judgment, Project
from rankloop.accounts.models import User
from training import store
from training.models import PreferenceDataset
from training.preferences import ROWS_FILE, pair_lines, sft_lines, text_digests


def pairs_of(dataset: PreferenceDataset, *, split: str) -> Iterator[dict[str, Any]]:
    """The pairs of one split in TRL's preference form, as a training run would read them.

    Raises DamagedArtifact and ErasedText before the first pair, not in the midst of them.
    """
    rows, texts = _read(dataset, split)
    return pair_lines(rows, texts=texts, split=split)


def demonstrations_of(dataset: PreferenceDataset, *, split: str) -> Iterator[dict[str, Any]]:
    """The approved written answers of one split in TRL's prompt and completion form. Raises as `pairs_of` does."""
    rows, texts = _read(dataset, split)
    return sft_lines(rows, texts=texts, split=split)


def rows_of(dataset: PreferenceDataset) -> Iterator[dict[str, Any]]:
    """Its rows, as they were frozen. Raises DamagedArtifact."""
    with (store.fetch(dataset.digest) / ROWS_FILE).open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _read(dataset: PreferenceDataset, split: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    rows = [row for row in rows_of(dataset) if row["split"] == split]
    return rows, {digest: store.get_text(digest) for digest in text_digests(rows)}


def revised_since(dataset: PreferenceDataset) -> datetime | None:
    """When a judgment in the dataset was last revised or withdrawn after the freeze; None: never."""
    return dataset.members.aggregate(last=Max("judgment__superseded_by__created_at"))["last"]


def annotators_of(project: Project) -> QuerySet[User]:
    """Everybody who has judged something in the project, by name."""
    judged = Judgment.objects.filter(comparison__round__project=project)
    return User.objects.filter(pk__in=judged.values("annotator")).order_by("username")


def left_out(dataset: PreferenceDataset) -> dict[str, Any] | None:
    """What its filters left out: {"without": usernames, "guideline_from", "left_out": judgments}. None: nothing."""
    if not dataset.filters:
        return None
    names = User.objects.filter(pk__in=dataset.filters["without"]).order_by("username")
    return {**dataset.filters, "without": list(names.values_list("username", flat=True))}


def jsonl(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """Rows as lines of a JSONL file."""
    for row in rows:
        yield json.dumps(row, ensure_ascii=False) + "\n"
