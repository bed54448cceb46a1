"""Every address of the site."""

from django.urls import include, path, re_path

from rankloop.api import unknown_address

urlpatterns = [
    path("", include("rankloop.accounts.urls")),
    path("", include("annotation.urls")),
    path("", include("training.urls")),
    path("api/", include("rankloop.openapi.urls")),
    path("api/v1/", include("rankloop.accounts.api.urls")),
    path("api/v1/", include("annotation.api.urls")),
    path("api/v1/", include("training.api.urls")),
    re_path("^api/", unknown_address),
]
