"""Training runs and generation jobs: what they do, and what they said."""

import uuid

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST

from annotation.access import Role, get_project
from annotation.models import Project
from training.access import get_job, get_run
from training.models import GenerationJob, TrainingRun, WorkStatus
from training.selectors.runs import log_tail, metrics_after
from training.services import runs as services
from training.views.launching import draft_page
from training.views.live import live_answer, live_part

RUNS_PER_PAGE = 30


@login_required
def runs(request: HttpRequest, slug: str) -> HttpResponse:
    """Every training run of the project, newest first."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    found = project.runs.select_related("round", "checkpoint").order_by("-created_at")
    page = Paginator(found, RUNS_PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "training/runs.html", {"project": project, "page": page})


@login_required
def run_page(request: HttpRequest, slug: str, run: uuid.UUID) -> HttpResponse:
    """One run: state, curves, inputs, options, log."""
    project, found = get_run(request, slug, run)
    if found.status == WorkStatus.DRAFT:
        return draft_page(request, project, found)
    context = {
        "project": project,
        "run": found,
        "inputs": found.inputs.select_related("checkpoint", "dataset").order_by("pk"),
        "options": sorted(found.recipe.get("options", {}).items()),
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
    return redirect("run", slug, run)


def _run_live(request: HttpRequest, project: Project, run: TrainingRun) -> str:
    address = reverse("run-live", args=[project.slug, run.pk])
    context = {"project": project, "run": run, "work": run, "metrics": run.result.get("metrics", {})}
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
