"""The review page: answers that people wrote, and reports."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render

from annotation.access import Role, get_answer, get_project, get_report
from annotation.forms.review import NoteForm
from annotation.models import Completion
from annotation.selectors.review import (
    has_other_reviewer,
    reports_of,
    shown_answers,
    shown_reports,
    written_answers,
)
from annotation.services.review import approve_answer, decline_answer, resolve_report
from rankloop.accounts.models import User
from rankloop.errors import Refused

ANSWERS_PER_PAGE = 10
MOST_REPORTS = 20
SHOWN = [Completion.Review.WAITING, Completion.Review.APPROVED, Completion.Review.DECLINED]


@login_required
def review(request: HttpRequest, slug: str) -> HttpResponse:
    """What waits for a reviewer; a decision is sent to the same address. A refused one keeps its note."""
    project = get_project(request.user, slug, at_least=Role.REVIEWER)
    refused = {}
    if request.method == "POST":
        try:
            told = _decide(request.user, slug, request.POST)
        except Refused as error:
            about = "report" if "report" in request.POST else "answer"
            pk = _number(request.POST.get(about, ""))
            refused = {"about": about, "pk": pk, "reason": str(error), "note": request.POST.get("note", "")}
        else:
            messages.success(request, told)
            return redirect(request.get_full_path())
    show = request.GET.get("show")
    show = show if show in SHOWN else Completion.Review.WAITING
    # What waits longest comes first, and of the others what was decided last.
    order = ["created_at", "pk"] if show == Completion.Review.WAITING else ["-reviewed_at", "-pk"]
    answers = written_answers(project, review=show).order_by(*order)
    page = Paginator(answers, ANSWERS_PER_PAGE).get_page(request.GET.get("page"))
    open_reports = reports_of(project).order_by("pk")
    context = {
        "project": project,
        "show": show,
        "shown": SHOWN,
        "page": page,
        "answers": shown_answers(page.object_list),
        "reports": shown_reports(open_reports[:MOST_REPORTS]),
        "reports_open": open_reports.count(),
        "resolved": reports_of(project, resolved=True).order_by("-resolved_at")[:10],
        "has_others": has_other_reviewer(project, request.user),
        "refused": refused,
    }
    return render(request, "annotation/review.html", context, status=400 if refused else 200)


def _decide(user: User, slug: str, sent: QueryDict) -> str:
    """Carry out one decision; what to tell about it."""
    form = NoteForm(sent)
    if not form.is_valid():
        raise Refused(" ".join(form.errors["note"]))
    note = form.cleaned_data["note"]
    if "report" in sent:
        resolve_report(report=get_report(user, slug, _number(sent["report"])), user=user, note=note)
        return "The report is resolved."
    answer = get_answer(user, slug, _number(sent.get("answer", "")))
    if sent.get("do") == "decline":
        decline_answer(answer=answer, reviewer=user, note=note, seen=sent.get("seen"))
        return "Declined. No dataset takes it in, and its author can read your note."
    if sent.get("do") == "approve":
        approve_answer(answer=answer, reviewer=user, note=note, seen=sent.get("seen"))
        return "Approved. Datasets that are frozen from now on take it in."
    raise Refused("Choose what to do with it: approve or decline.")


def _number(sent: str) -> int:
    if not (sent.isascii() and sent.isdigit() and len(sent) < 19):
        raise Http404("There is no such thing to review.")
    return int(sent)
