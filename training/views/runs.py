"""Training runs and generation jobs: what they do, and what they said."""

import json
import uuid
from collections.abc import Callable

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from annotation.access import Role, get_project
from annotation.models import Project
from rankloop.errors import Refused
from training.access import get_job, get_run
from training.forms import RunFilter
from training.measurements import beside, catalogue, main_rate
from training.models import GenerationJob, RunInput, TrainingRun, WorkStatus
from training.selectors.overlay import FEWEST, MOST
from training.selectors.runs import log_tail, metrics_after, options_of, queue_of, remaining_seconds
from training.services import runs as services
from training.services import steering
from training.views.launching import draft_page
from training.views.live import live_answer, live_part

RUNS_PER_PAGE = 30


@login_required
def runs(request: HttpRequest, slug: str) -> HttpResponse:
    """What runs and what waits, then every training run of the project, newest first."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    form = RunFilter(request.GET, project=project)
    wanted = {name: value for name, value in form.cleaned_data.items() if value} if form.is_valid() else {}
    found = project.runs.filter(**wanted).select_related("round", "checkpoint").order_by("-created_at")
    context = {
        "project": project,
        "form": form,
        "page": Paginator(found, RUNS_PER_PAGE).get_page(request.GET.get("page")),
        "has_runs": project.runs.exists(),
        "live": _queue_live(request, project),
        "fewest": FEWEST,
        "most": MOST,
    }
    return render(request, "training/runs.html", context)


@login_required
def runs_live(request: HttpRequest, slug: str) -> HttpResponse:
    """The queue, renewed."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    return live_answer(request, _queue_live(request, project))


def _queue_live(request: HttpRequest, project: Project) -> str:
    queue = queue_of(project)
    context = {"project": project, "queue": queue}
    address = reverse("runs-live", args=[project.slug])
    is_over = not (queue.running or queue.waiting)
    return live_part(request, "training/runs_live.html", context, address=address, is_over=is_over)


@login_required
def run_page(request: HttpRequest, slug: str, run: uuid.UUID) -> HttpResponse:
    """One run: state, curves, inputs, options, log."""
    project, found = get_run(request, slug, run)
    if found.status == WorkStatus.DRAFT:
        return draft_page(request, project, found)
    inputs = found.inputs.select_related("checkpoint", "dataset").order_by("pk")
    context = {
        "project": project,
        "run": found,
        "inputs": inputs,
        "options": options_of(found),
        "samples": found.learns_from_rewards
        or any(item.role == RunInput.Role.REWARD_MODEL for item in inputs),
        "catalogue": json.dumps(catalogue()),
        "live": _run_live(request, project, found),
        "log": _log(request, project, found, "run-log"),
    }
    return render(request, "training/run.html", context)


@login_required
def run_live(request: HttpRequest, slug: str, run: uuid.UUID) -> HttpResponse:
    """State and results, renewed."""
    project, found = get_run(request, slug, run)
    return live_answer(request, _run_live(request, project, found))


@login_required
def run_log(request: HttpRequest, slug: str, run: uuid.UUID) -> HttpResponse:
    """The end of the log, renewed."""
    project, found = get_run(request, slug, run)
    return live_answer(request, _log(request, project, found, "run-log"))


@login_required
def run_metrics(request: HttpRequest, slug: str, run: uuid.UUID) -> JsonResponse:
    """Measurements that came after the id in `after`, for the curves."""
    _, found = get_run(request, slug, run)
    after = request.GET.get("after", "")
    return JsonResponse(metrics_after(found, after=int(after) if after.isdecimal() else 0))


@login_required
@require_POST
def cancel_run(request: HttpRequest, slug: str, run: uuid.UUID) -> HttpResponse:
    """Ask a run to save and stop."""
    _, found = get_run(request, slug, run)
    services.cancel_run(run=found, user=request.user)
    messages.success(request, "The run was asked to stop. It saves a checkpoint to resume from first.")
    return _back(request, slug, run)


@login_required
@require_POST
def change_priority(request: HttpRequest, slug: str, run: uuid.UUID) -> HttpResponse:
    """Let a run come earlier or later."""
    _, found = get_run(request, slug, run)
    asked = request.POST.get("priority", "")
    if not asked.removeprefix("-").isdecimal() or len(asked) > 6:
        messages.error(request, "A priority is a whole number. Use the buttons.")
        return _back(request, slug, run)
    return _act(request, slug, found, steering.change_priority, priority=int(asked))


@login_required
@require_POST
def continue_run(request: HttpRequest, slug: str, run: uuid.UUID) -> HttpResponse:
    """Queue a run again, to go on from its last checkpoint."""
    _, found = get_run(request, slug, run)
    told = "The run is queued again. It goes on from its last checkpoint."
    return _act(request, slug, found, steering.continue_run, told)


def _act(
    request: HttpRequest,
    slug: str,
    run: TrainingRun,
    service: Callable[..., object],
    told: str = "",
    **given: int,
) -> HttpResponse:
    """One service call on a run, then back with what came of it."""
    try:
        service(run=run, user=request.user, **given)
    except Refused as error:
        messages.error(request, str(error))
    else:
        if told:
            messages.success(request, told)
    return _back(request, slug, run.pk)


def _back(request: HttpRequest, slug: str, run: uuid.UUID) -> HttpResponse:
    """To the page the button was on: the list, or the run's own."""
    return redirect("runs", slug) if "from-list" in request.POST else redirect("run", slug, run)


@login_required
@require_POST
def duplicate_run(request: HttpRequest, slug: str, run: uuid.UUID) -> HttpResponse:
    """A draft like this run, to change and launch."""
    _, found = get_run(request, slug, run)
    try:
        draft = steering.duplicate_run(run=found, user=request.user)
    except Refused as error:
        messages.error(request, str(error))
        return redirect("run", slug, run)
    messages.success(
        request, "This is a draft like the run you came from. Change what you want, then launch it."
    )
    return redirect("run", slug, draft.pk)


def _run_live(request: HttpRequest, project: Project, run: TrainingRun) -> str:
    address = reverse("run-live", args=[project.slug, run.pk])
    metrics = run.result.get("metrics", {})
    context = {
        "project": project,
        "run": run,
        "work": run,
        "metrics": metrics,
        "rate": main_rate(metrics),
        "beside": beside(metrics),
        "remaining": remaining_seconds(run, now=timezone.now()),
    }
    return live_part(request, "training/run_live.html", context, address=address, is_over=run.is_over)


def _log(request: HttpRequest, project: Project, work: TrainingRun | GenerationJob, name: str) -> str:
    address = reverse(name, args=[project.slug, work.pk])
    context = {"log": log_tail(work), "work": work}
    return live_part(request, "training/log.html", context, address=address, is_over=work.is_over)


@login_required
def job_page(request: HttpRequest, slug: str, job: uuid.UUID) -> HttpResponse:
    """One generation job: state, contestants, log."""
    project, found = get_job(request, slug, job)
    context = {
        "project": project,
        "job": found,
        "contestants": found.contestants.order_by("pk"),
        "live": _job_live(request, project, found),
        "log": _log(request, project, found, "job-log"),
    }
    return render(request, "training/job.html", context)


@login_required
def job_live(request: HttpRequest, slug: str, job: uuid.UUID) -> HttpResponse:
    """A job's state, renewed."""
    project, found = get_job(request, slug, job)
    return live_answer(request, _job_live(request, project, found))


@login_required
def job_log(request: HttpRequest, slug: str, job: uuid.UUID) -> HttpResponse:
    """The end of a job's log, renewed."""
    project, found = get_job(request, slug, job)
    return live_answer(request, _log(request, project, found, "job-log"))


def _job_live(request: HttpRequest, project: Project, job: GenerationJob) -> str:
    address = reverse("job-live", args=[project.slug, job.pk])
    context = {"project": project, "work": job}
    return live_part(request, "training/work_live.html", context, address=address, is_over=job.is_over)
