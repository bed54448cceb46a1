"""The guideline over the API: what annotators read, its versions, and the preview of a text."""

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.access import Role, get_project
from annotation.models import Guideline
from annotation.rendering import draft_html, safe_html
from annotation.selectors.guidelines import changes_since, guideline_of, newest_guideline
from annotation.services.guidelines import MOST_CHARACTERS, mark_guideline_read, publish_guideline
from rankloop.api import Listing

_NONE = "This project has no guideline yet."


class CurrentOutput(serializers.Serializer):
    version = serializers.IntegerField()
    html = serializers.CharField()
    read = serializers.IntegerField(help_text="The version the caller has read last; 0: none yet.")
    changes_html = serializers.CharField(
        allow_null=True,
        help_text="What changed since then, in <ins> and <del>; null when nothing did or none was read.",
    )


class VersionInput(serializers.Serializer):
    version = serializers.IntegerField(min_value=1)


class GuidelineOutput(serializers.ModelSerializer):
    created_by = serializers.SlugRelatedField(slug_field="username", read_only=True)

    class Meta:
        model = Guideline
        fields = ("version", "text", "created_by", "created_at")


class PublishInput(serializers.Serializer):
    based_on = serializers.IntegerField(min_value=0, help_text="The version this text was written on top of.")
    text = serializers.CharField(trim_whitespace=False, allow_blank=True)


class PreviewInput(serializers.Serializer):
    text = serializers.CharField(
        trim_whitespace=False,
        allow_blank=True,
        max_length=MOST_CHARACTERS,
        error_messages={
            "max_length": f"This is longer than {MOST_CHARACTERS:,} characters: too long to preview."
        },
    )


class PreviewOutput(serializers.Serializer):
    html = serializers.CharField()


class GuidelineApi(APIView):
    """The version that holds now, and what changed since the caller read it last."""

    @extend_schema(responses=CurrentOutput)
    def get(self, request: Request, slug: str) -> Response:
        project = get_project(request.user, slug)
        newest = newest_guideline(project)
        if newest is None:
            raise Http404(_NONE)
        read = project.memberships.get(user=request.user).guideline_read
        changes = changes_since(project, read, newest) if read < newest.version else None
        told = {
            "version": newest.version,
            "html": safe_html(newest.text),
            "read": read,
            "changes_html": changes,
        }
        return Response(CurrentOutput(told).data)


class ReadGuidelineApi(APIView):
    """Say that the caller has read a version. Never goes backwards."""

    @extend_schema(request=VersionInput, responses={204: None})
    def post(self, request: Request, slug: str) -> Response:
        project = get_project(request.user, slug)
        sent = VersionInput(data=request.data)
        sent.is_valid(raise_exception=True)
        mark_guideline_read(project=project, user=request.user, **sent.validated_data)
        return Response(status=status.HTTP_204_NO_CONTENT)


class GuidelinesApi(Listing):
    queryset = Guideline.objects.none()
    serializer_class = GuidelineOutput

    @extend_schema(responses=GuidelineOutput(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """Every version of the guideline."""
        project = get_project(request.user, slug)
        return self.page_of(project.guidelines.select_related("created_by"))

    @extend_schema(request=PublishInput, responses={201: GuidelineOutput})
    def post(self, request: Request, slug: str) -> Response:
        """Publish the next version: researchers. 409 when another was published since `based_on`."""
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        sent = PublishInput(data=request.data)
        sent.is_valid(raise_exception=True)
        published = publish_guideline(project=project, user=request.user, **sent.validated_data)
        return Response(GuidelineOutput(published).data, status=status.HTTP_201_CREATED)


class GuidelineVersionApi(APIView):
    """One version as it was written."""

    @extend_schema(responses=GuidelineOutput)
    def get(self, request: Request, slug: str, version: int) -> Response:
        guideline = guideline_of(get_project(request.user, slug), version)
        if guideline is None:
            raise Http404(f"There is no version {version} of the guideline.")
        return Response(GuidelineOutput(guideline).data)


class PreviewApi(APIView):
    """A text as its readers will see it. Nothing is kept."""

    @extend_schema(request=PreviewInput, responses=PreviewOutput)
    def post(self, request: Request, slug: str) -> Response:
        get_project(request.user, slug)
        sent = PreviewInput(data=request.data)
        sent.is_valid(raise_exception=True)
        # Not remembered: half-written texts would push out what annotators read.
        return Response(PreviewOutput({"html": draft_html(sent.validated_data["text"])}).data)
