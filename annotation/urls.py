"""Addresses of the pages of what people judge."""

from django.urls import path

from annotation import views

urlpatterns = [
    path("", views.home, name="home"),
    path("projects/new/", views.new_project, name="new-project"),
    path("p/<slug:slug>/", views.project, name="project"),
    path("p/<slug:slug>/annotate/", views.annotate, name="annotate"),
    path("p/<slug:slug>/prompts/", views.prompts, name="prompts"),
    path("p/<slug:slug>/prompts/new/", views.new_prompt, name="new-prompt"),
]
