"""Bringing in preference pairs and answers from elsewhere, as a dataset of its own."""

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from annotation.models import Judgment, Project, Prompt
from annotation.splits import content_hash, first_user_turn, normalised, split_of
from rankloop.accounts.models import User
from rankloop.audit.services import record
from training import store
from training.importing import ImportedRow, read_dataset
from training.models import PreferenceDataset
from training.preferences import ROWS_FILE, count_rows
from training.services.snapshots import FORMAT


def import_dataset(
    *, project: Project, content: bytes, file: str, user: User | None = None
) -> PreferenceDataset:
    """A dataset of every row of a JSONL file, or none. The same rows always give the same dataset.

    Prompts fall on their side of the split as everywhere: by their first turn, and held out where the project holds out
    one that begins so, or a row asks for it. Raises ImportErrors naming file, line, field and reason.
    """
    rows = _rows(project, read_dataset(content, file=file))
    lines = [store.canonical(row) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / ROWS_FILE).write_bytes(b"\n".join(lines) + b"\n")
        digests = [hashlib.sha256(line).hexdigest() for line in lines]
        digest = store.publish(Path(folder), about={"format": FORMAT, "rows": digests})
    with transaction.atomic():
        dataset, created = PreferenceDataset.objects.get_or_create(
            project=project,
            digest=digest,
            defaults={
                "sources": [Judgment.Source.IMPORTED],
                "counts": count_rows(rows),
                "imported_from": file[:200],
            },
        )
        if created:
            record(
                "dataset imported",
                actor=user,
                project=project.slug,
                subject=digest,
                file=file,
                rows=len(rows),
            )
    return dataset


def _rows(project: Project, read: Sequence[ImportedRow]) -> list[dict[str, Any]]:
    """Canonical rows as those of a snapshot: `ranking` is the line, `prompt` counts the different prompts.

    What was chosen of a pair is an answer to imitate, too.
    """
    hashes = [content_hash(row.messages) for row in read]
    kept_back = project.prompts.filter(split=Prompt.Split.HELD_OUT).values_list("messages", flat=True)
    held_out = {
        normalised(first_user_turn(messages))
        for messages in (*(row.messages for row in read if row.held_out), *kept_back.iterator())
    }
    numbers: dict[str, int] = {}
    imitated: set[tuple[str, str]] = set()  # prompt and text: one chosen in several pairs comes once
    rows = []
    for one, row in zip(hashes, read, strict=True):
        split = split_of(row.messages, salt=settings.SPLIT_SALT, held_out_share=settings.HELD_OUT_SHARE)
        prompt = numbers.setdefault(one, len(numbers) + 1)
        is_held_out = normalised(first_user_turn(row.messages)) in held_out
        texts = [store.put_text(text) for text in row.texts]
        ranked = [{"completion": place, "text": text, "rank": place} for place, text in enumerate(texts, 1)]
        comes_again = row.is_pair and (one, texts[0]) in imitated
        imitated.add((one, texts[0]))
        rows.append(
            {
                "ranking": row.line,
                "comparison": prompt,
                "prompt": prompt,
                "split": Prompt.Split.HELD_OUT if is_held_out else split,
                "messages": [
                    {"role": message["role"], "text": store.put_text(message["content"])}
                    for message in row.messages
                ],
                "source": Judgment.Source.IMPORTED,
                "outcome": Judgment.Outcome.RANKED if row.is_pair else Judgment.Outcome.DEMONSTRATED,
                "strength": row.strength,
                "weight": row.weight,
                "completions": ranked if row.is_pair else [],
                "edits": [] if comes_again else [{"text": texts[0], "edited_from": None}],
            }
        )
    return rows
