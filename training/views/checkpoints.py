"""Checkpoints with everything behind them, and the datasets they learned from."""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from annotation.access import Role, get_project
from annotation.importing import MOST_ERRORS, ImportErrors
from annotation.models import Project, Prompt
from rankloop.errors import Refused
from training.access import get_checkpoint, get_dataset
from training.forms import ImportForm
from training.models import Checkpoint
from training.selectors.datasets import demonstrations_of, jsonl, left_out, pairs_of, revised_since
from training.selectors.lineage import count_by_source, judgments_behind, lineage_of
from training.selectors.weights import weights_of
from training.services.checkpoints import register_default
from training.services.imports import import_dataset
from training.store import DamagedArtifact, ErasedText

JUDGMENTS_PER_PAGE = 25


@login_required
def checkpoints(request: HttpRequest, slug: str) -> HttpResponse:
    """Every checkpoint, newest first."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    found = project.checkpoints.select_related("base", "run__round").order_by("-pk")
    page = Paginator(found, JUDGMENTS_PER_PAGE).get_page(request.GET.get("page"))
    context = {"project": project, "page": page, "has_base": _has_base(project)}
    return render(request, "training/checkpoints.html", context)


def _has_base(project: Project) -> bool:
    return project.checkpoints.filter(kind=Checkpoint.Kind.BASE).exists()


@login_required
def latest_checkpoints(request: HttpRequest, slug: str) -> HttpResponse:
    """A part of the project's overview, which annotation can't render: it knows no checkpoints."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    context = {"project": project, "checkpoints": project.checkpoints.order_by("-pk")[:4]}
    return render(request, "training/latest_checkpoints.html", context)


@login_required
@require_POST
def add_default_base(request: HttpRequest, slug: str) -> HttpResponse:
    """Register the installation's default model, plain and asked to be brief, so that a first round can start."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    try:
        base = register_default(project=project)
        messages.success(request, f"{base.name} is registered, with two contestants to begin with.")
    except Refused as error:
        messages.error(request, str(error))
    return redirect("new-round" if "then-launch" in request.POST else "checkpoints", slug)


@login_required
def checkpoint_page(request: HttpRequest, slug: str, checkpoint: int) -> HttpResponse:
    """One checkpoint and its lineage, down to each judgment."""
    project, found = get_checkpoint(request, slug, checkpoint)
    lineage = lineage_of(found)
    judgments = judgments_behind(lineage.datasets)
    weights, damage = None, ""
    try:
        weights = weights_of(found)
    except DamagedArtifact as error:
        damage = str(error)
    page = Paginator(judgments, JUDGMENTS_PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "project": project,
        "checkpoint": found,
        "weights": weights,
        "damage": damage,
        "lineage": lineage,
        "sources": count_by_source(judgments),
        "page": page,
        "contestants": found.contestants.order_by("pk"),
        "adapters": found.adapters.order_by("-pk")[:20],
        "evaluations": found.evaluations.select_related("round").order_by("pk"),
    }
    return render(request, "training/checkpoint.html", context)


@login_required
def import_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Bring in pairs or answers from elsewhere."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    form = ImportForm(request.POST or None, request.FILES or None)
    problems: list[str] = []
    if request.method == "POST" and form.is_valid():
        file = form.cleaned_data["file"]
        try:
            dataset = import_dataset(project=project, content=file.read(), file=file.name, user=request.user)
        except ImportErrors as error:
            problems = error.problems[:MOST_ERRORS]
            problems += [f"… and {len(error.problems) - MOST_ERRORS} more"] * (
                len(error.problems) > MOST_ERRORS
            )
        else:
            messages.success(request, f"{file.name} is a dataset now. Choose it where you launch a run.")
            return redirect("dataset", slug, dataset.pk)
    context = {"project": project, "form": form, "problems": problems}
    return render(request, "training/import_dataset.html", context, status=400 if problems else 200)


@login_required
def dataset_page(request: HttpRequest, slug: str, dataset: int) -> HttpResponse:
    """One frozen dataset: what is in it and who learned from it."""
    project, found = get_dataset(request, slug, dataset)
    context = {
        "project": project,
        "dataset": found,
        # Datasets of the first format counted none.
        "written": found.counts.get("demonstrations", 0) + found.counts.get("edits", 0),
        "revised_since": revised_since(found),
        "left_out": left_out(found),
        "rounds": found.rounds.order_by("number"),
        "runs": [item.run for item in found.used_by.select_related("run__round", "run__checkpoint")],
    }
    return render(request, "training/dataset.html", context)


@login_required
def dataset_pairs(request: HttpRequest, slug: str, dataset: int, split: str) -> HttpResponse:
    """The pairs of a split as JSONL in TRL's preference form."""
    return _download(request, slug, dataset, split, pairs_of, split)


@login_required
def dataset_demonstrations(request: HttpRequest, slug: str, dataset: int, split: str) -> HttpResponse:
    """The approved written answers of a split as JSONL in TRL's prompt and completion form."""
    return _download(request, slug, dataset, split, demonstrations_of, f"sft-{split}")


def _download(
    request: HttpRequest, slug: str, dataset: int, split: str, lines_of: Callable[..., Any], name: str
) -> HttpResponse:
    project, found = get_dataset(request, slug, dataset)
    if split not in Prompt.Split.values:
        raise Http404("There is no such split.")
    try:
        lines = lines_of(found, split=split)
    except (DamagedArtifact, ErasedText) as error:
        messages.error(request, f"The file can't be given out. {error}")
        return redirect("dataset", slug, dataset)
    response = StreamingHttpResponse(jsonl(lines), content_type="application/jsonl; charset=utf-8")
    file = f"{project.slug}-{found.digest[:12]}-{name}.jsonl"
    response.headers["Content-Disposition"] = f'attachment; filename="{file}"'
    return response
