"""What an annotator sees of one assignment, and of their own progress. Nothing that tells contestants apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.utils import timezone

from annotation.leaks import mask
from annotation.models import Assignment, Comparison, Judgment, Project, Round
from annotation.rendering import safe_html
from rankloop.accounts.models import User

# ::json, because Django leaves jsonb undecoded on raw cursors.
_BOARD = """
SELECT prompt.messages::json, prompt.tags, comparison.kind, round.name, round.audience,
       (SELECT array_agg(completion.text ORDER BY array_position(assignment.shown_order, completion.id))
        FROM annotation_completion completion WHERE completion.id = ANY(assignment.shown_order)),
       (SELECT max(version) FROM annotation_guideline guideline WHERE guideline.project_id = round.project_id)
FROM annotation_assignment assignment
JOIN annotation_comparison comparison ON comparison.id = assignment.comparison_id
JOIN annotation_prompt prompt ON prompt.id = comparison.prompt_id
JOIN annotation_round round ON round.id = comparison.round_id
WHERE assignment.id = %s
"""

_PROGRESS = """
SELECT count(*), count(*) FILTER (WHERE judgment.created_at >= %(since)s)
FROM annotation_judgment judgment
JOIN annotation_comparison comparison ON comparison.id = judgment.comparison_id
JOIN annotation_round round ON round.id = comparison.round_id
WHERE judgment.annotator_id = %(annotator)s AND judgment.supersedes_id IS NULL AND round.project_id = %(project)s
"""


@dataclass(frozen=True)
class Board:
    """One comparison as its annotator sees it: texts in the order shown, and no id but the assignment's."""

    assignment: Assignment
    is_demonstration: bool
    round_name: str
    rehearsal: bool
    sensitive: list[str]  # categories of the project that the prompt is in
    messages: list[dict[str, str]]  # role, text, html
    completions: list[dict[str, Any]]  # position, text, html
    has_masked: bool  # a phrase that tells the author was masked
    guideline: int | None  # the newest version


def board_of(assignment: Assignment, project: Project) -> Board:
    """The comparison of an assignment in that project, in one query."""
    with connection.cursor() as cursor:
        cursor.execute(_BOARD, [assignment.pk])
        messages, tags, kind, round_name, audience, texts, guideline = cursor.fetchone()
    masked = [mask(text, project.leak_phrases) for text in texts or []]
    return Board(
        assignment=assignment,
        is_demonstration=kind == Comparison.Kind.DEMONSTRATION,
        round_name=round_name,
        rehearsal=audience == Round.Audience.REHEARSAL,
        sensitive=[name for name in project.sensitive_categories if name in tags],
        messages=[
            {"role": message["role"], "text": message["content"], "html": safe_html(message["content"])}
            for message in messages
        ],
        completions=[
            {"position": position, "text": text, "html": safe_html(text)}
            for position, (text, _) in enumerate(masked, start=1)
        ],
        has_masked=any(was_masked for _, was_masked in masked),
        guideline=guideline,
    )


def said_by(judgment: Judgment, shown_order: Sequence[int]) -> dict[str, Any]:
    """A judgment as its own annotator may see it again: by position, in the form it was sent in."""
    position = {completion: number for number, completion in enumerate(shown_order, 1)}
    written = {row.edited_from_id: row.text for row in judgment.written.all()}
    rows = sorted(judgment.ranking.all(), key=lambda row: position[row.completion_id])
    return {
        "submission_key": str(judgment.submission_key),
        "outcome": judgment.outcome,
        "ranks": [row.rank for row in rows if row.rank is not None],
        "strength": judgment.strength,
        "reason": judgment.reason,
        "active_seconds": judgment.active_seconds,
        "text": written.get(None, ""),
        "notes": [
            {
                "position": position[row.completion_id],
                "flags": row.flags,
                "aspects": row.aspects,
                "comment": row.comment,
                "better": written.get(row.completion_id, ""),
            }
            for row in rows
            if row.flags or row.aspects or row.comment or row.completion_id in written
        ],
    }


def progress_of(*, project: Project, annotator: User, since: datetime | None = None) -> dict[str, int]:
    """How many judgments the annotator has made in the project: `done_by_me` in all, `done_today` since a moment, by
    default in the last 24 hours."""
    since = since or timezone.now() - timedelta(days=1)
    with connection.cursor() as cursor:
        cursor.execute(_PROGRESS, {"annotator": annotator.pk, "project": project.pk, "since": since})
        done, today = cursor.fetchone()
    return {"done_by_me": done, "done_today": today}


def rounds_in_ranking(*, project: Project, annotator: User) -> list[dict[str, Any]]:
    """How far each open round of the annotator's audience is: its name, places filled, places in all."""
    audience = Round.Audience.REHEARSAL if annotator.is_simulated else Round.Audience.PEOPLE
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT round.name, count(*) FILTER (WHERE slot.state = 'filled'), count(*)
            FROM annotation_round round JOIN annotation_slot slot ON slot.round_id = round.id
            WHERE round.project_id = %s AND round.status = 'ranking' AND round.audience = %s
            GROUP BY round.id ORDER BY round.priority DESC, round.number
            """,
            [project.pk, audience],
        )
        return [
            {"name": name, "filled": filled, "places": places} for name, filled, places in cursor.fetchall()
        ]
