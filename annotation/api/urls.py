"""The API of what people judge, below /api/v1/."""

from django.urls import path

from annotation.api import annotating

_ASSIGNMENT = "projects/<slug:slug>/assignments/<uuid:assignment>"

urlpatterns = [
    path("projects/<slug:slug>/claim", annotating.ClaimApi.as_view(), name="api-claim"),
    path("projects/<slug:slug>/progress", annotating.ProgressApi.as_view(), name="api-progress"),
    path(_ASSIGNMENT, annotating.BoardApi.as_view(), name="api-board"),
    path(f"{_ASSIGNMENT}/submit", annotating.SubmitApi.as_view(), name="api-submit"),
    path(f"{_ASSIGNMENT}/revise", annotating.ReviseApi.as_view(), name="api-revise"),
    path(f"{_ASSIGNMENT}/withdraw", annotating.WithdrawApi.as_view(), name="api-withdraw"),
    path(f"{_ASSIGNMENT}/report", annotating.ReportApi.as_view(), name="api-report"),
    path(f"{_ASSIGNMENT}/skip", annotating.SkipApi.as_view(), name="api-skip"),
    path(f"{_ASSIGNMENT}/release", annotating.ReleaseApi.as_view(), name="api-release"),
    path(f"{_ASSIGNMENT}/renew", annotating.RenewApi.as_view(), name="api-renew"),
    path(f"{_ASSIGNMENT}/draft", annotating.DraftApi.as_view(), name="api-draft"),
]
