"""Reviewers' API: written answers are approved or declined, reports resolved."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.access import Role, get_answer, get_project, get_report
from annotation.models import Completion, Report
from annotation.selectors.review import reports_of, shown_reports, written_answers
from annotation.services.review import approve_answer, decline_answer, resolve_report
from rankloop.api import Pages, read_body, read_query

TAG = ["Review"]


class OldestFirst(Pages):
    """A queue: what waits longest comes first."""

    ordering = "pk"


class TurnOutput(serializers.Serializer):
    role = serializers.CharField()
    content = serializers.CharField()


class AnswersQuery(serializers.Serializer):
    review = serializers.ChoiceField(
        choices=[choice for choice in Completion.Review.choices if choice[0]],
        default=Completion.Review.WAITING,
    )


class AnswerOutput(serializers.Serializer):
    """A written answer. `original` is the completion it began as, null for a demonstration."""

    id = serializers.IntegerField(source="pk")
    messages = TurnOutput(many=True, source="prompt.messages")
    text = serializers.CharField()
    original = serializers.CharField(source="edited_from.text", default=None, allow_null=True)
    author = serializers.CharField(source="judgment.annotator.username")
    round = serializers.IntegerField(source="judgment.comparison.round.number")
    created_at = serializers.DateTimeField()
    review = serializers.CharField()
    review_note = serializers.CharField()
    reviewed_by = serializers.CharField(source="reviewed_by.username", default=None, allow_null=True)
    reviewed_at = serializers.DateTimeField(allow_null=True)


class DecisionInput(serializers.Serializer):
    """A decision, with a note to the author or on what was done."""

    note = serializers.CharField(max_length=2000, allow_blank=True, default="")


class ReportsQuery(serializers.Serializer):
    resolved = serializers.BooleanField(default=False)


class ReportOutput(serializers.Serializer):
    """A report. `completions` are in the order its annotator saw them."""

    id = serializers.IntegerField(source="row.pk")
    category = serializers.CharField(source="row.category")
    text = serializers.CharField(source="row.text")
    annotator = serializers.CharField(source="row.assignment.annotator.username")
    round = serializers.IntegerField(source="row.assignment.comparison.round.number")
    messages = TurnOutput(many=True, source="row.assignment.comparison.prompt.messages")
    completions = serializers.ListField(child=serializers.CharField())
    leak_masked = serializers.BooleanField(source="row.assignment.leak_masked")
    created_at = serializers.DateTimeField(source="row.created_at")
    resolved_at = serializers.DateTimeField(source="row.resolved_at", allow_null=True)
    resolved_by = serializers.CharField(source="row.resolved_by.username", default=None, allow_null=True)
    resolution = serializers.CharField(source="row.resolution")


class AnswersApi(APIView):
    """Written answers, oldest first; by default those that wait."""

    pagination_class = OldestFirst

    @extend_schema(
        tags=TAG, summary="Written answers", parameters=[AnswersQuery], responses=AnswerOutput(many=True)
    )
    def get(self, request: Request, slug: str) -> Response:
        project = get_project(request.user, slug, at_least=Role.REVIEWER)
        pages = OldestFirst()
        answers = written_answers(project, **read_query(request, AnswersQuery, is_list=True))
        page = pages.paginate_queryset(answers, request)
        return pages.get_paginated_response(AnswerOutput(page, many=True).data)


class ApproveApi(APIView):
    """Approve a written answer. Again it changes nothing; a declined one may be approved."""

    @extend_schema(tags=TAG, summary="Approve an answer", request=DecisionInput, responses=AnswerOutput)
    def post(self, request: Request, slug: str, answer: int) -> Response:
        found = get_answer(request.user, slug, answer)
        decided = approve_answer(answer=found, reviewer=request.user, **read_body(request, DecisionInput))
        return Response(AnswerOutput(decided).data)


class DeclineApi(APIView):
    """Decline a written answer with a note to its author."""

    @extend_schema(tags=TAG, summary="Decline an answer", request=DecisionInput, responses=AnswerOutput)
    def post(self, request: Request, slug: str, answer: int) -> Response:
        found = get_answer(request.user, slug, answer)
        decided = decline_answer(answer=found, reviewer=request.user, **read_body(request, DecisionInput))
        return Response(AnswerOutput(decided).data)


class ReportsApi(APIView):
    """Reports, oldest first; by default the open ones."""

    pagination_class = OldestFirst

    @extend_schema(tags=TAG, summary="Reports", parameters=[ReportsQuery], responses=ReportOutput(many=True))
    def get(self, request: Request, slug: str) -> Response:
        project = get_project(request.user, slug, at_least=Role.REVIEWER)
        pages = OldestFirst()
        reports = reports_of(project, **read_query(request, ReportsQuery, is_list=True))
        page: list[Report] = pages.paginate_queryset(reports, request) or []
        return pages.get_paginated_response(ReportOutput(shown_reports(page), many=True).data)


class ResolveApi(APIView):
    """Resolve a report, saying what was done. Again it changes nothing."""

    @extend_schema(tags=TAG, summary="Resolve a report", request=DecisionInput, responses=ReportOutput)
    def post(self, request: Request, slug: str, report: int) -> Response:
        found = get_report(request.user, slug, report)
        resolved = resolve_report(report=found, user=request.user, **read_body(request, DecisionInput))
        return Response(ReportOutput(shown_reports([resolved])[0]).data)
