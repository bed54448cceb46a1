"""Training runs and generation jobs: what they do, and what they said."""

import uuid

import django_filters
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.access import Role, get_project
from rankloop.api import Listing, PagesByTime, read_query
from training.access import get_job, get_run
from training.models import GenerationJob, RunInput, TrainingRun, WorkStatus
from training.selectors.runs import log_tail, metrics_after
from training.services import runs as services

_WORK = (
    "id", "round", "status", "attempt", "attempt_limit", "progress", "error", "seed", "created_at", "started_at",
    "ended_at", "seconds",
)  # fmt: skip


class WorkOutput(serializers.ModelSerializer):
    """What runs and jobs have in common."""

    round = serializers.IntegerField(source="round.number", default=None, allow_null=True)
    progress = serializers.DictField(help_text="`step`, `of` and `phase` as the recipe last said.")
    seconds = serializers.FloatField(allow_null=True, help_text="Of the latest attempt, once it has ended.")


class RunOutput(WorkOutput):
    checkpoint = serializers.PrimaryKeyRelatedField(read_only=True, allow_null=True)

    class Meta:
        model = TrainingRun
        fields = (*_WORK, "step", "method", "checkpoint")


class RunInputOutput(serializers.ModelSerializer):
    class Meta:
        model = RunInput
        fields = ("role", "checkpoint", "dataset")


class RunDetail(RunOutput):
    inputs = RunInputOutput(many=True)
    recipe = serializers.DictField(help_text="Every option and the thread count: enough to run it again.")
    result = serializers.DictField()
    findings = serializers.DictField(
        help_text="What was found when it was looked over before its launch; empty until then."
    )

    class Meta(RunOutput.Meta):
        fields = (*RunOutput.Meta.fields, "inputs", "recipe", "result", "findings", "code_version", "worker")


class JobOutput(WorkOutput):
    result = serializers.DictField()

    class Meta:
        model = GenerationJob
        fields = (*_WORK, "base", "contestants", "result", "worker")


class MetricsInput(serializers.Serializer):
    after = serializers.IntegerField(
        min_value=0,
        max_value=2**63 - 1,
        default=0,
        help_text="The `last` of the answer before, to go on from it.",
    )


class MetricsOutput(serializers.Serializer):
    rows = serializers.ListField(
        child=serializers.ListField(),
        help_text="Name, step and value of each, in the order they came; of a step that comes twice the later holds.",
    )
    last = serializers.IntegerField()
    over = serializers.BooleanField(help_text="Nothing more will come.")


class LogInput(serializers.Serializer):
    lines = serializers.IntegerField(min_value=1, max_value=1000, default=60)


class LogOutput(serializers.Serializer):
    log = serializers.CharField(help_text="The end of it; empty when nothing was said on this host.")


class RunFilters(django_filters.FilterSet):
    round = django_filters.NumberFilter(field_name="round__number", help_text="Its number.")
    status = django_filters.ChoiceFilter(choices=WorkStatus.choices)
    method = django_filters.CharFilter()


class RunsApi(Listing):
    queryset = TrainingRun.objects.none()
    serializer_class = RunOutput
    filterset_class = RunFilters
    pagination_class = PagesByTime

    @extend_schema(responses=RunOutput(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """Every training run of the project."""
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        return self.page_of(project.runs.select_related("round", "checkpoint"))


class RunApi(APIView):
    @extend_schema(responses=RunDetail)
    def get(self, request: Request, slug: str, run: uuid.UUID) -> Response:
        """One run: its state, inputs, options and results."""
        _, found = get_run(request, slug, run)
        return Response(RunDetail(found).data)


class RunMetricsApi(APIView):
    @extend_schema(parameters=[MetricsInput], responses=MetricsOutput)
    def get(self, request: Request, slug: str, run: uuid.UUID) -> Response:
        """A run's measurements, or those that came since."""
        _, found = get_run(request, slug, run)
        return Response(metrics_after(found, **read_query(request, MetricsInput)))


class RunLogApi(APIView):
    @extend_schema(parameters=[LogInput], responses=LogOutput)
    def get(self, request: Request, slug: str, run: uuid.UUID) -> Response:
        """The end of the log of a run's latest attempt."""
        _, found = get_run(request, slug, run)
        return Response({"log": log_tail(found, **read_query(request, LogInput))})


class CancelRunApi(APIView):
    @extend_schema(request=None, responses=RunOutput)
    def post(self, request: Request, slug: str, run: uuid.UUID) -> Response:
        """Ask a run to save a checkpoint and stop. One that is over stays as it is."""
        _, found = get_run(request, slug, run)
        services.cancel_run(run=found, user=request.user)
        found.refresh_from_db()
        return Response(RunOutput(found).data)


class JobApi(APIView):
    @extend_schema(responses=JobOutput)
    def get(self, request: Request, slug: str, job: uuid.UUID) -> Response:
        """One generation job: its state, base and contestants."""
        _, found = get_job(request, slug, job)
        return Response(JobOutput(found).data)


class JobLogApi(APIView):
    @extend_schema(parameters=[LogInput], responses=LogOutput)
    def get(self, request: Request, slug: str, job: uuid.UUID) -> Response:
        """The end of the log of a job's latest attempt."""
        _, found = get_job(request, slug, job)
        return Response({"log": log_tail(found, **read_query(request, LogInput))})
