"""Keeping what annotators write: edited answers and demonstrations, each reviewed before anything learns from it."""

from django.db import connection
from django.db.models import Max

from annotation.leaks import MASK
from annotation.models import Assignment, Comparison, Completion, Contestant, Judgment
from annotation.services.contestants import register_contestant
from annotation.submissions import Submission
from rankloop.accounts.models import User
from rankloop.errors import Refused


def keep_written(*, judgment: Judgment, assignment: Assignment, submission: Submission) -> list[Completion]:
    """Save the texts that came with a judgment as completions of its annotator, in the caller's transaction.

    In a revision a text that is not changed keeps its review. Raises Refused for an edited answer that changes
    nothing.
    """
    originals = {note.position: note.better for note in submission.notes if note.better.strip()}
    texts: dict[int | None, str] = {
        assignment.shown_order[position - 1]: text for position, text in originals.items()
    }
    if submission.text:
        texts[None] = submission.text
    if not texts:
        return []
    comparison = Comparison.objects.select_related("prompt", "round__project").get(
        pk=assignment.comparison_id
    )
    _refuse_unchanged(texts, assignment)
    before = {
        (row.edited_from_id, row.text): row
        for row in Completion.objects.filter(judgment=judgment.supersedes_id, judgment__isnull=False)
    }
    contestant = person_contestant(project=comparison.round.project, person=assignment.annotator)
    with connection.cursor() as cursor:
        # Two tabs of one person may answer the same prompt at once: their texts are numbered one after the other.
        # Not the claim's lock: it is taken before the assignment's row, this one after.
        cursor.execute("SELECT pg_advisory_xact_lock(2, %s)", [assignment.annotator_id])
    mine = Completion.objects.filter(prompt=comparison.prompt, contestant=contestant)
    last = mine.aggregate(last=Max("sample_index"))["last"]
    first = 0 if last is None else last + 1
    rows = []
    for number, (original, text) in enumerate(texts.items()):
        row = Completion(
            prompt=comparison.prompt,
            contestant=contestant,
            sample_index=first + number,
            text=text,
            edited_from_id=original,
            judgment=judgment,
            review=Completion.Review.WAITING,
        )
        if (known := before.get((original, text))) is not None:
            row.review, row.reviewed_by_id = known.review, known.reviewed_by_id
            row.reviewed_at, row.review_note = known.reviewed_at, known.review_note
        rows.append(row)
    return Completion.objects.bulk_create(rows)


def person_contestant(*, project, person: User) -> Contestant:
    """The contestant whose completions a person writes by hand."""
    return register_contestant(
        project=project,
        name=person.username,
        weights=f"person:{person.pk}",
        decoding={},
        kind=Contestant.Kind.PERSON,
    )


def _refuse_unchanged(texts: dict[int | None, str], assignment: Assignment) -> None:
    originals = Completion.objects.filter(pk__in=[pk for pk in texts if pk is not None])
    for pk, text in originals.values_list("pk", "text"):
        better = f"Your better answer to completion {assignment.shown_order.index(pk) + 1}"
        if text.strip() == texts[pk].strip():
            raise Refused(f"{better} is the same text. Change it, or take it away.")
        if assignment.leak_masked and MASK in texts[pk]:
            raise Refused(f"{better} still has {MASK} in it. Say in your own words what should stand there.")
