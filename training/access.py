"""Getters that fetch and authorise: researchers and admins. Http404 alike for what is foreign and what is missing."""

import uuid

from django.http import Http404, HttpRequest
from rest_framework.request import Request

from annotation.access import Role, get_project
from annotation.models import Project, Round
from training.models import Checkpoint, GenerationJob, PreferenceDataset, TrainingRun

Asked = HttpRequest | Request


def get_round(request: Asked, slug: str, number: int) -> tuple[Project, Round]:
    """A round of a project that is open to the researcher."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    found = project.rounds.select_related("project").filter(number=number).first()
    if found is None:
        raise Http404("There is no such round.")
    return project, found


def get_run(request: Asked, slug: str, run: uuid.UUID) -> tuple[Project, TrainingRun]:
    """A run of such a project."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    found = project.runs.select_related("round", "checkpoint").filter(pk=run).first()
    if found is None:
        raise Http404("There is no such run.")
    return project, found


def get_job(request: Asked, slug: str, job: uuid.UUID) -> tuple[Project, GenerationJob]:
    """A generation job of such a project."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    found = (
        GenerationJob.objects.select_related("round", "base").filter(pk=job, round__project=project).first()
    )
    if found is None:
        raise Http404("There is no such job.")
    return project, found


def get_checkpoint(request: Asked, slug: str, checkpoint: int) -> tuple[Project, Checkpoint]:
    """A checkpoint of such a project."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    found = project.checkpoints.select_related("base", "run__round").filter(pk=checkpoint).first()
    if found is None:
        raise Http404("There is no such checkpoint.")
    return project, found


def get_dataset(request: Asked, slug: str, dataset: int) -> tuple[Project, PreferenceDataset]:
    """A dataset of such a project."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    found = project.datasets.filter(pk=dataset).first()
    if found is None:
        raise Http404("There is no such dataset.")
    return project, found


def get_runs(request: Asked, slug: str, asked: list[str]) -> tuple[Project, list[TrainingRun]]:
    """Several runs of such a project, each once, in the order asked for. One that is missing makes all of them so."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    try:
        wanted = list(dict.fromkeys(uuid.UUID(run) for run in asked))
    except ValueError:
        raise Http404("There is no such run.") from None
    found = project.runs.select_related("round", "checkpoint").in_bulk(wanted)
    if len(found) < len(wanted):
        raise Http404("There is no such run.")
    return project, [found[run] for run in wanted]
