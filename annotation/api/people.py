"""Members, invitations and one's own preferences over the API."""

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.access import Role, get_project
from annotation.models import Invitation, Membership, Project
from annotation.selectors.members import get_invitation, get_member, invitation_by, state_of
from annotation.services.invitations import (
    LIFETIMES,
    accept_invitation,
    open_invitation,
    revoke_invitation,
)
from annotation.services.members import categories_for, change_role, remove_member, set_opt_outs
from rankloop.api import Listing


class MemberOutput(serializers.ModelSerializer):
    username = serializers.CharField(source="user.username")
    is_simulated = serializers.BooleanField(source="user.is_simulated")

    class Meta:
        model = Membership
        fields = ("id", "username", "role", "joined_at", "is_simulated")


class RoleInput(serializers.Serializer):
    role = serializers.ChoiceField(choices=Role.choices)


class InvitationOutput(serializers.ModelSerializer):
    created_by = serializers.CharField(source="created_by.username")
    state = serializers.SerializerMethodField()

    class Meta:
        model = Invitation
        fields = (
            "id",
            "role",
            "state",
            "places",
            "used",
            "expires_at",
            "revoked_at",
            "created_by",
            "created_at",
        )

    def get_state(self, invitation: Invitation) -> str:
        return state_of(invitation)


class InvitationInput(serializers.Serializer):
    role = serializers.ChoiceField(choices=Role.choices)
    days = serializers.ChoiceField(choices=LIFETIMES, default=7)
    places = serializers.IntegerField(min_value=1, max_value=500, default=1)


class NewInvitationOutput(InvitationOutput):
    """With the token, this once; the link is /join/<token>/."""

    token = serializers.CharField()

    class Meta(InvitationOutput.Meta):
        fields = (*InvitationOutput.Meta.fields, "token")


class JoinInput(serializers.Serializer):
    token = serializers.CharField(max_length=200)


class JoinOutput(serializers.Serializer):
    project = serializers.SlugField()
    role = serializers.ChoiceField(choices=Role.choices)
    changed = serializers.BooleanField(help_text="False when the role was included in yours already.")


class PreferencesInput(serializers.Serializer):
    opted_out = serializers.ListField(child=serializers.CharField(max_length=60), max_length=1000)


class PreferencesOutput(serializers.Serializer):
    categories = serializers.ListField(child=serializers.CharField())
    opted_out = serializers.ListField(child=serializers.CharField())


class MembersApi(Listing):
    """Who is in the project: admins."""

    queryset = Membership.objects.none()
    serializer_class = MemberOutput

    @extend_schema(responses=MemberOutput(many=True))
    def get(self, request: Request, slug: str) -> Response:
        project = get_project(request.user, slug, at_least=Role.ADMIN)
        return self.page_of(project.memberships.select_related("user"))


class MemberApi(APIView):
    @extend_schema(request=RoleInput, responses=MemberOutput)
    def patch(self, request: Request, slug: str, member: int) -> Response:
        """Give a member another role: admins. The last admin stays one."""
        project = get_project(request.user, slug, at_least=Role.ADMIN)
        membership = get_member(project, member)
        sent = RoleInput(data=request.data)
        sent.is_valid(raise_exception=True)
        changed = change_role(membership=membership, by=request.user, **sent.validated_data)
        return Response(MemberOutput(changed).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, slug: str, member: int) -> Response:
        """Take a member out of the project: admins. The last admin stays."""
        project = get_project(request.user, slug, at_least=Role.ADMIN)
        remove_member(membership=get_member(project, member), by=request.user)
        return Response(status=status.HTTP_204_NO_CONTENT)


class InvitationsApi(Listing):
    queryset = Invitation.objects.none()
    serializer_class = InvitationOutput

    @extend_schema(responses=InvitationOutput(many=True))
    def get(self, request: Request, slug: str) -> Response:
        """Every invitation, closed ones too: admins."""
        project = get_project(request.user, slug, at_least=Role.ADMIN)
        return self.page_of(project.invitations.select_related("created_by"))

    @extend_schema(request=InvitationInput, responses={201: NewInvitationOutput})
    def post(self, request: Request, slug: str) -> Response:
        """Open an invitation, whose token is told once: admins."""
        project = get_project(request.user, slug, at_least=Role.ADMIN)
        sent = InvitationInput(data=request.data)
        sent.is_valid(raise_exception=True)
        invitation, token = open_invitation(project=project, user=request.user, **sent.validated_data)
        told = InvitationOutput(invitation).data | {"token": token}
        return Response(told, status=status.HTTP_201_CREATED)


class RevokeInvitationApi(APIView):
    """Close an invitation before its time: admins. Repeatable."""

    @extend_schema(request=None, responses=InvitationOutput)
    def post(self, request: Request, slug: str, invitation: int) -> Response:
        project = get_project(request.user, slug, at_least=Role.ADMIN)
        revoke_invitation(invitation=get_invitation(project, invitation), user=request.user)
        return Response(InvitationOutput(get_invitation(project, invitation)).data)


class JoinApi(APIView):
    """Join by an invitation's token, with the account that asks."""

    @extend_schema(request=JoinInput, responses=JoinOutput)
    def post(self, request: Request) -> Response:
        sent = JoinInput(data=request.data)
        sent.is_valid(raise_exception=True)
        invitation = invitation_by(sent.validated_data["token"])
        if invitation is None:
            raise Http404("There is no such invitation. Ask whoever sent it for a new one.")
        membership, changed = accept_invitation(invitation=invitation, user=request.user)
        told = {"project": invitation.project.slug, "role": membership.role, "changed": changed}
        return Response(JoinOutput(told).data)


class PreferencesApi(APIView):
    """Which sensitive categories the caller does not want to see. Nobody else is shown it."""

    @extend_schema(responses=PreferencesOutput)
    def get(self, request: Request, slug: str) -> Response:
        project = get_project(request.user, slug)
        return _preferences(project, project.memberships.get(user=request.user))

    @extend_schema(request=PreferencesInput, responses=PreferencesOutput)
    def put(self, request: Request, slug: str) -> Response:
        """Say which sensitive categories the caller does not want to see."""
        project = get_project(request.user, slug)
        sent = PreferencesInput(data=request.data)
        sent.is_valid(raise_exception=True)
        categories = sent.validated_data["opted_out"]
        return _preferences(project, set_opt_outs(project=project, user=request.user, categories=categories))


def _preferences(project: Project, membership: Membership) -> Response:
    told = {"categories": categories_for(project, membership), "opted_out": membership.opted_out}
    return Response(PreferencesOutput(told).data)
