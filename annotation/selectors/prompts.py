"""Prompts of a project: counted, listed, searched."""

from django.db import connection
from django.db.models import Count, QuerySet

from annotation.models import Project, Prompt


def prompt_counts(project: Project) -> dict[str, int]:
    """How many prompts each split has."""
    counted = project.prompts.values_list("split").annotate(number=Count("pk"))
    return {str(split): 0 for split in Prompt.Split} | dict(counted)


def tags_of(project: Project) -> list[str]:
    """Every tag in use, in alphabetical order."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT unnest(tags) AS tag FROM annotation_prompt WHERE project_id = %s ORDER BY tag",
            [project.pk],
        )
        return [row[0] for row in cursor.fetchall()]


def find_prompts(project: Project, *, q: str = "", split: str = "", tag: str = "") -> QuerySet[Prompt]:
    """Prompts with `q` anywhere in their conversation, newest first."""
    found = project.prompts.order_by("-pk")
    if q:
        found = containing(found, q)
    if split:
        found = found.filter(split=split)
    if tag:
        found = found.filter(tags__contains=[tag])
    return found


def containing(prompts: QuerySet[Prompt], text: str) -> QuerySet[Prompt]:
    """Those of the prompts with a text anywhere in their conversation, in capitals or not."""
    # Message texts only: a search for "role" or "user" should not find every row's JSON.
    return prompts.extra(
        where=[
            "EXISTS (SELECT FROM jsonb_array_elements(messages) message "
            "WHERE strpos(lower(message->>'content'), lower(%s)) > 0)"
        ],
        params=[text],
    )
