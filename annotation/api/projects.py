"""Projects over the API: mine, a new one, settings, pause."""

from typing import Any

from django.db.models import F
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.access import Role, get_project
from annotation.models import Project
from annotation.services.members import open_project
from annotation.services.projects import SETTINGS, change_settings, pause_project, resume_project
from rankloop.api import Listing


class ProjectOutput(serializers.ModelSerializer):
    """What every member may know. Leak phrases are not among it: they name models."""

    my_role = serializers.ChoiceField(choices=Role.choices, read_only=True)

    class Meta:
        model = Project
        fields = (
            *(
                "slug",
                "name",
                "description",
                "my_role",
                "is_paused",
                "created_at",
                "strength_levels",
                "flags",
            ),
            *("aspects", "lease_minutes", "revise_minutes", "blur_sensitive", "sensitive_categories"),
        )


class NewProjectInput(serializers.Serializer):
    slug = serializers.SlugField(max_length=60)
    name = serializers.CharField(max_length=120)
    description = serializers.CharField(allow_blank=True, default="")


class SettingsOutput(serializers.ModelSerializer):
    class Meta:
        model = Project
        fields = SETTINGS


class SettingsInput(serializers.ModelSerializer):
    """Any of the settings; what is left out stays as it is. The service checks lists and limits."""

    class Meta:
        model = Project
        fields = SETTINGS
        extra_kwargs = {name: {"required": False} for name in SETTINGS}


class StateOutput(serializers.Serializer):
    is_paused = serializers.BooleanField()


class ProjectsApi(Listing):
    queryset = Project.objects.none()
    serializer_class = ProjectOutput

    @extend_schema(responses=ProjectOutput(many=True))
    def get(self, request: Request) -> Response:
        """The projects I am in."""
        mine = Project.objects.filter(memberships__user=request.user)
        return self.page_of(mine.annotate(my_role=F("memberships__role")))

    @extend_schema(request=NewProjectInput, responses={201: ProjectOutput})
    def post(self, request: Request) -> Response:
        """Open a project and become its first admin: staff only."""
        if not request.user.is_staff:
            raise PermissionDenied("Only staff open projects. Ask an admin of this installation.")
        sent = NewProjectInput(data=request.data)
        sent.is_valid(raise_exception=True)
        values = sent.validated_data | {"slug": sent.validated_data["slug"].lower()}
        project = open_project(user=request.user, **values)
        project.my_role = Role.ADMIN
        return Response(ProjectOutput(project).data, status=status.HTTP_201_CREATED)


class ProjectApi(APIView):
    """One project, as every member may know it."""

    @extend_schema(responses=ProjectOutput)
    def get(self, request: Request, slug: str) -> Response:
        return Response(ProjectOutput(get_project(request.user, slug)).data)


class SettingsApi(APIView):
    @extend_schema(responses=SettingsOutput)
    def get(self, request: Request, slug: str) -> Response:
        """All settings: researchers."""
        return Response(SettingsOutput(get_project(request.user, slug, at_least=Role.RESEARCHER)).data)

    @extend_schema(request=SettingsInput(partial=True), responses=SettingsOutput)
    def patch(self, request: Request, slug: str) -> Response:
        """Change some of the settings: admins. What is left out stays as it is."""
        project = get_project(request.user, slug, at_least=Role.ADMIN)
        sent = SettingsInput(data=request.data, partial=True)
        sent.is_valid(raise_exception=True)
        changed = change_settings(project=project, user=request.user, **_known(request, sent.validated_data))
        return Response(SettingsOutput(changed).data)


def _known(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """The values, unless a name among those sent is none of a setting: a misspelt one must not pass unnoticed."""
    unknown = sorted(set(request.data) - set(SETTINGS))
    if unknown:
        raise serializers.ValidationError({name: ["There is no such setting."] for name in unknown})
    return values


class PauseApi(APIView):
    """Give nobody new comparisons. Repeatable."""

    @extend_schema(request=None, responses=StateOutput)
    def post(self, request: Request, slug: str) -> Response:
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        pause_project(project=project, user=request.user)
        return Response(StateOutput(project).data)


class ResumeApi(APIView):
    """Let ranking go on. Repeatable."""

    @extend_schema(request=None, responses=StateOutput)
    def post(self, request: Request, slug: str) -> Response:
        project = get_project(request.user, slug, at_least=Role.RESEARCHER)
        resume_project(project=project, user=request.user)
        return Response(StateOutput(project).data)
