"""The ranking page's frame."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie

from annotation.access import get_project
from annotation.models import Report
from annotation.selectors.open_work import for_annotators


@login_required
@never_cache
@ensure_csrf_cookie
def annotate(request: HttpRequest, slug: str) -> HttpResponse:
    """The ranking page's frame. What is ranked comes over the API: nothing here tells contestants apart."""
    project = get_project(request.user, slug)
    context = for_annotators(user=request.user, project=project)
    # `other` has a field of its own.
    context["report_categories"] = [choice for choice in Report.Category.choices if choice[0] != "other"]
    return render(request, "annotation/annotate.html", context)
