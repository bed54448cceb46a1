"""Several runs beside each other: their curves in one chart each, and in what they differ."""

import json

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from training.access import get_runs
from training.measurements import catalogue
from training.selectors.overlay import FEWEST, MOST, rows_of


@login_required
def compare_runs(request: HttpRequest, slug: str) -> HttpResponse:
    """The runs named by `run`, two to six of them. Reading changes nothing: the address can be kept and passed on."""
    project, runs = get_runs(request, slug, request.GET.getlist("run"))
    context = {"project": project, "runs": runs, "fewest": FEWEST, "most": MOST}
    if FEWEST <= len(runs) <= MOST:
        rows = rows_of(runs)
        curves = [
            {"name": f"{n}. {run.step}", "address": reverse("run-metrics", args=[slug, run.pk])}
            for n, run in enumerate(runs, 1)
        ]
        context |= {
            "rows": rows,
            "differing": sum(row.differs for row in rows),
            "curves": json.dumps(curves),
            "catalogue": json.dumps(catalogue()),
        }
    return render(request, "training/compare_runs.html", context)
