"""How a refused request is told: one JSON form, which says what happened and what to do."""

from typing import Any

from django.core.exceptions import ValidationError
from rest_framework import status
from rest_framework.exceptions import APIException
from rest_framework.response import Response
from rest_framework.views import exception_handler as drf_exception_handler


class Refused(Exception):
    """A service refuses; the message says why and what to do. Views turn it into a 400 or a form error."""


class Conflict(Refused):
    """The same key came with other content, or the row has moved on. Views turn it into a 409."""


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's handler, plus the services' own refusals. Field errors come as `{"detail", "fields"}`."""
    if isinstance(error, Conflict):
        return Response({"detail": str(error)}, status=status.HTTP_409_CONFLICT)
    if isinstance(error, Refused):
        return Response({"detail": str(error)}, status=status.HTTP_400_BAD_REQUEST)
    if isinstance(error, ValidationError):
        return Response({"detail": " ".join(error.messages)}, status=status.HTTP_400_BAD_REQUEST)
    response = drf_exception_handler(error, context)
    if response is not None and isinstance(error, APIException) and response.status_code == 400:
        response.data = {"detail": "Some fields are not right; nothing was saved.", "fields": response.data}
    return response
