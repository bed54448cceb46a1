"""Addresses of the pages of rounds, runs, checkpoints, datasets and comparisons."""

from django.http import HttpResponse
from django.urls import path

urlpatterns = [
    path(f"p/<slug:slug>/{name}/", lambda request, slug: HttpResponse(""), name=name)
    for name in ("rounds", "runs", "checkpoints", "compare", "latest-checkpoints", "new-round")
] + [path("p/<slug:slug>/rounds/<int:number>/", lambda request, slug, number: HttpResponse(""), name="round")]
