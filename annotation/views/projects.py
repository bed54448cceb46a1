"""My projects, and a project's overview."""

from django.contrib.auth.decorators import login_required
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from annotation.access import Role, get_project, includes
from annotation.forms.projects import ProjectForm
from annotation.models import Slot
from annotation.selectors.open_work import for_annotators, my_projects
from annotation.selectors.prompts import prompt_counts
from annotation.services.members import open_project
from rankloop.errors import Refused


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


@login_required
def project(request: HttpRequest, slug: str) -> HttpResponse:
    """Overview: the way to the ranking page for everybody, the state of things for researchers."""
    project = get_project(request.user, slug)
    context = for_annotators(user=request.user, project=project)
    if includes(project.my_role, Role.RESEARCHER):
        done = Count("slots", filter=Q(slots__state=Slot.State.FILLED))
        rounds = project.rounds.order_by("-number").annotate(slots_all=Count("slots"), slots_done=done)
        context |= {"rounds": rounds[:5], "prompts": prompt_counts(project)}
    return render(request, "annotation/project.html", context)
