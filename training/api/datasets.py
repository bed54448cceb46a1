"""Frozen datasets, and the pairs in them."""

import django_filters
from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.access import Role, get_project
from annotation.api.prompts import ImportProblems, JSONLinesBody, import_refused, sent_file
from annotation.importing import ImportErrors
from annotation.models import Prompt
from rankloop.api import AlwaysJSON, InOrder, Listing, Problem, read_query
from rankloop.errors import Conflict
from rankloop.parsers import MOST_IMPORTED, JSONBody
from training.access import get_dataset
from training.api.runs import RunOutput
from training.models import PreferenceDataset, TrainingRun
from training.selectors.datasets import jsonl, left_out, pairs_of, revised_since
from training.services.imports import import_dataset
from training.store import DamagedArtifact, ErasedText


class LeftOut(serializers.Serializer):
    without = serializers.ListField(
        child=serializers.CharField(), help_text="Annotators whose judgments it lacks."
    )
    guideline_from = serializers.IntegerField(
        allow_null=True, help_text="It lacks what was judged under earlier versions."
    )
    left_out = serializers.IntegerField(help_text="How many judgments.")


class DatasetOutput(serializers.ModelSerializer):
    rounds = InOrder(
        serializers.SlugRelatedField("number", read_only=True), read_only=True, help_text="Their numbers."
    )
    sources = serializers.ListField(child=serializers.CharField())
    counts = serializers.DictField(help_text="Judgments, comparisons, pairs of each split, ties and all bad.")

    class Meta:
        model = PreferenceDataset
        fields = ("id", "digest", "rounds", "sources", "imported_from", "counts", "created_at")
        extra_kwargs = {"imported_from": {"help_text": "The name of a file; empty for frozen judgments."}}


class DatasetDetail(DatasetOutput):
    revised_since = serializers.DateTimeField(
        allow_null=True, help_text="When a judgment in it was last revised or withdrawn after the freeze."
    )
    runs = RunOutput(many=True, help_text="What learned from it.")
    left_out = LeftOut(allow_null=True, help_text="What its filters left out; null: nothing.")

    class Meta(DatasetOutput.Meta):
        fields = (*DatasetOutput.Meta.fields, "revised_since", "runs", "left_out")


class PairsInput(serializers.Serializer):
    split = serializers.ChoiceField(choices=Prompt.Split.choices)


class PairMessage(serializers.Serializer):
    role = serializers.CharField()
    content = serializers.CharField()


class PairOutput(serializers.Serializer):
    prompt = PairMessage(many=True)
    chosen = PairMessage(many=True)
    rejected = PairMessage(many=True)
    ranking = serializers.IntegerField(help_text="The judgment it comes from; of an import the line.")
    prompt_id = serializers.IntegerField()
    weight = serializers.FloatField()


class DatasetImportInput(serializers.Serializer):
    file = serializers.CharField(max_length=200, help_text="Its name, to know it by.")
    content = serializers.CharField(trim_whitespace=False, help_text="JSONL.")


class DatasetFilters(django_filters.FilterSet):
    round = django_filters.NumberFilter(field_name="rounds__number", help_text="Its number.")


class DatasetsApi(Listing):
    queryset = PreferenceDataset.objects.none()
    serializer_class = DatasetOutput
    filterset_class = DatasetFilters

    @extend_schema(responses=DatasetOutput(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """Every frozen dataset of the project."""
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        return self.page_of(project.datasets.prefetch_related("rounds"))


class DatasetImportApi(APIView):
    parser_classes = (JSONBody, JSONLinesBody)
    most_bytes = MOST_IMPORTED

    @extend_schema(
        request={"application/json": DatasetImportInput, "application/jsonl": OpenApiTypes.STR},
        responses={200: DatasetOutput, 400: ImportProblems},
    )
    def post(self, request: Request, slug: str) -> Response:
        """Make a dataset of every row of a JSONL file, or none. The same rows give the same dataset.

        A row has `prompt` (a text or a list of messages), and `chosen` with `rejected`, or `completion`. It may have
        `strength` (1 to 3, of a pair), `weight` and `split` (only `held_out`). Send JSON with the file's name and
        content, or the file itself.
        """
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        file, content = sent_file(request, DatasetImportInput, stem="pairs")
        try:
            dataset = import_dataset(project=project, content=content, file=file, user=request.user)
        except ImportErrors as error:
            return import_refused(error)
        return Response(DatasetOutput(dataset).data)


class DatasetApi(APIView):
    @extend_schema(responses=DatasetDetail)
    def get(self, request: Request, slug: str, dataset: int) -> Response:
        """One dataset: what is in it, and what learned from it."""
        _, found = get_dataset(request, slug, dataset)
        found.revised_since = revised_since(found)  # type: ignore[attr-defined]
        found.left_out = left_out(found)  # type: ignore[attr-defined]
        runs = TrainingRun.objects.filter(inputs__dataset=found).select_related("round", "checkpoint")
        found.runs = runs.order_by("created_at")  # type: ignore[attr-defined]
        return Response(DatasetDetail(found).data)


class PairsApi(APIView):
    content_negotiation_class = AlwaysJSON

    @extend_schema(parameters=[PairsInput], responses={(200, "application/jsonl"): PairOutput, 409: Problem})
    def get(self, request: Request, slug: str, dataset: int) -> StreamingHttpResponse:
        """The pairs of one split in TRL's preference form, one JSON object a line.

        A dataset with an erased text or a damaged file is refused before the first line.
        """
        project, found = get_dataset(request, slug, dataset)
        split = read_query(request, PairsInput)["split"]
        try:
            pairs = pairs_of(found, split=split)
        except (DamagedArtifact, ErasedText) as error:
            raise Conflict(f"The pairs can't be given out. {error}") from None
        response = StreamingHttpResponse(jsonl(pairs), content_type="application/jsonl; charset=utf-8")
        name = f"{project.slug}-{found.digest[:12]}-{split}.jsonl"
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return response
