"""Who I am, and my tokens."""

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from rankloop.accounts.models import ApiToken, User
from rankloop.accounts.services import open_token, revoke_token, token_digest
from rankloop.api import Listing, read_body


class MeOutput(serializers.ModelSerializer):
    name = serializers.CharField(source="get_full_name", help_text="Empty when none was given.")

    class Meta:
        model = User
        fields = ("username", "name", "is_staff", "is_simulated")


class TokenOutput(serializers.ModelSerializer):
    class Meta:
        model = ApiToken
        fields = ("id", "name", "created_at", "last_used_at", "revoked_at")


class TokenInput(serializers.Serializer):
    name = serializers.CharField(max_length=80, help_text="What will use it.")


class NewTokenOutput(TokenOutput):
    token = serializers.CharField(help_text="Keep it now: it can't be shown again.")

    class Meta(TokenOutput.Meta):
        fields = (*TokenOutput.Meta.fields, "token")


class MeApi(APIView):
    """Who the token or the session belongs to."""

    @extend_schema(responses=MeOutput)
    def get(self, request: Request) -> Response:
        return Response(MeOutput(request.user).data)


class TokensApi(Listing):
    queryset = ApiToken.objects.none()
    serializer_class = TokenOutput

    @extend_schema(responses=TokenOutput(many=True))
    def get(self, request: Request) -> Response:
        """My tokens, revoked ones too. The tokens themselves are not kept, only what tells them apart."""
        return self.page_of(request.user.api_tokens.all())

    @extend_schema(request=TokenInput, responses={201: NewTokenOutput})
    def post(self, request: Request) -> Response:
        """Make a token. The answer shows it, once."""
        asked = read_body(request, TokenInput)
        token = open_token(user=request.user, **asked)
        made = ApiToken.objects.get(digest=token_digest(token))
        made.token = token  # type: ignore[attr-defined]
        return Response(NewTokenOutput(made).data, status=status.HTTP_201_CREATED)


class TokenApi(APIView):
    @extend_schema(responses={204: None})
    def delete(self, request: Request, token: int) -> Response:
        """Revoke a token of mine. Programs that use it are signed out at once."""
        if not revoke_token(user=request.user, token_id=token):
            raise Http404("There is no such token of yours to revoke.")
        return Response(status=status.HTTP_204_NO_CONTENT)
