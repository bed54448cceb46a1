"""Launching a training run by hand: the methods there are, a draft, a look at what it would become, the launch."""

import uuid
from typing import Any

from django.db.models import Model, QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.access import Role, get_project
from annotation.models import Project
from rankloop.api import Problem, read_body
from training.access import get_run
from training.api.runs import RunApi, RunDetail, RunsApi
from training.models import RunInput, TrainingRun
from training.recipes.options import METHODS, describe_options
from training.recipes.presets import PRESETS
from training.selectors.datasets import annotators_of
from training.services import launching as services
from training.services.snapshots import Filters

_ID = {"min_value": 1, "max_value": 2**63 - 1}


class OptionOutput(serializers.Serializer):
    name = serializers.CharField()
    type = serializers.ChoiceField(choices=("int", "float", "str"))
    default = serializers.JSONField()
    help = serializers.CharField()
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True, help_text="Of a text, how many characters it may have.")
    choices = serializers.ListField(child=serializers.CharField(), allow_null=True)
    source = serializers.CharField(help_text="Where the default is from.")  # type: ignore[assignment]


class MethodOutput(serializers.Serializer):
    method = serializers.CharField()
    title = serializers.CharField()
    line = serializers.CharField()
    reads = serializers.CharField(help_text="pairs, demonstrations, outcomes or prompts.")
    makes = serializers.CharField(help_text="The kind of checkpoint: policy or reward.")
    options = OptionOutput(many=True)
    presets = serializers.DictField(help_text="What each preset sets; the rest are the defaults.")


class MethodsApi(APIView):
    @extend_schema(responses=MethodOutput(many=True))
    def get(self, request: Request) -> Response:
        """Every training method with its options, each with its default, bounds, and where the default is from."""
        told = [
            {
                "method": name,
                "title": method.title,
                "line": method.line,
                "reads": method.reads,
                "makes": method.makes,
                "options": describe_options(name),
                "presets": {preset: found.options(name) for preset, found in PRESETS.items()},
            }
            for name, method in METHODS.items()
        ]
        return Response(MethodOutput(told, many=True).data)


class DraftFields(serializers.Serializer):
    name = serializers.CharField(max_length=40, required=False, help_text="By default the method's.")
    dataset = serializers.IntegerField(**_ID, required=False, allow_null=True)
    rounds = serializers.ListField(
        child=serializers.IntegerField(**_ID),
        required=False,
        help_text="Numbers of rounds to freeze a new dataset from, instead of `dataset`.",
    )
    without = serializers.ListField(
        child=serializers.CharField(max_length=150),
        max_length=1000,
        required=False,
        help_text="Usernames of annotators whose judgments stay out of the new dataset.",
    )
    guideline_from = serializers.IntegerField(
        min_value=1,
        max_value=2**31 - 1,
        required=False,
        help_text="What was judged under earlier versions of the guideline stays out of it.",
    )
    parent = serializers.IntegerField(
        **_ID, required=False, help_text="A base, or a checkpoint of the kind that the method makes."
    )
    reward_model = serializers.IntegerField(
        **_ID,
        required=False,
        allow_null=True,
        help_text="To learn from, or, for a policy that learns from data, to be measured by.",
    )
    preset = serializers.ChoiceField(
        choices=tuple(PRESETS), required=False, help_text="Sets options that are not given."
    )
    options = serializers.DictField(
        required=False, help_text="See the methods; what is left out is the default."
    )
    seed = serializers.IntegerField(min_value=0, max_value=2**31 - 1, required=False)


class DraftInput(DraftFields):
    method = serializers.ChoiceField(choices=tuple(METHODS))
    parent = serializers.IntegerField(
        **_ID, help_text="A base, or a checkpoint of the kind that the method makes."
    )
    launch_key = serializers.UUIDField(
        required=False, help_text="Make one up: the same sent again with it is answered with the same run."
    )


class LaunchInput(serializers.Serializer):
    accept_truncation = serializers.BooleanField(
        default=False, help_text="Needed when more than one row in a hundred would be truncated or dropped."
    )
    looked_at = serializers.CharField(
        max_length=64, required=False, help_text="`of` of the findings you have seen: others are refused."
    )


class RunsWithDraftsApi(RunsApi):
    @extend_schema(request=DraftInput, responses={201: RunDetail, 409: Problem})
    def post(self, request: Request, slug: str) -> Response:
        """Open a training run as a draft. It is looked over, and launched by a call of its own.

        Give a dataset, or rounds to freeze one from. What was found stands in `findings` within seconds.
        """
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        asked = read_body(request, DraftInput)
        run = services.open_draft(
            project=project,
            user=request.user,
            method=asked["method"],
            launch_key=asked.get("launch_key"),
            name=asked.get("name", ""),
            seed=asked.get("seed", 1),
            options=_options(asked, asked["method"]),
            **_inputs(project, asked, request),
        )
        return Response(RunDetail(run).data, status=status.HTTP_201_CREATED)


class RunDraftApi(RunApi):
    @extend_schema(request=DraftFields, responses={200: RunDetail, 409: Problem})
    def patch(self, request: Request, slug: str, run: uuid.UUID) -> Response:
        """Change a draft; what is left out stays. It is looked over anew.

        `options` are added to those it has. With a preset, they begin from that instead.
        """
        project, found = get_run(request, slug, run)
        asked = read_body(request, DraftFields)
        begin = {} if "preset" in asked else found.recipe["options"]
        changed = services.change_draft(
            run=found,
            user=request.user,
            name=asked.get("name", found.step),
            seed=asked.get("seed", found.seed),
            options={**begin, **_options(asked, found.method)},
            **_inputs(project, {**_present(found, asked), **asked}, request),
        )
        return Response(RunDetail(changed).data)


class CheckRunApi(APIView):
    @extend_schema(request=None, responses={200: RunDetail, 409: Problem})
    def post(self, request: Request, slug: str, run: uuid.UUID) -> Response:
        """Have a draft looked over again."""
        _, found = get_run(request, slug, run)
        services.check_draft(run=found)
        found.refresh_from_db()
        return Response(RunDetail(found).data)


class LaunchRunApi(APIView):
    @extend_schema(request=LaunchInput, responses={200: RunDetail, 409: Problem})
    def post(self, request: Request, slug: str, run: uuid.UUID) -> Response:
        """Launch a draft that was looked over. One that is launched already is left as it is."""
        _, found = get_run(request, slug, run)
        asked = read_body(request, LaunchInput)
        return Response(RunDetail(services.launch_draft(run=found, user=request.user, **asked)).data)


def _options(asked: dict[str, Any], method: str) -> dict[str, Any]:
    preset = PRESETS[asked["preset"]].options(method) if "preset" in asked else {}
    return {**preset, **asked.get("options", {})}


def _inputs(project: Project, asked: dict[str, Any], request: Request) -> dict[str, Any]:
    """Dataset, parent and reward model of the ids that were given. Raises ValidationError for one that is not there."""
    numbers = asked.get("rounds") or []
    rounds = [_one(project.rounds.filter(number=number), "rounds", number) for number in numbers]
    given = asked.get("dataset")
    dataset = services.chosen_dataset(
        project=project,
        dataset=None if given is None else _one(project.datasets.filter(pk=given), "dataset", given),
        rounds=rounds,
        user=request.user,
        filters=Filters(_annotators(project, asked.get("without", [])), asked.get("guideline_from")),
    )
    judge = asked.get("reward_model")
    return {
        "dataset": dataset,
        "parent": _one(project.checkpoints.filter(pk=asked["parent"]), "parent", asked["parent"]),
        "reward_model": None
        if judge is None
        else _one(project.checkpoints.filter(pk=judge), "reward_model", judge),
    }


def _annotators(project: Project, names: list[str]) -> list[int]:
    """Ids of annotators by name. Raises ValidationError naming one who has judged nothing in the project."""
    known = dict(annotators_of(project).filter(username__in=names).values_list("username", "pk"))
    for name in names:
        if name not in known:
            raise serializers.ValidationError({"without": [f"Nobody of that name has judged here: {name}."]})
    return list(known.values())


def _one(found: QuerySet, field: str, given: Any) -> Model:
    one = found.first()
    if one is None:
        raise serializers.ValidationError({field: [f"The project has no such thing: {given}."]})
    return one


def _present(run: TrainingRun, asked: dict[str, Any]) -> dict[str, Any]:
    """The inputs a draft has now, as one would have asked for them; rounds that are asked for replace its dataset."""
    inputs = {item.role: item.checkpoint_id or item.dataset_id for item in run.inputs.all()}
    dataset = None if asked.get("rounds") else inputs[RunInput.Role.DATA]
    parent = inputs.get(RunInput.Role.PARENT, inputs[RunInput.Role.BASE])
    return {"dataset": dataset, "parent": parent, "reward_model": inputs.get(RunInput.Role.REWARD_MODEL)}
