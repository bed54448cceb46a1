"""What the commands of this app share."""

from django.core.management.base import CommandError

from annotation.models import Project


def project_called(slug: str) -> Project:
    """The project of that slug. Raises CommandError naming those there are."""
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        known = ", ".join(Project.objects.values_list("slug", flat=True)) or "none yet"
        raise CommandError(f"There is no project {slug!r}. Known are: {known}.")
    return project
