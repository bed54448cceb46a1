"""Taking judgments. Append-only; the same submission sent again is the same judgment."""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from django.db import IntegrityError, transaction

from annotation.models import Assignment, Guideline, Judgment, RankedCompletion, Slot
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
    known = Judgment.objects.filter(submission_key=submission.submission_key).first()
    if known is not None:
        return _same(known, assignment, body_hash)
    try:
        with transaction.atomic():
            return _record(assignment, submission, body_hash)
    except IntegrityError:
        # The same submission on another connection was faster: the unique key decided.
        known = Judgment.objects.filter(submission_key=submission.submission_key).first()
        if known is None:
            raise
        return _same(known, assignment, body_hash)


def _same(known: Judgment, assignment: Assignment, body_hash: str) -> Judgment:
    if known.assignment_id != assignment.pk or known.body_hash != body_hash:
        raise Conflict(
            "Another judgment was sent under this submission key. Reload the page and judge again."
        )
    return known


def _record(assignment: Assignment, submission: Submission, body_hash: str) -> Judgment:
    locked = (
        Assignment.objects.select_for_update(of=("self",))
        .select_related("comparison__round", "annotator")
        .get(pk=assignment.pk)
    )
    first = Judgment.objects.filter(assignment=locked, supersedes=None).first()
    if first is not None:
        if first.submission_key == submission.submission_key:
            return _same(first, assignment, body_hash)
        raise Conflict("You have judged this comparison already. Your first judgment is kept.")
    _check(locked, submission)

    comparison = locked.comparison
    judgment = Judgment.objects.create(
        assignment=locked,
        comparison=comparison,
        annotator=locked.annotator,
        slot=_fill_slot(locked),
        outcome=submission.outcome,
        reason=submission.reason,
        guideline_id=_guideline_id(comparison.round.project_id),
        active_seconds=min(submission.active_seconds, MOST_ACTIVE_SECONDS),
        source=Judgment.Source.REHEARSAL if locked.annotator.is_simulated else Judgment.Source.PERSON,
        submission_key=submission.submission_key,
        body_hash=body_hash,
    )
    if submission.outcome == Judgment.Outcome.RANKED:
        RankedCompletion.objects.bulk_create(
            RankedCompletion(judgment=judgment, comparison=comparison, completion_id=completion_id, rank=rank)
            for completion_id, rank in zip(locked.shown_order, submission.ranks, strict=True)
        )
    locked.state, locked.draft = Assignment.State.SUBMITTED, None
    locked.save(update_fields=["state", "draft"])
    return judgment


def _check(assignment: Assignment, submission: Submission) -> None:
    if submission.outcome == Judgment.Outcome.RANKED:
        check_ranks(submission.ranks, completions=len(assignment.shown_order))
    elif submission.ranks:
        raise Refused(f"Ranks go with the outcome 'ranked', not with {submission.outcome!r}. Leave them out.")
    if submission.outcome == Judgment.Outcome.CANNOT_JUDGE and not submission.reason.strip():
        raise Refused("Say in a few words why you cannot judge this one.")


def _guideline_id(project_id: int) -> int | None:
    newest = Guideline.objects.filter(project_id=project_id).order_by("-version")
    return newest.values_list("pk", flat=True).first()


def _fill_slot(assignment: Assignment) -> Slot | None:
    """Fill the slot the assignment holds; for a late one any free slot of the comparison; None when there is none."""
    slots = Slot.objects.filter(comparison_id=assignment.comparison_id)
    if slots.filter(assignment=assignment, state=Slot.State.HELD).update(state=Slot.State.FILLED) == 1:
        return slots.get(assignment=assignment)
    free = slots.filter(state=Slot.State.OPEN, reserved_for=None).select_for_update(skip_locked=True).first()
    if free is not None:
        free.state, free.assignment = Slot.State.FILLED, assignment
        free.save(update_fields=["state", "assignment"])
    return free
