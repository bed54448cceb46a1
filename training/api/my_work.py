"""An annotator's own judgments and what they were used for."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.access import get_project
from annotation.models import Judgment
from rankloop.api import Pages, read_query
from training.selectors.my_work import FILTERS, described, my_judgments


class MyJudgmentsQuery(serializers.Serializer):
    show = serializers.ChoiceField(choices=list(FILTERS.items()), default="all")


class RemarkOutput(serializers.Serializer):
    label = serializers.CharField(help_text="The completion: its position, or A and B in a pair.")
    flags = serializers.ListField(child=serializers.CharField())
    aspects = serializers.DictField(child=serializers.IntegerField())
    comment = serializers.CharField()


class WrittenOutput(serializers.Serializer):
    label = serializers.CharField(help_text="The completion it makes better; empty for a demonstration.")
    text = serializers.CharField()
    review = serializers.CharField()
    note = serializers.CharField(help_text="The reviewer's.")


class UseOutput(serializers.Serializer):
    dataset = serializers.CharField(source="use.dataset.digest")
    frozen_at = serializers.DateTimeField(source="use.dataset.created_at")
    is_outdated = serializers.BooleanField(help_text="Frozen before the judgment was revised or withdrawn.")
    trained = serializers.ListField(child=serializers.CharField(), source="use.trained_titles")
    further = serializers.ListField(child=serializers.CharField(), source="use.further_titles")


class MyJudgmentOutput(serializers.Serializer):
    assignment = serializers.UUIDField()
    at = serializers.DateTimeField()
    round = serializers.CharField(source="round_name")
    prompt = serializers.CharField(help_text="The user's last turn.")
    sensitive = serializers.ListField(child=serializers.CharField())
    outcome = serializers.ChoiceField(choices=Judgment.Outcome.choices)
    part = serializers.ChoiceField(
        choices=["taught", "measured", "kept"], help_text="What it does in a dataset."
    )
    said = serializers.CharField(help_text="By the positions you saw, such as 3 > 1 = 4 > 2.")
    reason = serializers.CharField()
    is_revised = serializers.BooleanField()
    is_withdrawn = serializers.BooleanField()
    is_counted = serializers.BooleanField()
    is_masked = serializers.BooleanField()
    revisable_until = serializers.DateTimeField(allow_null=True)
    remarks = RemarkOutput(many=True)
    written = WrittenOutput(many=True)
    used_in = UseOutput(many=True, source="uses")


class MyJudgmentsApi(APIView):
    """The caller's own judgments, newest first, with what each was used for. Nobody else's."""

    pagination_class = Pages

    @extend_schema(
        tags=["Annotating"],
        summary="My judgments",
        parameters=[MyJudgmentsQuery],
        responses=MyJudgmentOutput(many=True),
    )
    def get(self, request: Request, slug: str) -> Response:
        project = get_project(request.user, slug)
        asked = read_query(request, MyJudgmentsQuery, is_list=True)
        pages = Pages()
        mine = my_judgments(user=request.user, project=project, **asked)
        page = pages.paginate_queryset(mine, request) or []
        return pages.get_paginated_response(
            MyJudgmentOutput(described(page, project=project), many=True).data
        )
