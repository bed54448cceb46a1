"""Every address of the site."""

from django.urls import include, path

urlpatterns = [
    path("", include("rankloop.accounts.urls")),
    path("", include("annotation.urls")),
    path("", include("training.urls")),
    path("api/v1/", include("annotation.api.urls")),
    path("api/v1/", include("training.api.urls")),
]
