"""My work: an annotator's own judgments, what they were used for, and taking one back."""

import uuid

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from annotation.access import get_project
from annotation.api.annotating import get_assignment
from annotation.models import Assignment
from annotation.services.judgments import withdraw_judgment
from rankloop.errors import Refused
from training.forms import WithdrawForm
from training.selectors.my_work import FILTERS, described, my_judgments, own_pace

JUDGMENTS_PER_PAGE = 20


def get_judged(request: HttpRequest, slug: str, assignment: uuid.UUID) -> Assignment:
    """The caller's own assignment, once it is judged; Http404 alike for a foreign, a missing and an open one."""
    mine = get_assignment(request, slug, assignment)
    if not mine.judgments.exists():
        raise Http404("There is no such judgment, or it is not yours.")
    return mine


@login_required
def my_work(request: HttpRequest, slug: str) -> HttpResponse:
    """My pace and my judgments with what became of them. Nobody else's figures."""
    project = get_project(request.user, slug)
    show = request.GET.get("show")
    show = show if show in FILTERS else "all"
    mine = my_judgments(user=request.user, project=project, show=show)
    page = Paginator(mine, JUDGMENTS_PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "project": project,
        "pace": own_pace(user=request.user, project=project),
        "page": page,
        "judgments": described(page.object_list, project=project),
        "filters": FILTERS,
        "show": show,
    }
    return render(request, "training/my_work.html", context)


@login_required
def withdraw(request: HttpRequest, slug: str, assignment: uuid.UUID) -> HttpResponse:
    """Take a judgment back, once confirmed. Sent twice it is one withdrawal."""
    project = get_project(request.user, slug)
    mine = get_judged(request, slug, assignment)
    form = WithdrawForm(request.POST or None, initial={"submission_key": uuid.uuid4()})
    if request.method == "POST" and form.is_valid():
        try:
            withdraw_judgment(assignment=mine, **form.cleaned_data)
        except Refused as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, "Withdrawn. Datasets that are frozen from now on leave it out.")
            return redirect("my-work", slug)
    newest = my_judgments(user=request.user, project=project).filter(assignment=mine)
    (judgment,) = described(newest, project=project)
    context = {"project": project, "judgment": judgment, "form": form}
    return render(request, "training/withdraw.html", context, status=400 if form.errors else 200)
