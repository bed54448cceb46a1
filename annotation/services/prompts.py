"""Adding prompts: one by hand, or a file in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction

from annotation.importing import FieldError, ImportErrors, PromptRow, checked_messages, read_rows
from annotation.models import Project, Prompt
from annotation.splits import content_hash, split_of
from annotation.tokens import count_tokens
from rankloop.accounts.models import User
from rankloop.audit.services import record


@dataclass(frozen=True)
class ImportResult:
    """How many rows a file had, and how many of them were new."""

    rows: int
    added: int


def _prompt(project: Project, row: PromptRow, user: User | None) -> Prompt:
    tokens = count_tokens(row.messages)
    if tokens > project.max_prompt_tokens:
        raise FieldError(
            "prompt",
            f"{tokens} tokens long, and this project takes at most {project.max_prompt_tokens}. "
            "Shorten it, or raise the limit in the project's settings.",
        )
    split = split_of(row.messages, salt=settings.SPLIT_SALT, held_out_share=settings.HELD_OUT_SHARE)
    return Prompt(
        project=project,
        messages=row.messages,
        content_hash=content_hash(row.messages),
        split=Prompt.Split.HELD_OUT if row.held_out else split,
        tags=row.tags,
        source=row.source,
        created_by=user,
    )


@transaction.atomic
def add_prompt(
    *,
    project: Project,
    user: User,
    prompt: str | list[dict[str, str]],
    tags: Sequence[str] = (),
    source: str = "",
) -> tuple[Prompt, bool]:
    """Add one prompt written by hand; returns it and whether it is new. Raises FieldError."""
    row = PromptRow(line=1, messages=checked_messages(prompt), tags=sorted(set(tags)), source=source)
    made = _prompt(project, row, user)
    prompt_row, created = Prompt.objects.get_or_create(
        project=project,
        content_hash=made.content_hash,
        defaults={
            name: getattr(made, name) for name in ("messages", "split", "tags", "source", "created_by")
        },
    )
    if created:
        record("prompt added", actor=user, project=project.slug, subject=f"prompt {prompt_row.pk}")
    return prompt_row, created


@transaction.atomic
def import_prompts(*, project: Project, content: bytes, file: str, user: User | None = None) -> ImportResult:
    """Import every prompt of a file, or none. Repeatable: rows that are there already are passed over.

    Raises ImportErrors naming file, line, field and reason.
    """
    prompts, problems = [], []
    rows = read_rows(content, file=file)
    for row in rows:
        try:
            prompts.append(_prompt(project, row, user))
        except FieldError as error:
            problems.append(f"{file}, line {row.line}, {error.name}: {error.reason}")
    if problems:
        raise ImportErrors(problems)
    before = project.prompts.count()
    Prompt.objects.bulk_create(prompts, batch_size=1000, ignore_conflicts=True)
    added = project.prompts.count() - before
    record("prompts imported", actor=user, project=project.slug, file=file, rows=len(rows), added=added)
    return ImportResult(rows=len(rows), added=added)
