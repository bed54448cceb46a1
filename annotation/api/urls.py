"""The API of what people judge, below /api/v1/."""

from django.urls import path

from annotation.api import annotating

_ASSIGNMENT = "projects/<slug:slug>/assignments/<uuid:assignment>"

urlpatterns = [
    path("projects/<slug:slug>/claim", annotating.ClaimApi.as_view(), name="api-claim"),
    path("projects/<slug:slug>/progress", annotating.ProgressApi.as_view(), name="api-progress"),
    path(f"{_ASSIGNMENT}/submit", annotating.SubmitApi.as_view(), name="api-submit"),
    path(f"{_ASSIGNMENT}/skip", annotating.SkipApi.as_view(), name="api-skip"),
    path(f"{_ASSIGNMENT}/release", annotating.ReleaseApi.as_view(), name="api-release"),
    path(f"{_ASSIGNMENT}/renew", annotating.RenewApi.as_view(), name="api-renew"),
    path(f"{_ASSIGNMENT}/draft", annotating.DraftApi.as_view(), name="api-draft"),
]
