"""What an annotator may send for one comparison, and what is wrong with it. Decides; saves nothing."""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from annotation.models import Judgment, Project
from annotation.models.projects import ASPECT_POINTS
from rankloop.errors import Refused

MOST_COMMENT = 2_000
# Of an edited answer or a demonstration: some ten pages.
MOST_WRITTEN = 20_000

Outcome = Judgment.Outcome


@dataclass(frozen=True)
class Note:
    """What is said of the completion shown at `position` (1 is the first) beside its rank."""

    position: int
    flags: Sequence[str] = ()
    aspects: Mapping[str, int] = field(default_factory=dict)
    comment: str = ""
    better: str = ""  # an edited answer: this completion as it should have been


@dataclass(frozen=True)
class Submission:
    """What an annotator sends. `ranks[k - 1]` is the rank of the completion shown at position k; 1 is best."""

    submission_key: uuid.UUID
    outcome: str
    ranks: Sequence[int] = ()
    strength: int | None = None  # of a pair: how much better, 1 to the project's levels
    notes: Sequence[Note] = ()
    text: str = ""  # of a demonstration: the answer itself
    reason: str = ""
    active_seconds: float = 0.0

    def body_hash(self) -> str:
        """SHA-256 (hex) of everything but the key and the time: what must not change under the same key."""
        body = asdict(self)
        del body["submission_key"], body["active_seconds"]
        return hashlib.sha256(json.dumps(body, sort_keys=True, default=list).encode()).hexdigest()

    @property
    def needs_rules(self) -> bool:
        """Whether anything in it depends on what the project allows."""
        return self.strength is not None or bool(self.notes)


@dataclass(frozen=True)
class Rules:
    """What a project lets its annotators say."""

    strength_levels: int
    flags: Sequence[str]
    aspects: Sequence[str]

    @classmethod
    def of(cls, project: Project) -> "Rules":
        return cls(project.strength_levels, project.flags, project.aspects)


def check_submission(submission: Submission, *, completions: int, rules: Rules | None) -> None:
    """Raise Refused, saying where and what to do, unless the submission fits a comparison of `completions`.

    `rules` may be None where `submission.needs_rules` is false.
    """
    if completions == 0:
        _check_demonstration(submission)
        return
    if submission.outcome == Outcome.DEMONSTRATED or submission.text:
        raise Refused(
            "This comparison has completions to rank. A text of your own goes into a note's 'better'."
        )
    if submission.outcome == Outcome.RANKED:
        check_ranks(submission.ranks, completions=completions)
    elif submission.ranks:
        raise Refused(f"Ranks go with the outcome 'ranked', not with {submission.outcome!r}. Leave them out.")
    if submission.outcome == Outcome.CANNOT_JUDGE and not submission.reason.strip():
        raise Refused("Say in a few words why you cannot judge this one.")
    if rules is not None:
        _check_strength(submission, completions, rules)
        _check_notes(submission.notes, completions, rules)


def check_ranks(ranks: Sequence[int], *, completions: int) -> None:
    """Raise Refused unless there is one rank a completion, dense from 1: 1, 2, 2, 3 and not 1, 3, 3, 4."""
    if len(ranks) != completions:
        raise Refused(
            f"This comparison has {completions} completions, and {len(ranks)} ranks came. Rank each one."
        )
    if sorted(set(ranks)) != list(range(1, len(set(ranks)) + 1)):
        raise Refused(f"The ranks {list(ranks)} have gaps. Start with 1, and give ties the same rank.")


def _check_demonstration(submission: Submission) -> None:
    if submission.ranks or submission.strength is not None or submission.notes:
        raise Refused("There is nothing to rank here: write the answer and send it as 'text'.")
    if submission.outcome == Outcome.CANNOT_JUDGE:
        if not submission.reason.strip():
            raise Refused("Say in a few words why you cannot answer this one.")
    elif submission.outcome != Outcome.DEMONSTRATED:
        raise Refused("There is nothing to rank here: the outcome is 'demonstrated' or 'cannot_judge'.")
    elif not submission.text.strip():
        raise Refused("The answer is empty. Write it, or skip this prompt.")
    else:
        _check_length("The answer", submission.text, MOST_WRITTEN)


def _check_strength(submission: Submission, completions: int, rules: Rules) -> None:
    if submission.strength is None:
        return
    if rules.strength_levels == 1:
        raise Refused("This project asks only which is better. Leave the strength out.")
    if submission.outcome != Outcome.RANKED or completions != 2 or len(set(submission.ranks)) != 2:
        raise Refused("A strength goes with a preference between two completions. Leave it out.")
    if not 1 <= submission.strength <= rules.strength_levels:
        raise Refused(
            f"A strength of {submission.strength} is outside this project's scale: "
            f"send a number from 1 (slightly better) to {rules.strength_levels}."
        )


def _check_notes(notes: Sequence[Note], completions: int, rules: Rules) -> None:
    positions = [note.position for note in notes]
    if len(set(positions)) != len(positions):
        raise Refused("Two notes are about the same completion. Send one a completion.")
    for note in notes:
        about = f"The note on completion {note.position}"
        if not 1 <= note.position <= completions:
            raise Refused(f"{about} is about none of the {completions} completions shown. Leave it out.")
        for flag in note.flags:
            if flag not in rules.flags:
                raise Refused(f"{about} has the flag {flag!r}. This project's are: {_listed(rules.flags)}.")
        for name, points in note.aspects.items():
            if name not in rules.aspects:
                raise Refused(
                    f"{about} rates the aspect {name!r}. This project's are: {_listed(rules.aspects)}."
                )
            if not 1 <= points <= ASPECT_POINTS:
                raise Refused(f"{about} gives {name} {points} points. Give 1 to {ASPECT_POINTS}.")
        _check_length(f"The comment on completion {note.position}", note.comment, MOST_COMMENT)
        _check_length(f"Your better answer to completion {note.position}", note.better, MOST_WRITTEN)


def _check_length(what: str, text: str, most: int) -> None:
    if len(text) > most:
        raise Refused(
            f"{what} has {len(text):,} characters, and at most {most:,} can be kept. Shorten it and send again; "
            "your draft is kept meanwhile."
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
