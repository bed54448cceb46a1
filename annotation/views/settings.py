"""A project's settings, and its pause."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from annotation.access import Role, get_project
from annotation.forms.projects import SettingsForm
from annotation.services.projects import change_settings, pause_project, resume_project


@login_required
def settings(request: HttpRequest, slug: str) -> HttpResponse:
    """Everything an admin can set, in one form."""
    project = get_project(request.user, slug, at_least=Role.ADMIN)
    form = SettingsForm(request.POST or None, project=project)
    if request.method == "POST" and form.is_valid():
        try:
            change_settings(project=project, user=request.user, **form.cleaned_data)
        except ValidationError as error:
            form.add_error(None, error)
        else:
            messages.success(request, "The settings are saved. They hold from the next comparison on.")
            return redirect("project-settings", project.slug)
    context = {"project": project, "form": form}
    return render(request, "annotation/settings.html", context, status=400 if form.errors else 200)


@login_required
@require_POST
def pause(request: HttpRequest, slug: str) -> HttpResponse:
    """Stop giving out comparisons."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    pause_project(project=project, user=request.user)
    messages.warning(request, "The project is paused. What people have open they may still send.")
    return _back(request, slug)


@login_required
@require_POST
def resume(request: HttpRequest, slug: str) -> HttpResponse:
    """Give out comparisons again."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    resume_project(project=project, user=request.user)
    messages.success(request, "The project goes on: annotators are given comparisons again.")
    return _back(request, slug)


def _back(request: HttpRequest, slug: str) -> HttpResponse:
    """To the page the button stood on."""
    return redirect("project-settings" if request.POST.get("back") == "settings" else "project", slug)
