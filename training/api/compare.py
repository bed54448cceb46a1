"""Two versions side by side: how often one is preferred, and what both wrote."""

from typing import Any

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.access import Role, get_project
from annotation.models import Contestant, Project, Prompt
from annotation.selectors.side_by_side import figures, shared_prompts, sides
from rankloop.api import Pages, read_query
from rankloop.errors import Refused


class CompareInput(serializers.Serializer):
    a = serializers.IntegerField(min_value=1, max_value=2**63 - 1, help_text="A contestant.")
    b = serializers.IntegerField(min_value=1, max_value=2**63 - 1, help_text="Another one.")


class FigureOutput(serializers.Serializer):
    """How often `a` is preferred over `b`; ties and all bad count half."""

    against = serializers.CharField()
    source = serializers.CharField(help_text="Whose judgments: people's and simulated ones never meet.")
    rate = serializers.FloatField()
    low = serializers.FloatField(help_text="Of the 95 % interval, resampled by prompt and annotator.")
    high = serializers.FloatField()
    judgments = serializers.IntegerField()
    comparisons = serializers.IntegerField()
    prompts = serializers.IntegerField()
    annotators = serializers.IntegerField()
    ties = serializers.IntegerField()
    all_bad = serializers.IntegerField()


class CompareOutput(serializers.Serializer):
    figures = FigureOutput(many=True, help_text="One for each source of judgments that has any.")


class SideBySideInput(CompareInput):
    split = serializers.ChoiceField(choices=Prompt.Split.choices, default=Prompt.Split.HELD_OUT)


class SideOutput(serializers.Serializer):
    texts = serializers.ListField(child=serializers.CharField())
    more = serializers.IntegerField(help_text="How many different ones there are beside those.")


class SideBySideRow(serializers.Serializer):
    prompt = serializers.IntegerField()
    a = SideOutput()
    b = SideOutput()


def get_versions(project: Project, asked: dict[str, Any]) -> tuple[Contestant, Contestant]:
    """Two different contestants of the project. Raises Http404 and Refused."""
    if asked["a"] == asked["b"]:
        raise Refused("Choose two different versions.")
    found = project.contestants.in_bulk([asked["a"], asked["b"]])
    if len(found) < 2:
        raise Http404("There is no such contestant.")
    return found[asked["a"]], found[asked["b"]]


class CompareApi(APIView):
    @extend_schema(parameters=[CompareInput], responses=CompareOutput)
    def get(self, request: Request, slug: str) -> Response:
        """How often one version is preferred over another, on held-out prompts only."""
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        a, b = get_versions(project, read_query(request, CompareInput))
        return Response({"figures": [figure.as_json() for figure in figures(project, a, b)]})


class SideBySideApi(APIView):
    pagination_class = Pages

    @extend_schema(parameters=[SideBySideInput], responses=SideBySideRow(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """What two versions wrote to the same prompts."""
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        asked = read_query(request, SideBySideInput, is_list=True)
        versions = get_versions(project, asked)
        pages = Pages()
        prompts = pages.paginate_queryset(
            shared_prompts(project, *versions, split=asked["split"]), request, self
        )
        rows = [
            {"prompt": prompt.pk, "a": a, "b": b} for prompt, (a, b) in sides(list(prompts or []), versions)
        ]
        return pages.get_paginated_response(SideBySideRow(rows, many=True).data)
