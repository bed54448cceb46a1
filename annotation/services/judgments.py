"""Taking judgments. Append-only; the same submission sent again is the same judgment."""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from django.db import IntegrityError, connection, transaction

from annotation.models import Assignment, Judgment, Slot
from rankloop.errors import Conflict, Refused

# Longer stretches are a page left open, not work.
MOST_ACTIVE_SECONDS = 4 * 3600.0


@dataclass(frozen=True)
class Submission:
    """What an annotator sends. `ranks[k - 1]` is the rank of the completion shown at position k; 1 is best."""

    submission_key: uuid.UUID
    outcome: str
    ranks: Sequence[int] = ()
    reason: str = ""
    active_seconds: float = 0.0

    def body_hash(self) -> str:
        """SHA-256 (hex) of everything but the key and the time: what must not change under the same key."""
        body = asdict(self)
        del body["submission_key"], body["active_seconds"]
        return hashlib.sha256(json.dumps(body, sort_keys=True, default=list).encode()).hexdigest()


def check_ranks(ranks: Sequence[int], *, completions: int) -> None:
    """Raise Refused unless there is one rank a completion, dense from 1: 1, 2, 2, 3 and not 1, 3, 3, 4."""
    if len(ranks) != completions:
        raise Refused(
            f"This comparison has {completions} completions, and {len(ranks)} ranks came. Rank each one."
        )
    if sorted(set(ranks)) != list(range(1, len(set(ranks)) + 1)):
        raise Refused(f"The ranks {list(ranks)} have gaps. Start with 1, and give ties the same rank.")


def submit_judgment(*, assignment: Assignment, submission: Submission) -> Judgment:
    """Record the judgment of an assignment, once, and fill its slot.

    The same submission key with the same body gives the first judgment again. A late one counts while a slot of the
    comparison is free, else it is kept as surplus (`judgment.is_counted` is false).
    Raises Refused for a body that is not right and Conflict for another body or a second judgment.
    """
    body_hash = submission.body_hash()
    _check(assignment, submission)
    try:
        with transaction.atomic():
            is_first, slot = _take_slot(assignment)
            if is_first:
                return _record(assignment, slot, submission, body_hash)
    except IntegrityError:
        # The key belongs to another assignment's judgment: told below. Anything else is ours to mend.
        if not Judgment.objects.filter(submission_key=submission.submission_key).exists():
            raise
    return _recorded_before(assignment, submission, body_hash)


def _recorded_before(assignment: Assignment, submission: Submission, body_hash: str) -> Judgment:
    known = Judgment.objects.filter(submission_key=submission.submission_key).first()
    if known is None:
        raise Conflict("You have judged this comparison already. Your first judgment is kept.")
    if known.assignment_id != assignment.pk or known.body_hash != body_hash:
        raise Conflict(
            "Another judgment was sent under this submission key. Reload the page and judge again."
        )
    return known


# The judgment and its ranking in one statement, under the newest guideline.
_INSERT = """
WITH judgment AS (
    INSERT INTO annotation_judgment
        (assignment_id, comparison_id, annotator_id, slot_id, outcome, reason, guideline_id, active_seconds, source,
         blind, submission_key, body_hash, created_at)
    SELECT %(assignment)s, comparison.id, %(annotator)s, %(slot)s, %(outcome)s, %(reason)s,
           (SELECT guideline.id FROM annotation_guideline guideline
            WHERE guideline.project_id = round.project_id ORDER BY guideline.version DESC LIMIT 1),
           %(active_seconds)s, %(source)s, true, %(submission_key)s, %(body_hash)s, now()
    FROM annotation_comparison comparison JOIN annotation_round round ON round.id = comparison.round_id
    WHERE comparison.id = %(comparison)s
    RETURNING *
), ranking AS (
    INSERT INTO annotation_rankedcompletion
        (judgment_id, comparison_id, completion_id, rank, flags, aspects, comment)
    SELECT judgment.id, judgment.comparison_id, shown.completion, shown.rank, '{}', '{}', ''
    FROM judgment, unnest(%(completions)s::bigint[], %(ranks)s::smallint[]) AS shown (completion, rank)
)
SELECT * FROM judgment
"""


def _record(assignment: Assignment, slot: int | None, submission: Submission, body_hash: str) -> Judgment:
    annotator = assignment.annotator
    values = {
        "assignment": assignment.pk,
        "comparison": assignment.comparison_id,
        "annotator": annotator.pk,
        "slot": slot,
        "outcome": submission.outcome,
        "reason": submission.reason,
        "active_seconds": min(submission.active_seconds, MOST_ACTIVE_SECONDS),
        "source": Judgment.Source.REHEARSAL if annotator.is_simulated else Judgment.Source.PERSON,
        "submission_key": submission.submission_key,
        "body_hash": body_hash,
        "completions": assignment.shown_order if submission.ranks else [],
        "ranks": list(submission.ranks),
    }
    return next(iter(Judgment.objects.raw(_INSERT, values)))


def _check(assignment: Assignment, submission: Submission) -> None:
    if submission.outcome == Judgment.Outcome.RANKED:
        check_ranks(submission.ranks, completions=len(assignment.shown_order))
    elif submission.ranks:
        raise Refused(f"Ranks go with the outcome 'ranked', not with {submission.outcome!r}. Leave them out.")
    if submission.outcome == Judgment.Outcome.CANNOT_JUDGE and not submission.reason.strip():
        raise Refused("Say in a few words why you cannot judge this one.")


# Of two submissions at once the second waits here for the first, and then changes no row.
_TAKE = """
WITH done AS (
    UPDATE annotation_assignment SET state = 'submitted', draft = NULL
    WHERE id = %(assignment)s AND state <> 'submitted' RETURNING id
), filled AS (
    UPDATE annotation_slot slot SET state = 'filled'
    FROM done WHERE slot.assignment_id = done.id AND slot.state = 'held' RETURNING slot.id
)
SELECT EXISTS (SELECT FROM done), (SELECT id FROM filled)
"""


def _take_slot(assignment: Assignment) -> tuple[bool, int | None]:
    """Mark the assignment submitted; whether it was not before, and the id of the slot that is filled by it.

    That is the slot it held; for a late one any free slot of the comparison, or None.
    """
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, {"assignment": assignment.pk})
        is_first, slot = cursor.fetchone()
    if not is_first or slot is not None:
        return is_first, slot
    slots = Slot.objects.filter(
        comparison_id=assignment.comparison_id, state=Slot.State.OPEN, reserved_for=None
    )
    free = slots.select_for_update(skip_locked=True).first()
    if free is None:
        return True, None
    free.state, free.assignment = Slot.State.FILLED, assignment
    free.save(update_fields=["state", "assignment"])
    return True, free.pk
