"""Claiming a comparison by lease, and giving it back.

Slots are rows, and a claim locks one with `FOR UPDATE SKIP LOCKED`: counting leases in a WHERE clause over-assigns
under load. Slots are claimed in the order of their `position`, which serves every comparison once before any twice;
the search goes on from the annotator's own last position, so that a long day does not scan what it has seen.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from annotation.models import Assignment, Project, Round, Slot
from rankloop.accounts.models import User
from rankloop.errors import Conflict, Refused

# A person works on one comparison while the next is fetched ahead.
MOST_LEASES = 2
# Eight edited answers that are too long to be sent should still be kept.
MOST_DRAFT_CHARACTERS = 400_000

# My open leases in the project, and per open round how far I have come: all that a claim must know, in one query.
_STANDING = """
SELECT round.id,
       (SELECT assignment.position FROM annotation_assignment assignment
        JOIN annotation_comparison comparison ON comparison.id = assignment.comparison_id
        WHERE assignment.annotator_id = %(annotator)s AND comparison.round_id = round.id
        ORDER BY assignment.claimed_at DESC LIMIT 1),
       (SELECT json_object_agg(assignment.id, extract(epoch FROM assignment.claimed_at))
        FROM annotation_assignment assignment
        JOIN annotation_comparison comparison ON comparison.id = assignment.comparison_id
        WHERE assignment.annotator_id = %(annotator)s AND assignment.state = 'open'
          AND comparison.round_id = round.id),
       (SELECT opted_out FROM annotation_membership member
        WHERE member.project_id = %(project)s AND member.user_id = %(annotator)s)
FROM annotation_round round
WHERE round.project_id = %(project)s AND round.status = 'ranking' AND round.audience = %(audience)s
ORDER BY round.priority DESC, round.number
"""

# One statement: lock a free slot, write the assignment, point the slot at it. An expired assignment of the same
# annotator is taken up again; any other one of theirs keeps the comparison away from them.
_CLAIM = """
WITH free AS (
    SELECT slot.id, slot.comparison_id, slot.position
    FROM annotation_slot slot
    WHERE slot.round_id = %(round)s AND slot.state = 'open' AND slot.position > %(after)s
      AND (slot.reserved_for_id IS NULL OR slot.reserved_for_id = %(annotator)s)
      AND {not_mine} {not_opted_out}
    ORDER BY slot.position
    LIMIT 1
    FOR UPDATE OF slot SKIP LOCKED
), opened AS (
    INSERT INTO annotation_assignment
        (id, comparison_id, annotator_id, state, lease_until, claimed_at, position, shown_order, reason)
    SELECT gen_random_uuid(), free.comparison_id, %(annotator)s, 'open',
           now() + make_interval(mins => %(minutes)s), now(), free.position,
           (SELECT coalesce(array_agg(entry.completion_id ORDER BY random()), '{{}}')
            FROM annotation_comparisoncompletion entry WHERE entry.comparison_id = free.comparison_id),
           ''
    FROM free
    ON CONFLICT (comparison_id, annotator_id) DO UPDATE
        SET state = 'open', lease_until = excluded.lease_until, position = excluded.position
        WHERE annotation_assignment.state = 'expired'
    RETURNING *
), held AS (
    UPDATE annotation_slot slot SET state = 'held', assignment_id = opened.id
    FROM free, opened WHERE slot.id = free.id
)
SELECT * FROM opened
"""
# Going on from my last position the first slot is nearly always free for me: one look-up each.
_NOT_MINE_NEXT = """NOT EXISTS (
          SELECT FROM annotation_assignment mine
          WHERE mine.comparison_id = slot.comparison_id AND mine.annotator_id = %(annotator)s
            AND mine.state <> 'expired')"""
# From the start nearly every slot may be one of mine: all of mine are read once and hashed.
_NOT_MINE_ANY = """slot.comparison_id NOT IN (
          SELECT mine.comparison_id FROM annotation_assignment mine
          WHERE mine.annotator_id = %(annotator)s AND mine.state <> 'expired')"""
# Of prompts in a category that I do not want to see nothing is ever offered. Only for those who opted out of some.
_NOT_OPTED_OUT = """AND NOT EXISTS (
          SELECT FROM annotation_comparison comparison JOIN annotation_prompt prompt ON prompt.id = comparison.prompt_id
          WHERE comparison.id = slot.comparison_id AND prompt.tags && %(opted_out)s::varchar[])"""
_CLAIM_NEXT = _CLAIM.format(not_mine=_NOT_MINE_NEXT, not_opted_out="")
_CLAIM_ANY = _CLAIM.format(not_mine=_NOT_MINE_ANY, not_opted_out="")
_CLAIM_NEXT_CHOSEN = _CLAIM.format(not_mine=_NOT_MINE_NEXT, not_opted_out=_NOT_OPTED_OUT)
_CLAIM_ANY_CHOSEN = _CLAIM.format(not_mine=_NOT_MINE_ANY, not_opted_out=_NOT_OPTED_OUT)

# One statement, so that an expiry and a late submit can't both have the slot.
_EXPIRE = """
WITH gone AS (
    UPDATE annotation_assignment SET state = 'expired'
    WHERE id IN (
        SELECT assignment.id FROM annotation_assignment assignment
        JOIN annotation_comparison comparison ON comparison.id = assignment.comparison_id
        JOIN annotation_round round ON round.id = comparison.round_id
        WHERE assignment.state = 'open' AND assignment.lease_until < now()
          AND (%(project)s::bigint IS NULL OR round.project_id = %(project)s)
        FOR UPDATE OF assignment SKIP LOCKED)
    RETURNING id
)
UPDATE annotation_slot SET state = 'open', assignment_id = NULL
FROM gone WHERE annotation_slot.assignment_id = gone.id AND annotation_slot.state = 'held'
"""


def claim_comparison(
    *, project: Project, annotator: User, holding: uuid.UUID | None = None, prefetch: bool = False
) -> Assignment | None:
    """My open lease (with its time renewed), else a newly leased comparison, else None when nothing is left for me.

    With `prefetch` the assignment in `holding` is passed over, and a second comparison is leased beside it; nobody
    holds more than two. Raises Refused while the project is paused.
    """
    if project.is_paused:
        raise Refused("This project is paused. Your work is kept; come back when it goes on.")
    audience = Round.Audience.REHEARSAL if annotator.is_simulated else Round.Audience.PEOPLE
    with transaction.atomic(), connection.cursor() as cursor:
        # Two tabs of one person claim one after the other: without it each could open leases the other can't see.
        cursor.execute("SELECT pg_advisory_xact_lock(1, %s)", [annotator.pk])
        cursor.execute(_STANDING, {"annotator": annotator.pk, "project": project.pk, "audience": audience})
        standing = cursor.fetchall()
        # The one claimed first, in whichever round: what was begun comes before what was fetched ahead.
        mine = {lease: claimed for _, _, leases, _ in standing for lease, claimed in (leases or {}).items()}
        for lease in sorted(mine, key=mine.__getitem__)[:MOST_LEASES]:
            if not (prefetch and lease == str(holding)):
                assignment = Assignment.objects.get(pk=lease)
                # Conflict: sent from another tab, or swept, since the query above. Then the next one.
                with suppress(Conflict):
                    renew_lease(assignment=assignment, minutes=project.lease_minutes)
                    return assignment
        rounds = [(round_id, last) for round_id, last, _, _ in standing]
        return _claim_free(project, annotator, rounds, opted_out=(standing[0][3] or []) if standing else [])


def _claim_free(
    project: Project,
    annotator: User,
    rounds: Sequence[tuple[int, int | None]],
    opted_out: Sequence[str],
) -> Assignment | None:
    """The next free slot of the rounds, each given with my last position in it."""
    claim_next, claim_any = (
        (_CLAIM_NEXT_CHOSEN, _CLAIM_ANY_CHOSEN) if opted_out else (_CLAIM_NEXT, _CLAIM_ANY)
    )

    def claim(statement: str, round_id: int, after: int) -> Assignment | None:
        values = {
            "round": round_id,
            "annotator": annotator.pk,
            "minutes": project.lease_minutes,
            "after": after,
            "opted_out": list(opted_out),
        }
        return next(iter(Assignment.objects.raw(statement, values)), None)

    for round_id, last in rounds:
        # Behind the last position lies what others skipped or let expire.
        found = claim(claim_next, round_id, last or 0) or claim(claim_any, round_id, 0)
        if found is not None:
            return found
    # Leases may have run out that nobody has swept yet.
    if rounds and expire_leases(project=project):
        for round_id, _ in rounds:
            found = claim(claim_any, round_id, 0)
            if found is not None:
                return found
    return None


def expire_leases(*, project: Project | None = None) -> int:
    """Give the slots of leases that have run out to others; returns how many. Safe to run at any time, twice too."""
    with connection.cursor() as cursor:
        cursor.execute(_EXPIRE, {"project": project.pk if project else None})
        return cursor.rowcount


# A lease that ran out is had again while a slot of the comparison is free. As in a claim the slot is locked first.
_REGAIN = """
WITH free AS (
    SELECT slot.id FROM annotation_slot slot JOIN annotation_assignment lost ON lost.comparison_id = slot.comparison_id
    WHERE lost.id = %(assignment)s AND lost.state = 'expired' AND slot.state = 'open'
      AND (slot.reserved_for_id IS NULL OR slot.reserved_for_id = lost.annotator_id)
    ORDER BY slot.position LIMIT 1
    FOR UPDATE OF slot SKIP LOCKED
), mine AS (
    UPDATE annotation_assignment SET state = 'open', lease_until = %(until)s
    FROM free WHERE annotation_assignment.id = %(assignment)s AND state = 'expired'
    RETURNING annotation_assignment.id
)
UPDATE annotation_slot slot SET state = 'held', assignment_id = mine.id FROM free, mine WHERE slot.id = free.id
"""


def renew_lease(*, assignment: Assignment, minutes: int) -> datetime:
    """Put the end of the lease that many minutes from now; one that ran out is taken again where a place is free.

    Raises Conflict when nothing is free any more, or the annotator holds two other comparisons by now.
    """
    until = timezone.now() + timedelta(minutes=minutes)
    open_ = Assignment.objects.filter(pk=assignment.pk, state=Assignment.State.OPEN)
    if open_.update(lease_until=until) != 1 and not _regain(assignment, until):
        raise Conflict(
            "This comparison is no longer reserved for you. You can still send your ranking: it counts if nobody "
            "has taken the place, and is kept in any case."
        )
    assignment.lease_until = until
    return until


@transaction.atomic
def _regain(assignment: Assignment, until: datetime) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(1, %s)", [assignment.annotator_id])
        mine = Assignment.objects.filter(
            annotator_id=assignment.annotator_id,
            state=Assignment.State.OPEN,
            comparison__round__project__rounds__comparisons=assignment.comparison_id,
        )
        if mine.count() >= MOST_LEASES:
            return False
        cursor.execute(_REGAIN, {"assignment": assignment.pk, "until": until})
        return cursor.rowcount == 1


@transaction.atomic
def skip_comparison(*, assignment: Assignment, reason: str) -> None:
    """Give the slot to others and never offer this comparison to this annotator again. Repeatable.

    Raises Conflict when it has been judged already.
    """
    locked = Assignment.objects.select_for_update().get(pk=assignment.pk)
    if locked.state == Assignment.State.SUBMITTED:
        raise Conflict("You have judged this comparison already; there is nothing to skip.")
    locked.state, locked.reason = Assignment.State.SKIPPED, reason
    locked.save(update_fields=["state", "reason"])
    _reopen_slot(locked)


@transaction.atomic
def release_comparison(*, assignment: Assignment) -> None:
    """Give back a lease that was not used, a prefetched one say. It may be offered again. Repeatable."""
    locked = Assignment.objects.select_for_update().get(pk=assignment.pk)
    if locked.state == Assignment.State.OPEN:
        locked.state = Assignment.State.EXPIRED
        # The search starts behind this one again, so that it is not passed over.
        locked.position -= 1
        locked.save(update_fields=["state", "position"])
        _reopen_slot(locked)


def _reopen_slot(assignment: Assignment) -> None:
    Slot.objects.filter(assignment=assignment, state=Slot.State.HELD).update(
        state=Slot.State.OPEN, assignment=None
    )


def save_draft(*, assignment: Assignment, draft: Mapping[str, Any]) -> None:
    """Keep what the annotator has done so far. Raises Refused when it can't be kept, Conflict when already judged."""
    try:
        content = json.dumps(draft, ensure_ascii=False, allow_nan=False)
        content.encode()
    except ValueError:
        raise Refused("The draft holds a number or a character that can't be kept. Leave it out.") from None
    if "\\u0000" in content.replace(r"\\", ""):
        raise Refused("The draft holds a NUL character, which the database can't keep. Leave it out.")
    if len(content) > MOST_DRAFT_CHARACTERS:
        raise Refused(
            f"The draft is longer than {MOST_DRAFT_CHARACTERS:,} characters. Shorten your comments or answers."
        )
    kept = Assignment.objects.filter(pk=assignment.pk).exclude(state=Assignment.State.SUBMITTED)
    if kept.update(draft=draft) != 1:
        raise Conflict("You have judged this comparison already; the draft is not needed any more.")


def mark_masked(*, assignment: Assignment) -> None:
    """Note that a phrase that tells the author was masked in what this annotator sees. Repeatable."""
    if not assignment.leak_masked:
        Assignment.objects.filter(pk=assignment.pk).update(leak_masked=True)
        assignment.leak_masked = True
