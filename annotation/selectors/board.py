"""What an annotator sees of one assignment, and of their own progress. Nothing that tells contestants apart."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connection
from django.utils import timezone

from annotation.models import Assignment, Project, Round
from annotation.rendering import safe_html
from rankloop.accounts.models import User

# ::json, because Django leaves jsonb undecoded on raw cursors.
_BOARD = """
SELECT prompt.messages::json, round.name, round.audience,
       (SELECT array_agg(completion.text ORDER BY array_position(assignment.shown_order, completion.id))
        FROM annotation_completion completion WHERE completion.id = ANY(assignment.shown_order))
FROM annotation_assignment assignment
JOIN annotation_comparison comparison ON comparison.id = assignment.comparison_id
JOIN annotation_prompt prompt ON prompt.id = comparison.prompt_id
JOIN annotation_round round ON round.id = comparison.round_id
WHERE assignment.id = %s
"""

_PROGRESS = """
SELECT count(*), count(*) FILTER (WHERE judgment.created_at >= %(today)s)
FROM annotation_judgment judgment
JOIN annotation_comparison comparison ON comparison.id = judgment.comparison_id
JOIN annotation_round round ON round.id = comparison.round_id
WHERE judgment.annotator_id = %(annotator)s AND judgment.supersedes_id IS NULL AND round.project_id = %(project)s
"""


@dataclass(frozen=True)
class Board:
    """One comparison as its annotator sees it: texts in the order shown, and no id but the assignment's."""

    assignment: Assignment
    round_name: str
    rehearsal: bool
    messages: list[dict[str, str]]  # role, text, html
    completions: list[dict[str, Any]]  # position, text, html


def board_of(assignment: Assignment) -> Board:
    """The comparison of an assignment, in one query."""
    with connection.cursor() as cursor:
        cursor.execute(_BOARD, [assignment.pk])
        messages, round_name, audience, texts = cursor.fetchone()
    return Board(
        assignment=assignment,
        round_name=round_name,
        rehearsal=audience == Round.Audience.REHEARSAL,
        messages=[
            {"role": message["role"], "text": message["content"], "html": safe_html(message["content"])}
            for message in messages
        ],
        completions=[
            {"position": position, "text": text, "html": safe_html(text)}
            for position, text in enumerate(texts or [], start=1)
        ],
    )


def progress_of(*, project: Project, annotator: User) -> dict[str, int]:
    """How many judgments the annotator has made in the project: `done_by_me` in all, `done_today` in 24 hours."""
    with connection.cursor() as cursor:
        cursor.execute(
            _PROGRESS,
            {"annotator": annotator.pk, "project": project.pk, "today": timezone.now() - timedelta(days=1)},
        )
        done, today = cursor.fetchone()
    return {"done_by_me": done, "done_today": today}
