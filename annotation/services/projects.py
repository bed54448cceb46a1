"""Changing a project: its settings, and whether it is paused."""

from collections.abc import Iterable
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.db import transaction

from annotation.models import Project
from rankloop.accounts.models import User
from rankloop.audit.services import record
from rankloop.errors import Refused

SETTINGS = (
    *("name", "description", "overlap", "completions_per_comparison", "max_prompt_tokens"),
    *("strength_levels", "flags", "aspects", "lease_minutes", "revise_minutes"),
    *("blur_sensitive", "sensitive_categories", "leak_phrases"),
)
# Of lists whose model sets no limit of its own. Each phrase is looked for in every completion that is shown.
MOST_ENTRIES = 100


def lock_project(project: Project) -> Project:
    """The project's row as it is now, held until the transaction ends: who changes its members, settings or guideline
    waits for whoever does. Rows that only point at the project wait for nothing."""
    return Project.objects.select_for_update(no_key=True).get(pk=project.pk)


@transaction.atomic
def change_settings(*, project: Project, user: User, **values: Any) -> Project:
    """Change some of SETTINGS. Lists are stripped, and their empty entries dropped.

    Raises ValidationError with what is wrong at each field, and then changes nothing.
    """
    unknown = sorted(set(values) - set(SETTINGS))
    if unknown:
        raise Refused(f"There is no setting {unknown[0]!r}. There are {', '.join(SETTINGS)}.")
    locked = lock_project(project)
    before = {name: getattr(locked, name) for name in values}
    wrong: dict[str, Any] = {}
    for name, value in values.items():
        try:
            setattr(locked, name, _clean_list(name, value) if _is_list(name) else value)
        except ValidationError as error:
            wrong[name] = error
    try:
        locked.full_clean(exclude={field.name for field in Project._meta.fields} - (set(values) - set(wrong)))
    except ValidationError as error:
        wrong |= error.error_dict
    if wrong:
        raise ValidationError(wrong)
    changed = {name: [before[name], getattr(locked, name)] for name in values}
    changed = {name: [old, new] for name, (old, new) in changed.items() if old != new}
    if changed:
        locked.save(update_fields=list(changed))
        record("settings changed", actor=user, project=locked.slug, changed=changed)
    return locked


def _is_list(name: str) -> bool:
    return isinstance(Project._meta.get_field(name), ArrayField)


def _clean_list(name: str, entries: Iterable[str]) -> list[str]:
    """Entries without space around them and without empty ones. Raises ValidationError naming the one to change."""
    field = Project._meta.get_field(name)
    longest, most = field.base_field.max_length, field.size or MOST_ENTRIES
    kept = [stripped for entry in entries if (stripped := " ".join(entry.split()))]
    for entry in kept:
        if len(entry) > longest:
            raise ValidationError(f"“{entry[:40]}…” is longer than {longest} characters. Say it in fewer.")
    seen: set[str] = set()
    for entry in kept:
        if entry.casefold() in seen:
            raise ValidationError(f"“{entry}” stands here twice. Take one away.")
        seen.add(entry.casefold())
    if len(kept) > most:
        raise ValidationError(f"There are {len(kept)} entries, and {most} is the most. Take some away.")
    return kept


@transaction.atomic
def pause_project(*, project: Project, user: User) -> None:
    """Give nobody new comparisons; what is open may still be sent. Repeatable."""
    _set_paused(project, user, True, "project paused")


@transaction.atomic
def resume_project(*, project: Project, user: User) -> None:
    """Let ranking go on. Repeatable."""
    _set_paused(project, user, False, "project resumed")


def _set_paused(project: Project, user: User, paused: bool, action: str) -> None:
    if Project.objects.filter(pk=project.pk, is_paused=not paused).update(is_paused=paused):
        record(action, actor=user, project=project.slug)
    project.is_paused = paused
