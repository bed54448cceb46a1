"""What a policy wrote to held-out prompts as its training went on."""

import uuid

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from training.access import get_run
from training.forms import SamplesForm
from training.selectors.samples import Answered, samples_of, steps_of

PROMPTS_PER_PAGE = 10


@login_required
def run_samples(request: HttpRequest, slug: str, run: uuid.UUID) -> HttpResponse:
    """Completions of two evaluations side by side, with their rewards."""
    project, found = get_run(request, slug, run)
    answered = samples_of(found)
    context = {"project": project, "run": found}
    steps = steps_of(answered)
    if steps:
        form = SamplesForm({"before": steps[0], "after": steps[-1]} | request.GET.dict(), steps=steps)
        context["form"] = form
        if form.is_valid():
            before, after = form.cleaned_data["before"], form.cleaned_data["after"]
            rows = _in_order(answered, before, after, form.cleaned_data["order"])
            page = Paginator(rows, PROMPTS_PER_PAGE).get_page(request.GET.get("page"))
            context |= {"page": page, "steps": (before, after)}
    return render(request, "training/samples.html", context)


def _in_order(answered: list[Answered], before: int, after: int, order: str) -> list[tuple]:
    """(prompt, sample before, sample after, what the reward gained) of each prompt that both steps have answered."""
    rows = [
        (one, one.samples[before], one.samples[after], one.samples[after].reward - one.samples[before].reward)
        for one in answered
        if before in one.samples and after in one.samples
    ]
    if order:
        rows.sort(key=lambda row: row[3], reverse=order == "gained")
    return rows
