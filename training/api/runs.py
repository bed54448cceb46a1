"""Training runs and generation jobs: what they do, and what they said."""

import uuid
from dataclasses import asdict

import django_filters
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.access import Role, get_project
from rankloop.api import Listing, PagesByTime, Problem, read_body, read_query, refuse_unknown
from rankloop.errors import Refused
from training.access import get_job, get_run, get_runs
from training.models import GenerationJob, RunInput, TrainingRun, WorkStatus
from training.selectors.overlay import FEWEST, MOST, rows_of
from training.selectors.runs import log_tail, metrics_after, queue_of, remaining_seconds
from training.selectors.samples import samples_of, steps_of
from training.services import runs as services
from training.services import steering

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
        fields = (*_WORK, "step", "method", "priority", "halvings", "duplicate_of", "checkpoint")
        extra_kwargs = {
            "priority": {"help_text": "The higher one is claimed first; of equal ones the older."},
            "halvings": {"help_text": "How often memory ran out and the micro-batch was halved."},
            "duplicate_of": {"help_text": "The run whose inputs and options it began with."},
        }


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
    remaining_seconds = serializers.SerializerMethodField(
        help_text="At the pace so far; null while nothing tells."
    )

    def get_remaining_seconds(self, run: TrainingRun) -> float | None:
        return remaining_seconds(run, now=timezone.now())

    class Meta(RunOutput.Meta):
        fields = (
            *RunOutput.Meta.fields, "inputs", "recipe", "result", "findings", "remaining_seconds", "code_version",
            "worker",
        )  # fmt: skip


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
    more = serializers.BooleanField(help_text="Others are there already: ask for those after `last` at once.")
    over = serializers.BooleanField(help_text="Nothing more will come.")


class LogInput(serializers.Serializer):
    lines = serializers.IntegerField(min_value=1, max_value=1000, default=60)


class LogOutput(serializers.Serializer):
    log = serializers.CharField(help_text="The end of it; empty when nothing was said on this host.")


class SamplesInput(serializers.Serializer):
    step = serializers.IntegerField(
        min_value=0,
        required=False,
        help_text="Of which evaluation; by default the latest.",
    )


class SampleOutput(serializers.Serializer):
    prompt_id = serializers.CharField()
    prompt = serializers.ListField(child=serializers.DictField(), help_text="Messages with role and content.")
    text = serializers.CharField()
    reward = serializers.FloatField(help_text="The reward that the policy is trained on.")


class SamplesOutput(serializers.Serializer):
    steps = serializers.ListField(
        child=serializers.IntegerField(), help_text="Those at which the policy was evaluated."
    )
    step = serializers.IntegerField(allow_null=True, help_text="The one these are of.")
    samples = SampleOutput(many=True)


class RunningOutput(serializers.Serializer):
    run = RunOutput()
    remaining_seconds = serializers.FloatField(source="remaining", allow_null=True)


class WaitingOutput(serializers.Serializer):
    position = serializers.IntegerField(help_text="From 1, among the waiting runs of all projects.")
    run = RunOutput()


class QueueOutput(serializers.Serializer):
    running = RunningOutput(many=True)
    waiting = WaitingOutput(many=True, help_text="In the order in which they are claimed.")
    elsewhere = serializers.IntegerField(
        help_text="How many runs of other projects the workers are busy with."
    )


class PriorityInput(serializers.Serializer):
    priority = serializers.IntegerField(
        min_value=-steering.HIGHEST_PRIORITY,
        max_value=steering.HIGHEST_PRIORITY,
        help_text="0 unless it was changed.",
    )


class RunsInput(serializers.Serializer):
    run = serializers.ListField(
        child=serializers.UUIDField(), help_text=f"{FEWEST} to {MOST} of them, `run=..&run=..`."
    )


class DifferenceOutput(serializers.Serializer):
    section = serializers.ChoiceField(choices=["run", "inputs", "options", "results"])
    name = serializers.CharField()
    values = serializers.ListField(
        child=serializers.JSONField(), help_text="One for each run, null where it has none."
    )
    differs = serializers.BooleanField()


class RunsCompared(serializers.Serializer):
    runs = RunOutput(many=True, help_text="In the order they were asked for.")
    rows = DifferenceOutput(many=True)


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


class QueueApi(APIView):
    @extend_schema(responses=QueueOutput)
    def get(self, request: Request, slug: str) -> Response:
        """What of the project runs now, and what waits in which order."""
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        return Response(QueueOutput(queue_of(project)).data)


class RunsCompareApi(APIView):
    @extend_schema(parameters=[RunsInput], responses=RunsCompared)
    def get(self, request: Request, slug: str) -> Response:
        """In what several runs differ: options, inputs and results. Their curves are at each run's `metrics`."""
        _, runs = get_runs(request, slug, request.query_params.getlist("run"))
        refuse_unknown(request.query_params, known=["run"], what="parameter")
        if not FEWEST <= len(runs) <= MOST:
            raise Refused(f"Name {FEWEST} to {MOST} different runs, as run=..&run=...")
        return Response(RunsCompared({"runs": runs, "rows": rows_of(runs)}).data)


class RunApi(APIView):
    @extend_schema(responses=RunDetail)
    def get(self, request: Request, slug: str, run: uuid.UUID) -> Response:
        """One run: its state, inputs, options and results."""
        _, found = get_run(request, slug, run)
        return Response(RunDetail(found).data)


class RunMetricsApi(APIView):
    @extend_schema(parameters=[MetricsInput], responses=MetricsOutput)
    def get(self, request: Request, slug: str, run: uuid.UUID) -> Response:
        """A page of a run's measurements, or of those that came since."""
        _, found = get_run(request, slug, run)
        return Response(metrics_after(found, **read_query(request, MetricsInput)))


class RunLogApi(APIView):
    @extend_schema(parameters=[LogInput], responses=LogOutput)
    def get(self, request: Request, slug: str, run: uuid.UUID) -> Response:
        """The end of the log of a run's latest attempt."""
        _, found = get_run(request, slug, run)
        return Response({"log": log_tail(found, **read_query(request, LogInput))})


class RunSamplesApi(APIView):
    @extend_schema(parameters=[SamplesInput], responses=SamplesOutput)
    def get(self, request: Request, slug: str, run: uuid.UUID) -> Response:
        """What the policy of a run's latest attempt wrote to held-out prompts at an evaluation. None: no sample."""
        _, found = get_run(request, slug, run)
        answered = samples_of(found)
        steps = steps_of(answered)
        step = read_query(request, SamplesInput).get("step", steps[-1] if steps else None)
        samples = [
            {"prompt_id": one.prompt_id, "prompt": one.prompt, **asdict(one.samples[step])}
            for one in answered
            if step in one.samples
        ]
        return Response(SamplesOutput({"steps": steps, "step": step, "samples": samples}).data)


class CancelRunApi(APIView):
    @extend_schema(request=None, responses=RunOutput)
    def post(self, request: Request, slug: str, run: uuid.UUID) -> Response:
        """Ask a run to save a checkpoint and stop. One that is over stays as it is."""
        _, found = get_run(request, slug, run)
        services.cancel_run(run=found, user=request.user)
        found.refresh_from_db()
        return Response(RunOutput(found).data)


class RunPriorityApi(APIView):
    @extend_schema(request=PriorityInput, responses={200: RunOutput, 409: Problem})
    def post(self, request: Request, slug: str, run: uuid.UUID) -> Response:
        """Let a run that waits be claimed earlier or later."""
        _, found = get_run(request, slug, run)
        steering.change_priority(run=found, user=request.user, **read_body(request, PriorityInput))
        found.refresh_from_db()
        return Response(RunOutput(found).data)


class ContinueRunApi(APIView):
    @extend_schema(request=None, responses={200: RunOutput, 409: Problem})
    def post(self, request: Request, slug: str, run: uuid.UUID) -> Response:
        """Queue a failed or cancelled run again. It goes on from its last checkpoint."""
        _, found = get_run(request, slug, run)
        steering.continue_run(run=found, user=request.user)
        found.refresh_from_db()
        return Response(RunOutput(found).data)


class DuplicateRunApi(APIView):
    @extend_schema(request=None, responses={201: RunOutput})
    def post(self, request: Request, slug: str, run: uuid.UUID) -> Response:
        """Open a draft with a run's inputs, options and seed, to change and launch."""
        _, found = get_run(request, slug, run)
        draft = steering.duplicate_run(run=found, user=request.user)
        return Response(RunOutput(draft).data, status=status.HTTP_201_CREATED)


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
