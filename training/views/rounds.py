"""Rounds: listed, launched, watched, and helped along."""

from collections.abc import Callable

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST

from annotation.access import Role, get_project
from annotation.models import Project, Round
from rankloop.errors import Refused
from training.access import get_round
from training.forms import LaunchForm
from training.selectors.rounds import round_state, rounds_of
from training.services.rounds import (
    cancel_round,
    end_ranking,
    launch_round,
    open_round,
    retry_step,
    skip_step,
)
from training.services.snapshots import snapshot_rounds
from training.views.live import live_answer, live_part


@login_required
def rounds(request: HttpRequest, slug: str) -> HttpResponse:
    """Every round of the project."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    return render(request, "training/rounds.html", {"project": project, "rounds": rounds_of(project)})


@login_required
def new_round(request: HttpRequest, slug: str) -> HttpResponse:
    """The launch form. The same sent twice with one launch key leads to the same round."""
    project = get_project(request.user, slug, at_least=Role.RESEARCHER)
    form = LaunchForm(request.POST or None, project=project)
    if request.method == "POST" and form.is_valid():
        try:
            # Both or neither: a round that can't be launched should not stay behind as a draft.
            with transaction.atomic():
                opened = open_round(
                    project=project, user=request.user, training_plan=form.plan(), **form.round_fields()
                )
                launch_round(round=opened, user=request.user)
        except Refused as error:
            form.refuse(error)
        except ValidationError as error:
            form.add_error(None, " ".join(error.messages))
        else:
            # The driver picks it up within two seconds; no doorbell is needed.
            return redirect("round", slug, opened.number)
    context = {
        "project": project,
        "form": form,
        "has_prompts": project.prompts.exists(),
        "has_writers": form.fields["contestants"].queryset.exists(),
    }
    return render(request, "training/new_round.html", context, status=400 if form.errors else 200)


@login_required
def round_page(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """One round: where it is, how far each phase is, what it brought."""
    project, found = get_round(request, slug, number)
    context = {"project": project, "round": found, "live": _live(request, project, found)}
    return render(request, "training/round.html", context)


@login_required
def round_live(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """The part of the round's page that renews itself."""
    project, found = get_round(request, slug, number)
    return live_answer(request, _live(request, project, found))


def _live(request: HttpRequest, project: Project, found: Round) -> str:
    context = {"project": project, "round": found, "state": round_state(found)}
    is_over = found.status in (Round.Status.CLOSED, Round.Status.CANCELLED)
    address = reverse("round-live", args=[project.slug, found.number])
    return live_part(request, "training/round_live.html", context, address=address, is_over=is_over)


def _act(
    request: HttpRequest, slug: str, number: int, service: Callable[..., object], told: str
) -> HttpResponse:
    """One service call on a round, then back to its page with what came of it."""
    _, found = get_round(request, slug, number)
    try:
        service(round=found, user=request.user)
        messages.success(request, told)
    except Refused as error:
        messages.error(request, str(error))
    return redirect("round", slug, number)


@login_required
@require_POST
def launch(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Launch a draft."""
    return _act(request, slug, number, launch_round, "The round is launched.")


@login_required
@require_POST
def retry(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Try the failed step again."""
    return _act(request, slug, number, retry_step, "The step is tried again.")


@login_required
@require_POST
def skip(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Go on without the failed step."""
    return _act(request, slug, number, skip_step, "The round goes on without that step.")


@login_required
def end(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """End ranking now, once confirmed."""
    if request.method == "POST":
        return _act(
            request, slug, number, end_ranking, "Ranking has ended. The round goes on with what was judged."
        )
    project, found = get_round(request, slug, number)
    context = {"project": project, "round": found, "state": round_state(found)}
    return render(request, "training/end_ranking.html", context)


@login_required
def freeze(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Freeze what was judged into a dataset now, once confirmed."""
    project, found = get_round(request, slug, number)
    if request.method == "POST":
        try:
            dataset = snapshot_rounds(project=project, rounds=[found], user=request.user)
        except Refused as error:
            messages.error(request, str(error))
            return redirect("round", slug, number)
        return redirect("dataset", slug, dataset.pk)
    context = {"project": project, "round": found, "state": round_state(found)}
    return render(request, "training/freeze_round.html", context)


@login_required
def cancel(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Cancel a round, once confirmed."""
    if request.method == "POST":
        return _act(request, slug, number, cancel_round, "The round is cancelled. What was judged is kept.")
    project, found = get_round(request, slug, number)
    return render(request, "training/cancel_round.html", {"project": project, "round": found})
