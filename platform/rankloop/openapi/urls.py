"""Addresses of the API's description."""

from django.urls import path

from rankloop.openapi import views

urlpatterns = [
    path("schema.json", views.SchemaApi.as_view(), name="api-schema"),
    path("docs", views.docs, name="api-docs"),
]
