"""Addresses of the pages of what people judge."""

from django.urls import path

from annotation.views import (
    guidelines,
    joining,
    people,
    progress,
    projects,
    prompts,
    ranking,
    review,
    settings,
)

_PROJECT = "p/<slug:slug>"

urlpatterns = [
    path("", projects.home, name="home"),
    path("projects/new/", projects.new_project, name="new-project"),
    path(f"{_PROJECT}/", projects.project, name="project"),
    path(f"{_PROJECT}/annotate/", ranking.annotate, name="annotate"),
    path(f"{_PROJECT}/progress/", progress.progress, name="progress"),
    path(f"{_PROJECT}/prompts/", prompts.prompts, name="prompts"),
    path(f"{_PROJECT}/prompts/new/", prompts.new_prompt, name="new-prompt"),
    # the project around it: settings, people, guideline
    path(f"{_PROJECT}/settings/", settings.settings, name="project-settings"),
    path(f"{_PROJECT}/pause/", settings.pause, name="pause-project"),
    path(f"{_PROJECT}/resume/", settings.resume, name="resume-project"),
    path(f"{_PROJECT}/people/", people.people, name="people"),
    path(f"{_PROJECT}/people/<int:member>/role/", people.role, name="change-role"),
    path(f"{_PROJECT}/people/<int:member>/remove/", people.remove, name="remove-member"),
    path(f"{_PROJECT}/invitations/<int:invitation>/revoke/", people.revoke, name="revoke-invitation"),
    path(f"{_PROJECT}/preferences/", people.preferences, name="preferences"),
    path(f"{_PROJECT}/guideline/", guidelines.guideline, name="guideline"),
    path(f"{_PROJECT}/guideline/edit/", guidelines.edit_guideline, name="edit-guideline"),
    path("join/<str:token>/", joining.join, name="join"),
    path(f"{_PROJECT}/review/", review.review, name="review"),
]
