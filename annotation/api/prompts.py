"""Prompts: listed, searched, written, imported."""

from typing import Any

import django_filters
from django.db.models import QuerySet
from django.http import Http404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers, status
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.access import Role, get_project
from annotation.importing import ROLES, FieldError, ImportErrors
from annotation.models import Prompt
from annotation.selectors.prompts import containing, tags_of
from annotation.services.prompts import add_prompt, import_prompts
from rankloop.api import Listing, read_body
from rankloop.parsers import MOST_IMPORTED, JSONBody, refuse_too_large

# More of them help nobody, and a file of another kind has one a line.
MOST_PROBLEMS = 200


class MessageField(serializers.Serializer):
    role = serializers.ChoiceField(choices=ROLES)
    content = serializers.CharField()


class PromptRow(serializers.ModelSerializer):
    messages = MessageField(many=True)

    class Meta:
        model = Prompt
        fields = ("id", "messages", "split", "tags", "source", "created_at")


@extend_schema_field(
    {
        "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}],
        "example": "How do I brew green tea?",
    }
)
class ConversationField(serializers.JSONField):
    """Checked by the service, as a row of a file is."""


class PromptInput(serializers.Serializer):
    prompt = ConversationField(
        help_text="A text, or a conversation that ends with the user: a list of objects with `role` and `content`."
    )
    tags = serializers.ListField(child=serializers.CharField(max_length=60), default=list)
    source = serializers.CharField(max_length=200, default="", allow_blank=True)


class ImportInput(serializers.Serializer):
    file = serializers.CharField(
        max_length=200, help_text="Its name: one that ends with .csv is read as CSV, any other as JSONL."
    )
    content = serializers.CharField(trim_whitespace=False)


class ImportOutput(serializers.Serializer):
    rows = serializers.IntegerField(help_text="How many the file had.")
    added = serializers.IntegerField(help_text="How many of them were new.")


class ImportProblems(serializers.Serializer):
    detail = serializers.CharField()
    problems = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text=f"Of a file: line, field and reason of each, at most {MOST_PROBLEMS}.",
    )


class PromptFilters(django_filters.FilterSet):
    q = django_filters.CharFilter(method="containing", help_text="A text anywhere in the conversation.")
    split = django_filters.ChoiceFilter(choices=Prompt.Split.choices)
    tag = django_filters.CharFilter(field_name="tags", lookup_expr="contains", method="tagged")

    def containing(self, prompts: QuerySet[Prompt], _: str, text: str) -> QuerySet[Prompt]:
        return containing(prompts, text)

    def tagged(self, prompts: QuerySet[Prompt], _: str, tag: str) -> QuerySet[Prompt]:
        return prompts.filter(tags__contains=[tag])


class PromptsApi(Listing):
    queryset = Prompt.objects.none()
    serializer_class = PromptRow
    filterset_class = PromptFilters

    @extend_schema(responses=PromptRow(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """The project's prompts, searched and filtered."""
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        return self.page_of(project.prompts.all())

    @extend_schema(request=PromptInput, responses={201: PromptRow, 200: PromptRow})
    def post(self, request: Request, slug: str) -> Response:
        """Add one prompt. Its split is drawn from its text once and stays.

        One that is here already is answered with 200 and left as it is.
        """
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        asked = read_body(request, PromptInput)
        try:
            prompt, is_new = add_prompt(project=project, user=request.user, **asked)
        except FieldError as error:
            raise serializers.ValidationError({error.name: [error.reason]}) from None
        code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
        return Response(PromptRow(prompt).data, status=code)


class PromptApi(APIView):
    @extend_schema(responses=PromptRow)
    def get(self, request: Request, slug: str, prompt: int) -> Response:
        """One prompt."""
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        found = project.prompts.filter(pk=prompt).first()
        if found is None:
            raise Http404("There is no such prompt.")
        return Response(PromptRow(found).data)


class TagsApi(APIView):
    @extend_schema(responses={200: {"type": "array", "items": {"type": "string"}}})
    def get(self, request: Request, slug: str) -> Response:
        """Every tag in use, in alphabetical order."""
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        return Response(tags_of(project))


class FileBody(BaseParser):
    """A file as the whole body; it is read by the importer and not here."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> bytes:
        refuse_too_large(parser_context)
        return stream.read()


class CSVBody(FileBody):
    media_type = "text/csv"


class JSONLinesBody(FileBody):
    media_type = "application/jsonl"


def sent_file(request: Request, serializer: type[serializers.Serializer], *, stem: str) -> tuple[str, bytes]:
    """Name and content of a file that is the whole body, or stands in JSON as `serializer` has it."""
    if isinstance(request.data, bytes):
        kind = "csv" if request.content_type.startswith(CSVBody.media_type) else "jsonl"
        return f"{stem}.{kind}", request.data
    asked = read_body(request, serializer)
    return asked["file"], asked["content"].encode()


def import_refused(error: ImportErrors) -> Response:
    """The answer to a file of which nothing was imported."""
    told = f"{len(error.problems)} problems were found, and nothing was imported."
    return Response({"detail": told, "problems": error.problems[:MOST_PROBLEMS]}, status=400)


class ImportApi(APIView):
    parser_classes = (JSONBody, CSVBody, JSONLinesBody)
    most_bytes = MOST_IMPORTED

    @extend_schema(
        request={
            "application/json": ImportInput,
            "text/csv": OpenApiTypes.STR,
            "application/jsonl": OpenApiTypes.STR,
        },
        responses={200: ImportOutput, 400: ImportProblems},
    )
    def post(self, request: Request, slug: str) -> Response:
        """Import every prompt of a file, or none. Prompts that are here already are passed over.

        A row has `prompt` (a text or a list of messages), and may have `tags`, `source` and `split` (only `held_out`).
        Send JSON with the file's name and content, or the file itself as CSV or JSONL.
        """
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        file, content = sent_file(request, ImportInput, stem="prompts")
        try:
            result = import_prompts(project=project, content=content, file=file, user=request.user)
        except ImportErrors as error:
            return import_refused(error)
        return Response(ImportOutput(result).data)
