"""Freezing a round's judgments into a PreferenceDataset."""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from django.db import connection, transaction

from annotation.models import Judgment, Project, Round
from annotation.selectors.review import waiting_in
from rankloop.accounts.models import User
from rankloop.audit.services import record
from rankloop.errors import Refused
from training import store
from training.models import DatasetMember, PreferenceDataset
from training.preferences import ROWS_FILE, count_rows

# /1 had no flags, aspects, comments, edits and demonstrations; what reads rows copes with both.
FORMAT = "rankloop-preferences/2"

# One statement reads everything: PostgreSQL gives a statement one snapshot, so it sees one moment.
# A revision stands for what it supersedes. Written answers are taken once a reviewer has approved them, so a
# demonstration without an approved answer is not there yet.
_READ = """
SELECT judgment.id, judgment.comparison_id, comparison.kind, prompt.id, prompt.split, prompt.messages::json,
       judgment.annotator_id, judgment.source, judgment.outcome, judgment.strength, judgment.reason,
       guideline.version, round.number, assignment.leak_masked,
       (SELECT json_agg(json_build_object(
                'completion', completion.id, 'contestant', completion.contestant_id, 'text', completion.text,
                'edited_from', completion.edited_from_id, 'rank', ranked.rank, 'flags', coalesce(ranked.flags, '{}'),
                'aspects', coalesce(ranked.aspects, '{}'), 'comment', coalesce(ranked.comment, ''))
                ORDER BY completion.id)
        FROM annotation_comparisoncompletion entry
        JOIN annotation_completion completion ON completion.id = entry.completion_id
        LEFT JOIN annotation_rankedcompletion ranked
               ON ranked.judgment_id = judgment.id AND ranked.completion_id = completion.id
        WHERE entry.comparison_id = comparison.id),
       written.answers,
       judgment.annotator_id <> ALL(%s) AND (%s::int IS NULL OR coalesce(guideline.version >= %s::int, false))
FROM annotation_judgment judgment
JOIN annotation_assignment assignment ON assignment.id = judgment.assignment_id
JOIN annotation_comparison comparison ON comparison.id = judgment.comparison_id
JOIN annotation_round round ON round.id = comparison.round_id
JOIN annotation_prompt prompt ON prompt.id = comparison.prompt_id
LEFT JOIN annotation_guideline guideline ON guideline.id = judgment.guideline_id
LEFT JOIN LATERAL (
    SELECT json_agg(json_build_object(
               'completion', answer.id, 'text', answer.text, 'edited_from', answer.edited_from_id,
               'author', judgment.annotator_id) ORDER BY answer.id) AS answers
    FROM annotation_completion answer
    WHERE answer.judgment_id = judgment.id AND answer.review = 'approved') AS written ON true
WHERE round.id = ANY(%s) AND round.project_id = %s AND judgment.source = ANY(%s) AND judgment.slot_id IS NOT NULL
  AND judgment.outcome <> 'withdrawn' AND (judgment.outcome <> 'demonstrated' OR written.answers IS NOT NULL)
  AND NOT EXISTS (SELECT FROM annotation_judgment newer WHERE newer.supersedes_id = judgment.id)
ORDER BY judgment.id
"""


@dataclass(frozen=True)
class Filters:
    """Which judgments stay out of a dataset: none by default.

    `without` are ids of annotators; `guideline_from` is the first version of the guideline whose judgments are taken.
    """

    without: Sequence[int] = ()
    guideline_from: int | None = None

    def __bool__(self) -> bool:
        return bool(self.without) or self.guideline_from is not None


NO_FILTERS = Filters()


def sources_of(rounds: Sequence[Round]) -> list[str]:
    """Judgment sources a snapshot of these rounds takes by itself: people's, or a rehearsal's, never both.

    Raises Refused when rounds of both audiences are mixed.
    """
    audiences = {round.audience for round in rounds}
    if len(audiences) != 1:
        raise Refused(
            "These rounds mix people's judgments with simulated ones. Snapshot them apart, or name the sources."
        )
    return (
        [Judgment.Source.REHEARSAL] if audiences == {Round.Audience.REHEARSAL} else [Judgment.Source.PERSON]
    )


def snapshot_rounds(
    *,
    project: Project,
    rounds: Sequence[Round],
    sources: Sequence[str] | None = None,
    user: User | None = None,
    filters: Filters = NO_FILTERS,
) -> PreferenceDataset:
    """Freeze the judgments of some rounds, with the written answers among them that reviewers have approved.

    `filters` leave some of them out.

    The same judgments always give the same dataset. `user` is who asked for it; None: the driver of rounds.

    Files are published before the rows are written; a crash between leaves only an unnamed folder. Raises Refused
    when there is nothing to freeze.
    """
    sources = list(sources or sources_of(rounds))
    with connection.cursor() as cursor:
        first = filters.guideline_from
        numbers = [round.pk for round in rounds]
        cursor.execute(_READ, [list(filters.without), first, first, numbers, project.pk, sources])
        read = cursor.fetchall()
    if not read:
        raise Refused(_why_nothing(rounds))
    rows = [_row(*values) for *values, is_taken in read if is_taken]
    if not rows:
        raise Refused(f"The filters leave out all {len(read)} judgments of these rounds. Choose fewer.")
    lines = [store.canonical(row) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / ROWS_FILE).write_bytes(b"\n".join(lines) + b"\n")
        row_digests = [hashlib.sha256(line).hexdigest() for line in lines]
        digest = store.publish(Path(folder), about={"format": FORMAT, "rows": row_digests})
    left_out = len(read) - len(rows)
    told = {**asdict(filters), "left_out": left_out} if left_out else {}
    return _register(project, rounds, sources, told, digest, rows, user)


def _why_nothing(rounds: Sequence[Round]) -> str:
    waiting = waiting_in(rounds)
    if waiting:
        return (
            f"Nothing here can be frozen yet: {waiting} written answer{'s wait' if waiting > 1 else ' waits'} "
            "for review, and a dataset takes approved ones only. Review them first."
        )
    return "Nobody has judged anything in this round yet, so there is nothing to freeze."


def _row(
    judgment: int,
    comparison: int,
    kind: str,
    prompt: int,
    split: str,
    messages: Any,
    annotator: int,
    source: str,
    outcome: str,
    strength: int | None,
    reason: str,
    guideline: int | None,
    round: int,
    leak_masked: bool,
    completions: Any,
    edits: Any,
) -> dict[str, Any]:
    """One canonical row. Texts are kept apart in the store, and the row holds their digests."""
    return {
        "ranking": judgment,
        "comparison": comparison,
        "kind": kind,
        "prompt": prompt,
        "split": split,
        "messages": [
            {"role": message["role"], "text": store.put_text(message["content"])} for message in messages
        ],
        "annotator": annotator,
        "source": source,
        "outcome": outcome,
        "strength": strength,
        "reason": reason,
        "guideline": guideline,
        "round": round,
        "leak_masked": leak_masked,
        "completions": [_with_digest(completion) for completion in completions or []],
        "edits": [_with_digest(answer) for answer in edits or []],
    }


def _with_digest(part: dict[str, Any]) -> dict[str, Any]:
    return {**part, "text": store.put_text(part["text"])}


@transaction.atomic
def _register(
    project: Project,
    rounds: Sequence[Round],
    sources: list[str],
    filters: dict[str, Any],
    digest: str,
    rows: list[dict[str, Any]],
    user: User | None,
) -> PreferenceDataset:
    dataset, created = PreferenceDataset.objects.get_or_create(
        project=project,
        digest=digest,
        defaults={"sources": sources, "filters": filters, "counts": count_rows(rows)},
    )
    if created:
        dataset.rounds.set(rounds)
        DatasetMember.objects.bulk_create(
            (DatasetMember(dataset=dataset, judgment_id=row["ranking"]) for row in rows), batch_size=5000
        )
        record("dataset frozen", actor=user, project=project.slug, subject=digest, judgments=len(rows))
    return dataset
