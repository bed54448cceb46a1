"""Taking judgments, revisions and withdrawals. Append-only; the same submission sent again is the same judgment."""

import json
import uuid
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from annotation.models import Assignment, Judgment, Project, Slot
from annotation.services.writing import keep_written
from annotation.submissions import Note, Rules, Submission, check_submission
from rankloop.errors import Conflict, Refused

# Longer stretches are a page left open, not work.
MOST_ACTIVE_SECONDS = 4 * 3600.0


def submit_judgment(
    *, assignment: Assignment, submission: Submission, rules: Rules | None = None
) -> Judgment:
    """Record the judgment of an assignment, once, and fill its slot.

    The same submission key with the same body gives the first judgment again. A late one counts while a slot of the
    comparison is free, else it is kept as surplus (`judgment.is_counted` is false). `rules` are the project's, read
    when they are needed and not given.
    Raises Refused for a body that is not right and Conflict for another body or a second judgment.
    """
    _check(assignment, submission, rules)
    body_hash = submission.body_hash()
    try:
        with transaction.atomic():
            is_first, slot = _take_slot(assignment)
            if is_first:
                return _record(assignment, submission, slot=slot, body_hash=body_hash)
    except IntegrityError:
        # The key belongs to another assignment's judgment: told below. Anything else is ours to mend.
        if not Judgment.objects.filter(submission_key=submission.submission_key).exists():
            raise
    known = _known(assignment, submission, body_hash)
    if known is None:
        raise Conflict("You have judged this comparison already. Your first judgment is kept.")
    return known


def revise_judgment(
    *, assignment: Assignment, submission: Submission, replaces: uuid.UUID, rules: Rules | None = None
) -> Judgment:
    """Put a new judgment in place of the one that was sent under the key `replaces`. Both are kept; the new one counts
    where the old one did.

    Repeatable as submit_judgment is. Raises Refused for a body that is not right or after the project's time for
    revisions, and Conflict when `replaces` is not the newest.
    """
    _check(assignment, submission, rules)
    with transaction.atomic():
        newest = _lock_newest(assignment)
        known = _known(assignment, submission, submission.body_hash())
        if known is not None:
            return known
        if newest.outcome == Judgment.Outcome.WITHDRAWN:
            raise Conflict("You have withdrawn this judgment, so there is nothing to revise.")
        if newest.submission_key != replaces:
            raise Conflict("You have revised this judgment elsewhere since. Reload to see its newest form.")
        project = _project_of(assignment)
        if revisable_until(assignment, project) < timezone.now():
            raise Refused(
                f"A judgment can be revised for {project.revise_minutes} minutes after it was sent, and that is over. "
                "You can still withdraw it under “My work”."
            )
        return _record(
            assignment,
            submission,
            slot=newest.slot_id,
            body_hash=submission.body_hash(),
            supersedes=newest,
        )


def withdraw_judgment(*, assignment: Assignment, submission_key: uuid.UUID, reason: str = "") -> Judgment:
    """Take back what was said. The judgment is kept and superseded; no slot reopens. Withdrawn already: that one.

    Raises Conflict when the comparison has not been judged, or the key belongs to another judgment.
    """
    withdrawal = Submission(submission_key, Judgment.Outcome.WITHDRAWN, reason=reason)
    with transaction.atomic():
        newest = _lock_newest(assignment)
        if newest.outcome == Judgment.Outcome.WITHDRAWN:
            return newest
        _known(assignment, withdrawal, withdrawal.body_hash())
        return _record(
            assignment,
            withdrawal,
            slot=newest.slot_id,
            body_hash=withdrawal.body_hash(),
            supersedes=newest,
        )


def revisable_until(assignment: Assignment, project: Project) -> Any:
    """When the time to revise the assignment's judgment ends: the project's minutes after the first was sent."""
    first = assignment.judgments.filter(supersedes=None).values_list("created_at", flat=True).get()
    return first + timedelta(minutes=project.revise_minutes)


def _check(assignment: Assignment, submission: Submission, rules: Rules | None) -> None:
    if rules is None and submission.needs_rules:
        rules = Rules.of(_project_of(assignment))
    check_submission(submission, completions=len(assignment.shown_order), rules=rules)


def _project_of(assignment: Assignment) -> Project:
    return Project.objects.get(rounds__comparisons=assignment.comparison_id)


def _lock_newest(assignment: Assignment) -> Judgment:
    """The assignment's newest judgment; whoever revises at the same time waits here."""
    Assignment.objects.select_for_update().get(pk=assignment.pk)
    newest = assignment.judgments.filter(superseded_by=None).first()
    if newest is None:
        raise Conflict("You have not judged this comparison yet, so there is nothing to revise or withdraw.")
    return newest


def _known(assignment: Assignment, submission: Submission, body_hash: str) -> Judgment | None:
    """The judgment recorded under the submission's key. Raises Conflict when it is another one."""
    known = Judgment.objects.filter(submission_key=submission.submission_key).first()
    if known is not None and (known.assignment_id != assignment.pk or known.body_hash != body_hash):
        raise Conflict(
            "Another judgment was sent under this submission key. Reload the page and judge again."
        )
    return known


# The judgment and what it says of each completion in one statement, under the newest guideline.
_INSERT = """
WITH judgment AS (
    INSERT INTO annotation_judgment
        (assignment_id, comparison_id, annotator_id, slot_id, outcome, strength, reason, guideline_id, active_seconds,
         source, blind, submission_key, body_hash, supersedes_id, created_at)
    SELECT %(assignment)s, comparison.id, %(annotator)s, %(slot)s, %(outcome)s, %(strength)s, %(reason)s,
           (SELECT guideline.id FROM annotation_guideline guideline
            WHERE guideline.project_id = round.project_id ORDER BY guideline.version DESC LIMIT 1),
           %(active_seconds)s, %(source)s, true, %(submission_key)s, %(body_hash)s, %(supersedes)s, now()
    FROM annotation_comparison comparison JOIN annotation_round round ON round.id = comparison.round_id
    WHERE comparison.id = %(comparison)s
    RETURNING *
), ranking AS (
    INSERT INTO annotation_rankedcompletion
        (judgment_id, comparison_id, completion_id, rank, flags, aspects, comment)
    SELECT judgment.id, judgment.comparison_id, said.completion, said.rank, said.flags, said.aspects, said.comment
    FROM judgment, jsonb_to_recordset(%(ranking)s::jsonb)
         AS said (completion bigint, rank smallint, flags varchar[], aspects jsonb, comment text)
)
SELECT * FROM judgment
"""


def _record(
    assignment: Assignment,
    submission: Submission,
    *,
    slot: int | None,
    body_hash: str,
    supersedes: Judgment | None = None,
) -> Judgment:
    annotator = assignment.annotator
    values = {
        "assignment": assignment.pk,
        "comparison": assignment.comparison_id,
        "annotator": annotator.pk,
        "slot": slot,
        "outcome": submission.outcome,
        "strength": submission.strength,
        "reason": submission.reason,
        "active_seconds": min(submission.active_seconds, MOST_ACTIVE_SECONDS),
        "source": Judgment.Source.REHEARSAL if annotator.is_simulated else Judgment.Source.PERSON,
        "submission_key": submission.submission_key,
        "body_hash": body_hash,
        "supersedes": supersedes.pk if supersedes else None,
        "ranking": json.dumps(_ranking(assignment, submission)),
    }
    judgment = next(iter(Judgment.objects.raw(_INSERT, values)))
    keep_written(judgment=judgment, assignment=assignment, submission=submission)
    return judgment


def _ranking(assignment: Assignment, submission: Submission) -> list[dict[str, Any]]:
    """A row for each completion that something is said of: all of a ranking, else those with notes (rank null)."""
    notes = {note.position: note for note in submission.notes}
    nothing = Note(position=0)
    return [
        {
            "completion": completion,
            "rank": submission.ranks[position - 1] if submission.ranks else None,
            "flags": sorted(set(notes.get(position, nothing).flags)),
            "aspects": dict(notes.get(position, nothing).aspects),
            "comment": notes.get(position, nothing).comment,
        }
        for position, completion in enumerate(assignment.shown_order, 1)
        if submission.ranks or position in notes
    ]


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
