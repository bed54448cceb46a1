"""Launching a training run by hand: choose, look at what it would become, launch."""

import uuid
from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST

from annotation.access import Role, get_project
from annotation.models import Project
from rankloop.errors import Refused
from training.access import get_run
from training.models import Checkpoint, TrainingRun, WorkStatus
from training.recipes.options import METHODS
from training.recipes.presets import PRESETS
from training.run_form import RunForm
from training.services import launching as services
from training.services.runs import cancel_run
from training.views.live import live_answer, live_part

FIRST_METHOD = "dpo"


@login_required
def new_run(request: HttpRequest, slug: str) -> HttpResponse:
    """The form. `?method=` and `?preset=` choose what it shows, `?like=` a run to begin from, `?parent=` a checkpoint.

    The same sent twice with one launch key leads to the same run.
    """
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    like = _like(project, request.GET.get("like", ""))
    parent = _parent(project, request.GET.get("parent", ""))
    method = request.GET.get("method") or _method_for(like, parent)
    form = _form(request, project, method if method in METHODS else FIRST_METHOD, like, parent)
    if request.method == "POST" and form.is_valid():
        try:
            dataset = services.chosen_dataset(project=project, user=request.user, **form.data_fields())
            run = services.open_draft(
                project=project,
                user=request.user,
                method=form.method,
                dataset=dataset,
                launch_key=form.cleaned_data["launch_key"],
                duplicate_of=like,
                **form.draft_fields(),
            )
        except Refused as error:
            form.refuse(error)
        else:
            # The driver looks it over within two seconds; no doorbell is needed.
            return redirect("run", slug, run.pk)
    return _show_form(request, project, form, run=None, like=like, parent=parent)


@login_required
def change_run(request: HttpRequest, slug: str, run: uuid.UUID) -> HttpResponse:
    """The same form for a draft; its method stays."""
    project, found = get_run(request, slug, run)
    if found.status != WorkStatus.DRAFT:
        messages.error(request, "This run is launched already. Duplicate it, and change the duplicate.")
        return redirect("run", slug, run)
    form = _form(request, project, found.method, found)
    if request.method == "POST" and form.is_valid():
        try:
            dataset = services.chosen_dataset(project=project, user=request.user, **form.data_fields())
            services.change_draft(run=found, user=request.user, dataset=dataset, **form.draft_fields())
        except Refused as error:
            form.add_error(None, str(error))
        else:
            return redirect("run", slug, run)
    return _show_form(request, project, form, run=found, like=None, parent=None)


def _method_for(like: TrainingRun | None, parent: Checkpoint | None) -> str:
    """The method that the form opens with: a reward model can only go on as one."""
    if like:
        return like.method
    return "reward" if parent and parent.kind == Checkpoint.Kind.REWARD else FIRST_METHOD


def _form(
    request: HttpRequest,
    project: Project,
    method: str,
    like: TrainingRun | None,
    parent: Checkpoint | None = None,
) -> RunForm:
    preset = request.GET.get("preset")
    return RunForm(
        request.POST or None,
        project=project,
        method=method,
        preset=preset if preset in PRESETS else None,
        like=like,
        parent=parent,
    )


def _parent(project: Project, given: str) -> Checkpoint | None:
    """The checkpoint to go on from, when there is one of that number in the project."""
    return project.checkpoints.filter(pk=int(given)).first() if given.isdecimal() else None


def _like(project: Project, given: str) -> TrainingRun | None:
    """The run to begin from, when there is one of that id in the project."""
    try:
        return project.runs.filter(pk=uuid.UUID(given)).first()
    except ValueError:
        return None


def _show_form(
    request: HttpRequest,
    project: Project,
    form: RunForm,
    *,
    run: TrainingRun | None,
    like: TrainingRun | None,
    parent: Checkpoint | None,
) -> HttpResponse:
    context = {
        "project": project,
        "form": form,
        "run": run,
        "like": like,
        "parent": parent,
        "begun_with": "".join(
            f"&{name}={one.pk}" for name, one in (("like", like), ("parent", parent)) if one
        ),
        "method": METHODS[form.method],
        "method_name": form.method,
        "methods": METHODS.items(),
        "presets": PRESETS.items(),
        "preset": request.GET.get("preset"),
        "has_parent": form.fields["parent"].queryset.exists(),
        "has_data": form.fields["dataset"].queryset.exists() or form.fields["rounds"].queryset.exists(),
    }
    return render(request, "training/new_run.html", context, status=400 if form.errors else 200)


def draft_page(request: HttpRequest, project: Project, run: TrainingRun) -> HttpResponse:
    """A draft: what it would become, what is wrong with it, and its launch."""
    context = {
        "project": project,
        "run": run,
        "method": METHODS.get(run.method),
        "inputs": run.inputs.select_related("checkpoint", "dataset").order_by("pk"),
        "options": sorted(run.recipe.get("options", {}).items()),
        "live": _draft_live(request, project, run),
    }
    return render(request, "training/run_draft.html", context)


@login_required
def draft_live(request: HttpRequest, slug: str, run: uuid.UUID) -> HttpResponse:
    """What was found, renewed until it is there."""
    project, found = get_run(request, slug, run)
    return live_answer(request, _draft_live(request, project, found))


def _draft_live(request: HttpRequest, project: Project, run: TrainingRun) -> str:
    found: dict[str, Any] = run.findings
    limit = found.get("cut_without_asking", services.CUT_WITHOUT_ASKING)
    context = {
        "project": project,
        "run": run,
        "method": METHODS.get(run.method),
        "found": found,
        "must_accept": found.get("cut_share", 0) > limit,
        "cut_rows": sum(split["truncated"] + split["dropped"] for split in found.get("splits", {}).values()),
    }
    address = reverse("draft-live", args=[project.slug, run.pk])
    is_over = bool(found) or run.status != WorkStatus.DRAFT
    return live_part(request, "training/run_draft_live.html", context, address=address, is_over=is_over)


def _act(
    request: HttpRequest, slug: str, run: uuid.UUID, service: Callable[..., object], told: str, **given: Any
) -> HttpResponse:
    """One service call on a draft, then back to its page with what came of it."""
    _, found = get_run(request, slug, run)
    try:
        service(run=found, **given)
        messages.success(request, told)
    except Refused as error:
        messages.error(request, str(error))
    return redirect("run", slug, run)


@login_required
@require_POST
def launch(request: HttpRequest, slug: str, run: uuid.UUID) -> HttpResponse:
    """Queue a draft that was looked over."""
    return _act(
        request,
        slug,
        run,
        services.launch_draft,
        "The run is launched and waits for a worker.",
        user=request.user,
        accept_truncation="accept" in request.POST,
        looked_at=request.POST.get("of"),
    )


@login_required
@require_POST
def check(request: HttpRequest, slug: str, run: uuid.UUID) -> HttpResponse:
    """Look a draft over again."""
    return _act(request, slug, run, services.check_draft, "The run is looked over again.")


@login_required
@require_POST
def discard(request: HttpRequest, slug: str, run: uuid.UUID) -> HttpResponse:
    """Put a draft away."""
    _act(
        request,
        slug,
        run,
        cancel_run,
        "The draft is put away. It stays in the list as cancelled.",
        user=request.user,
    )
    return redirect("runs", slug)
