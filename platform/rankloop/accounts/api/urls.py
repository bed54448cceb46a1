"""The API of one's own account, below /api/v1/."""

from django.urls import path

from rankloop.accounts.api import tokens

urlpatterns = [
    path("me", tokens.MeApi.as_view(), name="api-me"),
    path("tokens", tokens.TokensApi.as_view(), name="api-tokens"),
    path("tokens/<int:token>", tokens.TokenApi.as_view(), name="api-token"),
]
