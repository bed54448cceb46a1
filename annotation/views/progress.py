"""The progress page."""

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from annotation.access import Role, get_project
from annotation.selectors.progress import AUDIENCES, MOST_COMPARED, Source, progress_of_project


@login_required
def progress(request: HttpRequest, slug: str) -> HttpResponse:
    """How far the work is, how fast it goes, and how far to trust it. `?source=rehearsal`: simulated annotators."""
    project = get_project(request.user, slug, at_least=Role.REVIEWER)
    source = request.GET.get("source", Source.PERSON)
    if source not in AUDIENCES:
        raise Http404("Progress is shown for source=person and source=rehearsal.")
    context = {
        "project": project,
        "progress": progress_of_project(project, source=source),
        "most_compared": MOST_COMPARED,
    }
    return render(request, "annotation/progress.html", context)
