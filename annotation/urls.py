"""Addresses of the pages of what people judge."""

from django.urls import path

from annotation.views import projects, prompts, ranking

_PROJECT = "p/<slug:slug>"

urlpatterns = [
    path("", projects.home, name="home"),
    path("projects/new/", projects.new_project, name="new-project"),
    path(f"{_PROJECT}/", projects.project, name="project"),
    path(f"{_PROJECT}/annotate/", ranking.annotate, name="annotate"),
    path(f"{_PROJECT}/prompts/", prompts.prompts, name="prompts"),
    path(f"{_PROJECT}/prompts/new/", prompts.new_prompt, name="new-prompt"),
]
