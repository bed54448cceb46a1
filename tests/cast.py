"""The fixed cast of the tests: a project with two annotators, a reviewer, a researcher, and a stranger outside it."""

from dataclasses import dataclass, field

from annotation.models import Comparison, Completion, Contestant, Membership, Project, Prompt, Round
from annotation.services.comparisons import add_comparisons
from annotation.services.contestants import register_contestant
from annotation.services.members import add_member, open_project
from annotation.services.prompts import add_prompt
from rankloop.accounts.models import User

PASSWORD = "correct horse battery"


@dataclass
class Cast:
    """Who and what every test can count on."""

    project: Project
    admin: User
    researcher: User
    reviewer: User
    anna: User
    ben: User
    stranger: User
    simulated: list[User] = field(default_factory=list)


def assemble() -> Cast:
    """Make the cast, in a project called `tea`."""
    people = {
        name: User.objects.create_user(name, password=PASSWORD)
        for name in ("admin", "researcher", "reviewer", "anna", "ben", "stranger")
    }
    project = open_project(slug="tea", name="Tea questions", user=people["admin"])
    roles = {"researcher": "researcher", "reviewer": "reviewer", "anna": "annotator", "ben": "annotator"}
    for name, role in roles.items():
        add_member(project=project, user=people[name], role=role)
    return Cast(project=project, **people)


def add_simulated(cast: Cast, count: int = 2) -> list[User]:
    """Simulated annotators, members of the project."""
    for number in range(1, count + 1):
        user = User.objects.create_user(f"rehearsal-{number}", password=PASSWORD, is_simulated=True)
        add_member(project=cast.project, user=user, role=Membership.Role.ANNOTATOR)
        cast.simulated.append(user)
    return cast.simulated


def add_prompts(cast: Cast, count: int) -> list[Prompt]:
    """Prompts whose split the salted hash decides."""
    return [
        add_prompt(project=cast.project, user=cast.researcher, prompt=f"How do I brew tea number {number}?")[
            0
        ]
        for number in range(count)
    ]


def add_contestants(cast: Cast, *names: str) -> list[Contestant]:
    """Contestants without a checkpoint: enough where nothing is generated."""
    return [register_contestant(project=cast.project, name=name, weights=name, decoding={}) for name in names]


def open_ranking(
    cast: Cast, *, comparisons: int = 3, completions: int = 4, overlap: int = 2, audience: str = "people"
) -> Round:
    """A round in ranking with that many comparisons, each of its own prompt, with texts that differ."""
    prompts = add_prompts(cast, comparisons)
    contestants = add_contestants(cast, "plain", "polite")
    number = cast.project.rounds.count() + 1
    round = Round.objects.create(
        project=cast.project,
        number=number,
        name=f"Round {number}",
        status=Round.Status.RANKING,
        audience=audience,
        overlap=overlap,
        completions_per_comparison=completions,
    )
    round.contestants.set(contestants)
    round.prompts.set(prompts)
    offset = Completion.objects.count()
    rows = Completion.objects.bulk_create(
        Completion(
            prompt=prompt,
            contestant=contestants[index % 2],
            sample_index=offset + index,
            text=f"Answer {index + 1} to {prompt.last_turn} Steep it for **{index + 2} minutes**.",
        )
        for prompt in prompts
        for index in range(completions)
    )
    groups = [
        [row.pk for row in rows[start : start + completions]] for start in range(0, len(rows), completions)
    ]
    add_comparisons(
        round=round,
        comparisons=[
            Comparison(round=round, prompt=prompt, ordinal=ordinal)
            for ordinal, prompt in enumerate(prompts, 1)
        ],
        groups=groups,
    )
    return round
