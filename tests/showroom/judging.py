"""Judging as careful people do: mostly plainly, now and then with all that can be said besides."""

import random
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from django.db import connection

from annotation.models import Assignment, Project
from annotation.services.claims import claim_comparison
from annotation.services.judgments import revise_judgment, submit_judgment, withdraw_judgment
from annotation.submissions import Note, Submission
from rankloop.accounts.models import User


def judge_all(project: Project, people: list[User], draw: random.Random) -> None:
    """Everybody judges what is left for them, in each of the ways there are."""
    for person in people:
        ways = _ways(draw)
        while (assignment := claim_comparison(project=project, annotator=person)) is not None:
            next(ways)(assignment)


def _ways(draw: random.Random) -> Iterator[Callable[[Assignment], None]]:
    """Every way there is, again and again, each a call with the assignment."""

    def brief_first(assignment: Assignment) -> list[int]:
        lengths = dict(assignment.comparison.completions.values_list("pk", "text"))
        first, second = (len(lengths[pk]) for pk in assignment.shown_order)
        return [1, 2] if (first < second) == (draw.random() < 0.7) else [2, 1]

    def judge(assignment: Assignment, *, outcome: str = "ranked", **said: Any) -> uuid.UUID:
        key = uuid.uuid4()
        if outcome == "ranked":
            said.setdefault("ranks", brief_first(assignment))
        sent = Submission(key, outcome, active_seconds=draw.uniform(9, 70), **said)
        submit_judgment(assignment=assignment, submission=sent)
        return key

    def plainly(assignment: Assignment) -> None:
        judge(assignment, strength=draw.choice([1, 2, 2, 3]))

    def with_notes(assignment: Assignment) -> None:
        edited = assignment.comparison.completions.get(pk=assignment.shown_order[1]).text
        notes = (
            Note(
                1,
                flags=["factually wrong"],
                aspects={"helpfulness": 2, "honesty": 1, "tone": 4},
                comment="Not at 75 °C.",
            ),
            Note(
                2, aspects={"helpfulness": 4, "tone": 5}, better=f"{edited}\n\nAsk again if it does not help."
            ),
        )
        judge(assignment, ranks=[2, 1], strength=2, notes=notes)

    def revised(assignment: Assignment) -> None:
        key = judge(assignment, ranks=[1, 2], strength=1)
        better = Submission(uuid.uuid4(), "ranked", ranks=[2, 1], strength=3, active_seconds=12)
        revise_judgment(assignment=assignment, submission=better, replaces=key)

    def withdrawn(assignment: Assignment) -> None:
        judge(assignment, strength=1)
        withdraw_judgment(
            assignment=assignment, submission_key=uuid.uuid4(), reason="I was too tired to tell."
        )

    several = [
        plainly,
        with_notes,
        plainly,
        revised,
        plainly,
        lambda assignment: judge(assignment, ranks=[1, 1]),
        lambda assignment: judge(assignment, outcome="all_bad", reason="Both would ruin the pan."),
        plainly,
        withdrawn,
        lambda assignment: judge(assignment, outcome="cannot_judge", reason="I don't know the subject."),
    ]
    while True:
        yield from several


def spread_over_days() -> None:
    """Judgments can't be changed, and all were made in this second: set back behind the triggers, as no code may."""
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(
            """WITH back AS (
                   SELECT assignment_id, (assignment_id::text < '8')::int * 3 + ascii(assignment_id::text) % 9 AS days
                   FROM annotation_judgment GROUP BY assignment_id)
               UPDATE annotation_judgment judgment SET created_at = created_at - make_interval(days => back.days)
               FROM back WHERE back.assignment_id = judgment.assignment_id"""
        )
        cursor.execute("SET session_replication_role = DEFAULT")
