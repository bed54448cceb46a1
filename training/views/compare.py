"""Model versions side by side on the same prompts."""

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from annotation.access import Role, get_project
from annotation.models import Project, Prompt
from annotation.selectors.side_by_side import figures, shared_prompts, sides
from training.forms import CompareForm

PROMPTS_PER_PAGE = 10


@login_required
def compare(request: HttpRequest, slug: str) -> HttpResponse:
    """Two versions: how often one is preferred on held-out prompts, and what both wrote."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    context = {"project": project, "has_two": project.contestants.count() >= 2}
    form = CompareForm(_chosen(request, project), project=project)
    context["form"] = form
    if context["has_two"] and form.is_valid():
        a, b = form.cleaned_data["a"], form.cleaned_data["b"]
        split = form.cleaned_data["split"] or Prompt.Split.HELD_OUT
        prompts = shared_prompts(project, a, b, split=split)
        page = Paginator(prompts, PROMPTS_PER_PAGE).get_page(request.GET.get("page"))
        rows = sides(list(page.object_list), (a, b))
        context |= {
            "a": a,
            "b": b,
            "split": split,
            "page": page,
            "rows": rows,
            "figures": figures(project, a, b),
        }
    return render(request, "training/compare.html", context)


def _chosen(request: HttpRequest, project: Project) -> dict[str, str]:
    """What the address asks for; where it is silent, the newest contestant against the one that it met."""
    chosen = {name: request.GET.get(name, "") for name in ("a", "b", "split")}
    if not chosen["a"] and not chosen["b"]:
        # A person whose answers were kept is a contestant too, but no version that anybody waits for.
        models = project.contestants.filter(checkpoints__isnull=False)
        newest = models.order_by("-pk").first() or project.contestants.order_by("-pk").first()
        met = newest and project.contestants.filter(rounds__contestants=newest).exclude(pk=newest.pk)
        other = newest and (
            met.order_by("pk").first() or project.contestants.exclude(pk=newest.pk).order_by("-pk").first()
        )
        chosen["a"], chosen["b"] = (str(one.pk) if one else "" for one in (newest, other))
    chosen["split"] = chosen["split"] or Prompt.Split.HELD_OUT
    return chosen
