"""Rounds that wait to be ranked: one for each look of the ranking page."""

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from annotation.models import Assignment, Comparison, Completion, Prompt, Round
from annotation.services.claims import claim_comparison, skip_comparison
from annotation.services.comparisons import add_comparisons
from annotation.services.contestants import register_contestant
from annotation.services.judgments import submit_judgment
from annotation.services.prompts import add_prompt
from annotation.services.reports import report_comparison
from annotation.submissions import Submission
from tests.showroom import texts

if TYPE_CHECKING:
    from tests.showroom.filling import Room


def rounds_to_rank(room: "Room") -> None:
    """Each newer round comes first, and its annotator takes a comparison of it before the next is opened."""

    def open_and_claim(name: str, called: str, groups: list[tuple[Any, list[str]]], *tags: str) -> None:
        round = _ready(room, name, groups, tags)
        room.rounds[name] = round
        claimed = claim_comparison(project=room.project, annotator=room.people[called])
        assert claimed is not None and claimed.comparison.round_id == round.pk

    questions = [(question, [full, brief + " "]) for question, full, brief in texts.QUESTIONS]
    demonstrations = [(question + " Please.", []) for question, *_ in texts.QUESTIONS[:4]]
    open_and_claim("Demonstrations", "emeka", demonstrations)
    open_and_claim("Pairs", "anna", [(texts.CONVERSATION, texts.CONVERSATION_ANSWERS), *questions[:7]])
    open_and_claim("Right to left", "dina", [(texts.ARABIC, texts.ARABIC_ANSWERS)])
    open_and_claim("Handle with care", "fatima", [(texts.SENSITIVE, texts.SENSITIVE_ANSWERS)], "violence")
    eight = [(texts.LONG_PROMPT, [texts.long_answer(number) for number in range(8)])]
    open_and_claim("Eight long plans", "chloe", eight)
    four = [
        (question + " (four answers)", [full, brief, full + " Good luck!", brief + " Good luck!"])
        for question, full, brief in texts.QUESTIONS[:6]
    ]
    open_and_claim("Fours", "ben", [(texts.TABLE_PROMPT, texts.TABLE_ANSWERS), *four])
    _some_answers(room)


def _ready(room: "Room", name: str, groups: list[tuple[Any, list[str]]], tags: Sequence[str]) -> Round:
    """A round in ranking: for each prompt the answers that are compared; none of them: it is to be written."""
    project, number = room.project, room.project.rounds.count() + 1
    size = len(groups[0][1])
    round = Round.objects.create(
        project=project,
        number=number,
        name=name,
        kind=Round.Kind.RANKING if size else Round.Kind.DEMONSTRATION,
        status=Round.Status.RANKING,
        priority=number,
        completions_per_comparison=size or 2,
        samples_per_contestant=1,
        first_sample=number,
        created_by=room.cast.researcher,
    )
    contestants = [
        register_contestant(project=project, name=f"contestant {index}", weights=f"{index}", decoding={})
        for index in range(1, size + 1)
    ]
    round.contestants.set(contestants)
    prompts: list[Prompt] = []
    ids = []
    for prompt, answers in groups:
        added, _ = add_prompt(project=project, user=room.cast.researcher, prompt=prompt, tags=tags)
        prompts.append(added)
        rows = Completion.objects.bulk_create(
            Completion(prompt=added, contestant=contestant, sample_index=number, text=text)
            for contestant, text in zip(contestants, answers, strict=True)
        )
        ids.append([row.pk for row in rows])
    round.prompts.set(prompts)
    kind = Comparison.Kind.REGULAR if size else Comparison.Kind.DEMONSTRATION
    comparisons = [
        Comparison(round=round, prompt=prompt, ordinal=ordinal, kind=kind)
        for ordinal, prompt in enumerate(prompts, 1)
    ]
    add_comparisons(round=round, comparisons=comparisons, groups=ids)
    return round


def _some_answers(room: "Room") -> None:
    """What others have already done in the open rounds: ranked, reported, skipped, written."""
    other, done = room.tireless, 0
    while (assignment := claim_comparison(project=room.project, annotator=other)) is not None and done < 9:
        done, count = done + 1, len(assignment.shown_order)
        if done == 2:
            report_comparison(
                assignment=assignment, category="personal", text="It names a doctor and her street."
            )
        elif done == 3:
            report_comparison(assignment=assignment, category="other", text=texts.LONG_WORDS)
        elif done == 4:
            skip_comparison(assignment=assignment, reason="It is too long.")
        elif count:
            sent = Submission(uuid.uuid4(), "ranked", ranks=list(range(1, count + 1)), active_seconds=41)
            submit_judgment(assignment=assignment, submission=sent)
    for slot in room.rounds["Demonstrations"].slots.filter(state="open").order_by("position")[:2]:
        _demonstrate(room, slot)


def _demonstrate(room: "Room", slot: Any) -> None:
    """One answer written from scratch, by somebody whose turn it would not be."""
    assignment = Assignment.objects.create(
        comparison=slot.comparison,
        annotator=room.people["fatima"],
        lease_until=timezone.now() + timedelta(hours=1),
        claimed_at=timezone.now(),
        position=slot.position,
        shown_order=[],
    )
    slot.state, slot.assignment = slot.State.HELD, assignment
    slot.save()
    text = texts.QUESTIONS[slot.comparison.ordinal - 1][1]
    sent = Submission(uuid.uuid4(), "demonstrated", text=text, active_seconds=160)
    submit_judgment(assignment=assignment, submission=sent)
