"""Judgments written as rows: of any day, outcome and order shown, without claiming first."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from unittest.mock import patch

from django.utils import timezone

from annotation.models import Assignment, Comparison, Judgment, RankedCompletion, Slot
from rankloop.accounts.models import User
from tests.cast import Cast, open_ranking


def judge(
    comparison: Comparison,
    annotator: User,
    ranks: Sequence[int] = (),
    *,
    outcome: str = "",
    shown: Sequence[int] | None = None,
    seconds: float = 10,
    when: datetime | None = None,
    counted: bool = True,
    **values,
) -> Judgment:
    """One judgment: `ranks` of the completions by id; `shown` are their places in that order, in the order shown."""
    completions = sorted(comparison.entries.values_list("completion_id", flat=True))
    when = when or timezone.now()
    order = [completions[place] for place in shown or range(len(completions))]
    with patch("django.utils.timezone.now", return_value=when):
        assignment = Assignment.objects.create(
            comparison=comparison,
            annotator=annotator,
            state="submitted",
            lease_until=when,
            claimed_at=when,
            position=1,
            shown_order=order,
        )
        slot = comparison.slots.filter(state="open").first() if counted else None
        if slot:
            slot.state, slot.assignment = Slot.State.FILLED, assignment
            slot.save()
        judgment = Judgment.objects.create(
            assignment=assignment,
            comparison=comparison,
            annotator=annotator,
            slot=slot,
            outcome=outcome or "ranked",
            active_seconds=seconds,
            submission_key=uuid.uuid4(),
            body_hash="-",
            **{"source": "rehearsal" if annotator.is_simulated else "person", **values},
        )
    RankedCompletion.objects.bulk_create(
        RankedCompletion(judgment=judgment, comparison=comparison, completion_id=pk, rank=rank)
        for pk, rank in zip(completions, ranks, strict=False)
    )
    return judgment


def revise(judgment: Judgment, outcome: str) -> Judgment:
    """A later row that supersedes it."""
    names = [field.attname for field in Judgment._meta.concrete_fields if field.attname != "id"]
    values = {name: getattr(judgment, name) for name in names}
    return Judgment.objects.create(
        **values | {"submission_key": uuid.uuid4(), "supersedes_id": judgment.pk, "outcome": outcome}
    )


def comparisons_of(cast: Cast, number: int, **options) -> list[Comparison]:
    """Comparisons of a new round, in order."""
    return list(open_ranking(cast, comparisons=number, **options).comparisons.order_by("ordinal"))
