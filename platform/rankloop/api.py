"""What every API answer has in common: how a refused request is told."""

from typing import Any

from django.core.exceptions import ValidationError
from rest_framework import status
from rest_framework.exceptions import APIException
from rest_framework.pagination import CursorPagination
from rest_framework.response import Response
from rest_framework.views import exception_handler as drf_exception_handler

from rankloop.errors import Conflict, Refused

_FIELDS_ARE_WRONG = "Some fields are not right; nothing was saved."


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
    if response is not None and isinstance(error, APIException) and "detail" not in response.data:
        response.data = {"detail": _FIELDS_ARE_WRONG, "fields": response.data}
    return response


class Pages(CursorPagination):
    """Lists come newest first, in pages that stay right while rows are added: `{"next", "previous", "results"}`."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200
    ordering = "-pk"
