"""The guideline: reading it, what changed, and publishing a new version."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from annotation.access import Role, get_project
from annotation.forms.guidelines import GuidelineForm, VersionsForm
from annotation.models import Guideline, Project
from annotation.selectors.guidelines import changes_since, newest_guideline
from annotation.services.guidelines import Overtaken, mark_guideline_read, publish_guideline
from rankloop.errors import Refused


@login_required
def guideline(request: HttpRequest, slug: str) -> HttpResponse:
    """The newest version or the one asked for, and what changed. Opening the newest one counts as reading it."""
    project = get_project(request.user, slug)
    versions = list(project.guidelines.select_related("created_by").order_by("-version"))
    form = VersionsForm(request.GET, versions=[row.version for row in versions])
    if not form.is_valid():
        raise Http404("There is no such version of the guideline.")
    newest = versions[0] if versions else None
    wanted = form.cleaned_data["version"]
    shown = next((row for row in versions if row.version == wanted), newest)
    context = {"project": project, "versions": versions, "form": form, "shown": shown, "newest": newest}
    if shown is not None:
        context |= _changes(request, project, shown, form.cleaned_data["since"])
    return render(request, "annotation/guideline.html", context)


def _changes(
    request: HttpRequest, project: Project, shown: Guideline, since: int | None
) -> dict[str, object]:
    """What changed since the version asked for, else since the one this member read last."""
    read = project.memberships.get(user=request.user).guideline_read
    is_news = since is None and "version" not in request.GET and 0 < read < shown.version
    mark_guideline_read(project=project, user=request.user, version=shown.version)
    since = read if is_news else since
    if since is None or since == shown.version:
        return {}
    return {"since": since, "is_news": is_news, "changes": changes_since(project, since, shown) or ""}


@login_required
def edit_guideline(request: HttpRequest, slug: str) -> HttpResponse:
    """Write the next version. Whoever was overtaken sees what changed and keeps their text."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    newest = newest_guideline(project)
    version = newest.version if newest else 0
    context = {"project": project, "newest": newest}
    if request.method != "POST":
        context["form"] = GuidelineForm(initial={"based_on": version, "text": newest.text if newest else ""})
        return render(request, "annotation/edit_guideline.html", context)
    form = GuidelineForm(request.POST)
    context["form"], status = form, 400
    if form.is_valid():
        try:
            published = publish_guideline(project=project, user=request.user, **form.cleaned_data)
        except Overtaken as error:
            # The next attempt is on top of the version they are shown now.
            since, newest, status = form.cleaned_data["based_on"], newest_guideline(project), 409
            form.data = form.data.copy()
            form.data["based_on"] = str(newest.version if newest else 0)
            context |= {"overtaken": str(error), "since": since, "newest": newest}
            context["changes"] = changes_since(project, since, newest) if newest else None
        except Refused as error:
            form.add_error("text", str(error))
        else:
            messages.success(
                request, f"Version {published.version} is published. Annotators are shown what changed."
            )
            return redirect("guideline", slug)
    return render(request, "annotation/edit_guideline.html", context, status=status)
