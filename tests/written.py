"""Answers of people, and revisions, put into the tables by hand."""

import uuid
from typing import Any

from annotation.models import Completion, Judgment
from annotation.services.writing import person_contestant


def write_answer(
    judgment: Judgment, text: str, *, edited_from: Completion | None = None, review: str = "waiting"
) -> Completion:
    """An answer that came with a judgment: an edited one, or a demonstration."""
    prompt = judgment.comparison.prompt
    author = person_contestant(project=prompt.project, person=judgment.annotator)
    return Completion.objects.create(
        prompt=prompt,
        contestant=author,
        sample_index=author.completions.count(),
        text=text,
        edited_from=edited_from,
        judgment=judgment,
        review=review,
    )


def revise(judgment: Judgment, **changes: Any) -> Judgment:
    """A judgment that supersedes another, equal but for the changes."""
    names = [field.attname for field in Judgment._meta.concrete_fields if field.attname != "id"]
    values = {name: getattr(judgment, name) for name in names}
    return Judgment.objects.create(
        **{**values, "supersedes_id": judgment.pk, "submission_key": uuid.uuid4(), **changes}
    )


def demonstrate(judgment: Judgment, text: str, *, review: str = "waiting") -> Completion:
    """Turn a judgment into a demonstration with its answer: a revision, as judgments are only added to."""
    return write_answer(revise(judgment, outcome="demonstrated"), text, review=review)
