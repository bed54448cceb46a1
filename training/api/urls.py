"""The API of what machines learn, below /api/v1/."""

from django.urls import path

from training.api import my_work

urlpatterns = [
    path("projects/<slug:slug>/my-judgments", my_work.MyJudgmentsApi.as_view(), name="api-my-judgments"),
]
