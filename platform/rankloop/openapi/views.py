"""The API's description, for programs and for reading."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from rankloop.openapi.reading import sections_of
from rankloop.openapi.schema import SECTIONS, built_schema


class SchemaApi(APIView):
    """This description, as OpenAPI 3.1."""

    @extend_schema(tags=["Account"], operation_id="schema", responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        return Response(built_schema())


@login_required
def docs(request: HttpRequest) -> HttpResponse:
    """Every address of the API, what it takes and what it answers."""
    sections = sections_of(built_schema(), site=request.build_absolute_uri("/"), order=tuple(SECTIONS))
    return render(request, "api_docs.html", {"sections": sections})
