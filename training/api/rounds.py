"""Rounds: listed, opened, launched, and helped along."""

from collections.abc import Callable, Sequence
from typing import Any

import django_filters
from django.db import transaction
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.access import Role, get_project
from annotation.models import Contestant, Project, Round
from rankloop.api import InOrder, Listing, Problem, read_body
from training.access import get_round
from training.api.checkpoints import EvaluationOutput
from training.api.datasets import DatasetOutput
from training.api.runs import JobOutput, RunOutput
from training.recipes.options import METHODS
from training.selectors.rounds import round_state, rounds_of
from training.services.rounds import (
    cancel_round,
    end_ranking,
    launch_round,
    open_round,
    retry_step,
    skip_step,
)

_SETTINGS = (
    "name", "kind", "audience", "priority", "overlap", "completions_per_comparison", "samples_per_contestant",
    "train_prompts", "held_out_prompts", "deadline", "seed", "training_plan", "contestants",
)  # fmt: skip


class StepField(serializers.Serializer):
    """One method of a training plan."""

    method = serializers.ChoiceField(choices=tuple(METHODS))
    step = serializers.CharField(max_length=40, required=False, help_text="Its name, by default the method.")
    reward_model = serializers.CharField(
        max_length=40,
        required=False,
        help_text="The earlier step whose reward model this policy learns from, or is measured by.",
    )
    options = serializers.DictField(
        required=False,
        help_text="Of the recipe, such as steps, learning_rate or beta; the rest are its defaults.",
    )


class RoundFacts(serializers.ModelSerializer):
    training_plan = StepField(many=True)
    contestants = InOrder(serializers.PrimaryKeyRelatedField(read_only=True), read_only=True)

    class Meta:
        model = Round
        fields = ("number", "status", "failure", *_SETTINGS, "created_at", "status_since")


class RoundRow(RoundFacts):
    slots_all = serializers.IntegerField(help_text="How many judgments it wants.")
    slots_done = serializers.IntegerField()
    trained = serializers.IntegerField(help_text="Checkpoints that came of it.")

    class Meta(RoundFacts.Meta):
        fields = (*RoundFacts.Meta.fields, "slots_all", "slots_done", "trained")


class RoundStateOutput(serializers.Serializer):
    """How far each phase of a round is."""

    prompts = serializers.DictField(child=serializers.IntegerField(), help_text="Of each split.")
    completions_made = serializers.IntegerField()
    completions_wanted = serializers.IntegerField(help_text="At most.")
    comparisons = serializers.IntegerField()
    slots = serializers.DictField(
        child=serializers.IntegerField(), help_text="Places for judgments: open, held, filled, closed."
    )
    judgments = serializers.DictField(
        child=serializers.IntegerField(), help_text="All, and of them surplus, all_bad and cannot_judge."
    )
    annotators = serializers.IntegerField()
    written = serializers.DictField(
        child=serializers.IntegerField(), help_text="Answers of people: waiting, approved, declined."
    )
    jobs = JobOutput(many=True)
    datasets = DatasetOutput(many=True)
    runs = RunOutput(many=True)
    win_rates = EvaluationOutput(many=True)
    reward_accuracies = EvaluationOutput(many=True)


class RoundDetail(RoundFacts):
    state = RoundStateOutput()

    class Meta(RoundFacts.Meta):
        fields = (*RoundFacts.Meta.fields, "state")


class RoundInput(serializers.ModelSerializer):
    contestants = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=2**63 - 1),
        default=list,
        help_text="Who writes the completions; none in a demonstration round.",
    )
    training_plan = StepField(many=True, required=False)
    launch_key = serializers.UUIDField(
        required=False, help_text="Make one up: the same sent again with it is answered with the same round."
    )
    launch = serializers.BooleanField(default=False, help_text="Launch it too; else it stays a draft.")

    class Meta:
        model = Round
        fields = (*_SETTINGS, "launch_key", "launch")


class RoundFilters(django_filters.FilterSet):
    status = django_filters.ChoiceFilter(choices=Round.Status.choices)
    kind = django_filters.ChoiceFilter(choices=Round.Kind.choices)
    audience = django_filters.ChoiceFilter(choices=Round.Audience.choices)


def chosen_contestants(project: Project, ids: Sequence[int]) -> list[Contestant]:
    """The project's contestants of those ids. Raises ValidationError for one that it does not have."""
    found = project.contestants.in_bulk(ids)
    for pk in ids:
        if pk not in found:
            raise serializers.ValidationError({"contestants": [f"The project has no contestant {pk}."]})
    return list(found.values())


class RoundsApi(Listing):
    queryset = Round.objects.none()
    serializer_class = RoundRow
    filterset_class = RoundFilters

    @extend_schema(responses=RoundRow(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """Every round of the project."""
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        return self.page_of(rounds_of(project).prefetch_related("contestants"))

    @extend_schema(request=RoundInput, responses={201: RoundFacts, 409: Problem})
    def post(self, request: Request, slug: str) -> Response:
        """Open a round, and with `launch` launch it: both or neither.

        What is left out is the project's default. In a demonstration round annotators write the answers: it has no
        contestants, trains nothing, and takes one answer to each train prompt unless told otherwise.
        """
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        asked = read_body(request, RoundInput)
        launch, contestants = asked.pop("launch"), chosen_contestants(project, asked.pop("contestants"))
        with transaction.atomic():
            opened = open_round(project=project, user=request.user, contestants=contestants, **asked)
            if launch:
                launch_round(round=opened, user=request.user)
        return Response(RoundFacts(opened).data, status=status.HTTP_201_CREATED)


class RoundApi(APIView):
    @extend_schema(responses=RoundDetail)
    def get(self, request: Request, slug: str, number: int) -> Response:
        """One round: its settings, and how far each phase is."""
        _, found = get_round(request, slug, number)
        found.state = round_state(found)  # type: ignore[attr-defined]
        return Response(RoundDetail(found).data)


class _ActApi(APIView):
    """One service call on a round."""

    service: Callable[..., Any]

    @extend_schema(request=None, responses={200: RoundFacts, 409: Problem})
    def post(self, request: Request, slug: str, number: int) -> Response:
        _, found = get_round(request, slug, number)
        type(self).service(round=found, user=request.user)
        found.refresh_from_db()
        return Response(RoundFacts(found).data)


class LaunchApi(_ActApi):
    """Launch a draft. One that is launched already is left as it is."""

    service = launch_round


class RetryApi(_ActApi):
    """Try the failed step again."""

    service = retry_step


class SkipStepApi(_ActApi):
    """Go on without the failed step."""

    service = skip_step


class EndRankingApi(_ActApi):
    """End ranking (or writing) now. What is open is closed and counted as such, and the round goes on."""

    service = end_ranking


class CancelRoundApi(_ActApi):
    """Cancel a round for good. What was judged is kept."""

    service = cancel_round
