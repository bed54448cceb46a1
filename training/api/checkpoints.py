"""Checkpoints with everything behind them, the contestants they became, and what was measured of both."""

from contextlib import suppress

import django_filters
from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.access import Role, get_project
from annotation.models import Contestant, Judgment, Prompt
from rankloop.api import AlwaysJSON, Listing, Problem
from rankloop.errors import Conflict
from training.access import get_checkpoint
from training.api.datasets import DatasetOutput
from training.api.runs import RunOutput
from training.exporting import prepare_export
from training.models import Checkpoint, Evaluation
from training.selectors.lineage import judgments_behind, lineage_of, numbers_by_source
from training.selectors.weights import weights_of
from training.services.checkpoints import register_default
from training.store import DamagedArtifact
from training.views.exports import tar_answer


class ContestantOutput(serializers.ModelSerializer):
    decoding = serializers.DictField()
    checkpoints = serializers.PrimaryKeyRelatedField(
        many=True, read_only=True, help_text="Whose weights it writes with; none for a person or an import."
    )

    class Meta:
        model = Contestant
        fields = ("id", "name", "kind", "system_prompt", "retriever", "decoding", "checkpoints", "created_at")


class EvaluationOutput(serializers.ModelSerializer):
    round = serializers.IntegerField(source="round.number", default=None, allow_null=True)
    result = serializers.DictField(help_text="A win rate or an accuracy with its 95 % interval and counts.")

    class Meta:
        model = Evaluation
        fields = ("id", "round", "contestant", "checkpoint", "suite", "suite_version", "result", "created_at")


class CheckpointOutput(serializers.ModelSerializer):
    round = serializers.IntegerField(source="run.round.number", default=None, allow_null=True)
    metrics = serializers.DictField()

    class Meta:
        model = Checkpoint
        fields = (
            "id",
            "name",
            "kind",
            "digest",
            "base",
            "all_weights",
            "run",
            "round",
            "metrics",
            "created_at",
        )


class WeightsOutput(serializers.Serializer):
    """What the files of a checkpoint are. An adapter has a rank; whole weights have none."""

    size = serializers.IntegerField(help_text="Bytes, all files together.")
    parameters = serializers.IntegerField()
    dtypes = serializers.ListField(child=serializers.CharField())
    rank = serializers.IntegerField(allow_null=True)
    alpha = serializers.FloatField(allow_null=True)
    targets = serializers.ListField(child=serializers.CharField())
    heads = serializers.ListField(child=serializers.CharField(), help_text="Saved whole beside the adapter.")
    parent = serializers.IntegerField(
        source="parent.pk",
        default=None,
        allow_null=True,
        help_text="The checkpoint whose adapter training went on from.",
    )


class LineageOutput(serializers.Serializer):
    """What stands behind a checkpoint."""

    runs = RunOutput(many=True, help_text="The latest first.")
    datasets = DatasetOutput(many=True)
    judgments = serializers.DictField(
        child=serializers.IntegerField(), help_text="How many of each source: person, rehearsal and so on."
    )


class CheckpointDetail(CheckpointOutput):
    weights = WeightsOutput(allow_null=True, help_text="Null when the files can't be read.")
    lineage = LineageOutput()
    contestants = ContestantOutput(many=True)
    adapters = serializers.PrimaryKeyRelatedField(
        many=True, read_only=True, help_text="What was trained on it or from it."
    )
    evaluations = EvaluationOutput(many=True)

    class Meta(CheckpointOutput.Meta):
        fields = (
            *CheckpointOutput.Meta.fields,
            "weights",
            "lineage",
            "contestants",
            "adapters",
            "evaluations",
        )


class JudgmentOutput(serializers.ModelSerializer):
    annotator = serializers.CharField(source="annotator.username")
    round = serializers.IntegerField(source="comparison.round.number")
    prompt = serializers.IntegerField(source="comparison.prompt_id")
    split = serializers.ChoiceField(source="comparison.prompt.split", choices=Prompt.Split.choices)

    class Meta:
        model = Judgment
        fields = (
            "id",
            "outcome",
            "strength",
            "source",
            "annotator",
            "round",
            "prompt",
            "split",
            "created_at",
        )


class ContestantFilters(django_filters.FilterSet):
    kind = django_filters.ChoiceFilter(choices=Contestant.Kind.choices)
    writes = django_filters.BooleanFilter(
        method="with_checkpoint", help_text="Whether it has a checkpoint, and so can be in a new round."
    )

    def with_checkpoint(self, rows: QuerySet[Contestant], _: str, writes: bool) -> QuerySet[Contestant]:
        return rows.filter(checkpoints__isnull=not writes).distinct()


class CheckpointFilters(django_filters.FilterSet):
    kind = django_filters.ChoiceFilter(choices=Checkpoint.Kind.choices)
    round = django_filters.NumberFilter(field_name="run__round__number", help_text="Its number.")


class EvaluationFilters(django_filters.FilterSet):
    round = django_filters.NumberFilter(field_name="round__number", help_text="Its number.")
    contestant = django_filters.NumberFilter()
    checkpoint = django_filters.NumberFilter()


class JudgmentFilters(django_filters.FilterSet):
    outcome = django_filters.ChoiceFilter(choices=Judgment.Outcome.choices)
    source = django_filters.ChoiceFilter(choices=Judgment.Source.choices)
    split = django_filters.ChoiceFilter(field_name="comparison__prompt__split", choices=Prompt.Split.choices)
    round = django_filters.NumberFilter(field_name="comparison__round__number", help_text="Its number.")


class ContestantsApi(Listing):
    queryset = Contestant.objects.none()
    serializer_class = ContestantOutput
    filterset_class = ContestantFilters

    @extend_schema(responses=ContestantOutput(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """Every source of completions: models with a system prompt and a decoding, and people who wrote answers."""
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        return self.page_of(project.contestants.prefetch_related("checkpoints"))


class CheckpointsApi(Listing):
    queryset = Checkpoint.objects.none()
    serializer_class = CheckpointOutput
    filterset_class = CheckpointFilters

    @extend_schema(responses=CheckpointOutput(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """Every checkpoint of the project."""
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        return self.page_of(project.checkpoints.select_related("run__round"))


class AddDefaultApi(APIView):
    @extend_schema(request=None, responses={201: CheckpointOutput})
    def post(self, request: Request, slug: str) -> Response:
        """Register the installation's default model with two contestants. Again: the same ones."""
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        base = register_default(project=project)
        return Response(CheckpointOutput(base).data, status=status.HTTP_201_CREATED)


class CheckpointApi(APIView):
    @extend_schema(responses=CheckpointDetail)
    def get(self, request: Request, slug: str, checkpoint: int) -> Response:
        """One checkpoint: what it comes from, what it became, what was measured."""
        _, found = get_checkpoint(request, slug, checkpoint)
        lineage = lineage_of(found)
        found.lineage = {  # type: ignore[attr-defined]
            "runs": lineage.runs,
            "datasets": lineage.datasets,
            "judgments": numbers_by_source(judgments_behind(lineage.datasets)),
        }
        found.weights = None  # type: ignore[attr-defined]
        with suppress(DamagedArtifact):
            found.weights = weights_of(found)  # type: ignore[attr-defined]
        return Response(CheckpointDetail(found).data)


class ExportApi(APIView):
    content_negotiation_class = AlwaysJSON

    @extend_schema(responses={(200, "application/x-tar"): OpenApiTypes.BINARY, 409: Problem})
    def get(self, request: Request, slug: str, checkpoint: int) -> Response | StreamingHttpResponse:
        """A trained checkpoint's weights, configuration, recipe and model card in one tar archive."""
        _, found = get_checkpoint(request, slug, checkpoint)
        try:
            export = prepare_export(found)
        except DamagedArtifact as error:
            raise Conflict(str(error)) from None
        return tar_answer(export)


class JudgmentsApi(Listing):
    queryset = Judgment.objects.none()
    serializer_class = JudgmentOutput
    filterset_class = JudgmentFilters

    @extend_schema(responses=JudgmentOutput(many=True))
    def get(self, request: Request, slug: str, checkpoint: int) -> Response:
        """Every judgment behind a checkpoint, through all its parents and reward models."""
        _, found = get_checkpoint(request, slug, checkpoint)
        return self.page_of(judgments_behind(lineage_of(found).datasets))


class EvaluationsApi(Listing):
    queryset = Evaluation.objects.none()
    serializer_class = EvaluationOutput
    filterset_class = EvaluationFilters

    @extend_schema(responses=EvaluationOutput(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """Everything that was measured, on held-out prompts only."""
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        return self.page_of(project.evaluations.select_related("round"))
