"""What every API answer has in common: how a request is read, refused and paged."""

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework import exceptions, serializers, status
from rest_framework.generics import GenericAPIView
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import exception_handler as drf_exception_handler

from rankloop.errors import Conflict, Refused

_FIELDS_ARE_WRONG = "Some fields are not right; nothing was saved."


class Problem(serializers.Serializer):
    """Why a request was refused, and what to do about it."""

    detail = serializers.CharField()
    fields = serializers.DictField(  # type: ignore[assignment]
        required=False, help_text="What is wrong with which field."
    )


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's handler, plus the services' own refusals. Field errors come as `{"detail", "fields"}`."""
    if isinstance(error, Conflict):
        return Response({"detail": str(error)}, status=status.HTTP_409_CONFLICT)
    if isinstance(error, Refused):
        return Response({"detail": str(error)}, status=status.HTTP_400_BAD_REQUEST)
    if isinstance(error, RecursionError):  # the JSON parser's, which DRF lets through
        return Response({"detail": "The JSON is nested too deeply."}, status=status.HTTP_400_BAD_REQUEST)
    if isinstance(error, ValidationError) and hasattr(error, "error_dict"):
        return Response(
            {"detail": _FIELDS_ARE_WRONG, "fields": error.message_dict}, status=status.HTTP_400_BAD_REQUEST
        )
    if isinstance(error, ValidationError):
        return Response({"detail": " ".join(error.messages)}, status=status.HTTP_400_BAD_REQUEST)
    response = drf_exception_handler(error, context)
    if response is not None and isinstance(error, exceptions.APIException) and "detail" not in response.data:
        response.data = {"detail": _FIELDS_ARE_WRONG, "fields": response.data}
    if response is not None and isinstance(error, exceptions.AuthenticationFailed):
        # A browser that has lost its session gets DRF's 403; a program with a bad token gets what it expects.
        response.status_code = status.HTTP_401_UNAUTHORIZED
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


@csrf_exempt
def unknown_address(request: HttpRequest, **_: Any) -> JsonResponse:
    """Whatever lies below /api/ and is no address: JSON like every other answer there."""
    return JsonResponse({"detail": "There is no such address. All of them stand at /api/docs."}, status=404)


# --- reading ---


class AlwaysJSON(DefaultContentNegotiation):
    """For a view that answers with a file: whatever is accepted, what goes wrong is told in JSON."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


def refuse_unknown(names: Iterable[str], *, known: Iterable[str], what: str) -> None:
    """Raise Refused for a name that is not known. Passed over in silence, a misspelt one would do something else."""
    known = list(known)
    for name in names:
        if name not in known:
            there_are = f"Known are {', '.join(known)}." if known else "There are none here."
            raise Refused(f"Unknown {what} {str(name)[:80]!r}. {there_are}")


def read_body(request: Request, kind: type[serializers.Serializer]) -> dict[str, Any]:
    """The body, checked by a serializer. Raises ValidationError, and Refused for a field it does not know."""
    sent = kind(data=request.data)
    if isinstance(request.data, dict):
        refuse_unknown(request.data, known=sent.fields, what="field")
    sent.is_valid(raise_exception=True)
    return sent.validated_data


def read_query(
    request: Request, kind: type[serializers.Serializer], *, is_list: bool = False
) -> dict[str, Any]:
    """The query, checked by a serializer. Raises ValidationError, and Refused for a parameter it does not know.

    Those that page a list are read by Pages, and allowed when it is one.
    """
    sent = kind(data=request.query_params.dict())
    known = [*sent.fields, *(Pages.parameters if is_list else ())]
    refuse_unknown(request.query_params, known=known, what="parameter")
    sent.is_valid(raise_exception=True)
    return sent.validated_data


# --- lists ---


class Pages(CursorPagination):
    """Lists come newest first, in pages that stay right while rows are added: `{"next", "previous", "results"}`."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200
    ordering = "-pk"
    cursor_query_description = "Where the page begins: follow `next` and `previous` instead of making one."
    page_size_query_description = "Rows on a page, 1 to 200."
    parameters = ("cursor", "page_size")

    def paginate_queryset(self, queryset: QuerySet, request: Request, view: Any = None) -> list[Any] | None:
        try:
            return super().paginate_queryset(queryset, request, view)
        except (ValueError, ValidationError):  # a cursor that names no position
            raise exceptions.NotFound("This cursor is not one of ours. Begin without it.") from None

    def get_page_size(self, request: Request) -> int:
        asked = request.query_params.get(self.page_size_query_param)
        if asked is None:
            return self.page_size
        size = int(asked) if asked.isdecimal() and len(asked) < 5 else 0
        if not 1 <= size <= self.max_page_size:
            raise Refused(f"page_size must be a whole number from 1 to {self.max_page_size}.")
        return size


class PagesByTime(Pages):
    """For rows whose key is random."""

    ordering = ("-created_at", "-pk")


class InOrder(serializers.ManyRelatedField):
    """Related rows by their key: a database gives rows that are not ordered in a new order whenever it likes."""

    def get_attribute(self, instance: Any) -> list[Any]:
        return sorted(super().get_attribute(instance), key=lambda row: row.pk)


class AllowedFilters(DjangoFilterBackend):
    """The filters of the view's `filterset_class` and no other parameter."""

    def filter_queryset(self, request: Request, queryset: QuerySet, view: Any) -> QuerySet:
        filters = self.get_filterset_class(view, queryset)
        known = [*(filters.base_filters if filters else ()), *Pages.parameters]
        refuse_unknown(request.query_params, known=known, what="parameter")
        return super().filter_queryset(request, queryset, view)


class Listing(GenericAPIView):
    """A list, filtered by an allow-list and paged.

    A view names `queryset` (an empty one, for the schema), `serializer_class`, and where there is something to filter
    by `filterset_class`; its `get` fetches and authorises, then answers with `page_of`.
    """

    pagination_class: type[Pages] = Pages
    filter_backends = (AllowedFilters,)
    filterset_class: Any = None

    def page_of(self, rows: QuerySet) -> Response:
        """One page of the rows that the query asks for."""
        page = self.paginate_queryset(self.filter_queryset(rows))
        return self.get_paginated_response(self.get_serializer(page, many=True).data)
