"""Pages of what people judge. Each begins with the getter that authorises."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_POST

from annotation.access import Role, get_project, includes
from annotation.forms import ProjectForm, PromptFilter, PromptForm
from annotation.importing import FieldError
from annotation.models import Project, Slot
from annotation.selectors.board import progress_of
from annotation.selectors.open_work import my_projects, open_work
from annotation.selectors.prompts import find_prompts, prompt_counts, tags_of
from annotation.services.members import open_project
from annotation.services.prompts import add_prompt
from rankloop.errors import Refused

PROMPTS_PER_PAGE = 25


@login_required
def home(request: HttpRequest) -> HttpResponse:
    """My projects and what is left to do in each."""
    context = {"memberships": my_projects(request.user), "form": ProjectForm()}
    return render(request, "annotation/home.html", context)


@login_required
@require_POST
def new_project(request: HttpRequest) -> HttpResponse:
    """Open a project and become its first admin: staff only."""
    if not request.user.is_staff:
        raise Http404("Only staff open projects.")
    form = ProjectForm(request.POST)
    if form.is_valid():
        try:
            project = open_project(user=request.user, **form.cleaned_data)
        except Refused as error:
            form.add_error("slug", str(error))
        else:
            return redirect("project", project.slug)
    context = {"memberships": my_projects(request.user), "form": form}
    return render(request, "annotation/home.html", context, status=400)


def _for_annotators(request: HttpRequest, project: Project) -> dict[str, Any]:
    """What an annotator's pages show of a project: the work left, one's own progress, the guideline."""
    return {
        "project": project,
        "left": open_work(user=request.user, projects=[project])[project.pk],
        "progress": progress_of(project=project, annotator=request.user),
        "guideline": project.guidelines.order_by("-version").first(),
    }


@login_required
def project(request: HttpRequest, slug: str) -> HttpResponse:
    """Overview: the way to the ranking page for everybody, the state of things for researchers."""
    project = get_project(request.user, slug)
    context = _for_annotators(request, project)
    if includes(project.my_role, Role.RESEARCHER):
        done = Count("slots", filter=Q(slots__state=Slot.State.FILLED))
        rounds = project.rounds.order_by("-number").annotate(slots_all=Count("slots"), slots_done=done)
        context |= {"rounds": rounds[:5], "prompts": prompt_counts(project)}
    return render(request, "annotation/project.html", context)


@login_required
@never_cache
@ensure_csrf_cookie
def annotate(request: HttpRequest, slug: str) -> HttpResponse:
    """The ranking page's frame. What is ranked comes over the API: nothing here tells contestants apart."""
    project = get_project(request.user, slug)
    return render(request, "annotation/annotate.html", _for_annotators(request, project))


@login_required
def prompts(request: HttpRequest, slug: str) -> HttpResponse:
    """The project's prompts, searched and filtered."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    form = PromptFilter(request.GET, tags=tags_of(project))
    wanted = form.cleaned_data if form.is_valid() else {}
    page = Paginator(find_prompts(project, **wanted), PROMPTS_PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "project": project,
        "form": form,
        "page": page,
        "counts": prompt_counts(project),
        "filtered": any(wanted.values()),
    }
    return render(request, "annotation/prompts.html", context)


@login_required
def new_prompt(request: HttpRequest, slug: str) -> HttpResponse:
    """Write one prompt by hand."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    form = PromptForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            prompt, is_new = add_prompt(
                project=project,
                user=request.user,
                prompt=form.messages(),
                tags=form.cleaned_data["tags"],
                source="written by hand",
            )
        except FieldError as error:
            form.add_error("tags" if error.name == "tags" else "user", error.reason)
        else:
            told = "was added" if is_new else "is here already; nothing was added"
            messages.success(
                request, f"The prompt {told}. It belongs to the {prompt.get_split_display()} split."
            )
            return redirect("new-prompt" if "another" in request.POST else "prompts", project.slug)
    status = 400 if form.errors else 200
    return render(request, "annotation/new_prompt.html", {"project": project, "form": form}, status=status)
