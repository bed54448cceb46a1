"""The guideline's versions, and what changed between them."""

from functools import lru_cache

from annotation.differences import changes_html
from annotation.models import Guideline, Project
from annotation.rendering import mark_hidden


def newest_guideline(project: Project) -> Guideline | None:
    """The version annotators work by now."""
    return project.guidelines.select_related("created_by").order_by("-version").first()


def guideline_of(project: Project, version: int) -> Guideline | None:
    """One version."""
    return project.guidelines.select_related("created_by").filter(version=version).first()


def changes_since(project: Project, version: int, guideline: Guideline) -> str | None:
    """HTML of what changed from a version to this one; None when that version is missing or the text is the same."""
    earlier = guideline_of(project, version)
    if earlier is None or earlier.text == guideline.text:
        return None
    return _changes_html(earlier.text, guideline.text)


# Every annotator asks for the same difference on the day a version comes out.
@lru_cache(maxsize=64)
def _changes_html(old: str, new: str) -> str:
    return mark_hidden(changes_html(old, new))
