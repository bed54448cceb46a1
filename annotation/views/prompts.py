"""The project's prompts."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from annotation.access import Role, get_project
from annotation.forms.prompts import PromptFilter, PromptForm
from annotation.importing import FieldError
from annotation.selectors.prompts import find_prompts, prompt_counts, tags_of
from annotation.services.prompts import add_prompt

PROMPTS_PER_PAGE = 25


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
