"""Reading a request's body. Apart from rankloop.api, because DRF imports its parsers before its views."""

from collections.abc import Mapping
from typing import Any

from rest_framework import status
from rest_framework.exceptions import APIException
from rest_framework.parsers import JSONParser


class TooLarge(APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = "The request is too large."


MEGABYTE = 1 << 20
MOST_IMPORTED = 50 * MEGABYTE  # of a file that is imported


def refuse_too_large(context: Mapping[str, Any] | None) -> None:
    """Raise TooLarge for a body of more bytes than the view's `most_bytes`, one megabyte unless it says otherwise."""
    context = context or {}
    most = getattr(context.get("view"), "most_bytes", MEGABYTE)
    if int(context["request"].META.get("CONTENT_LENGTH") or 0) > most:
        raise TooLarge(f"The request is larger than {most // MEGABYTE} MB. Send it in parts.")


class JSONBody(JSONParser):
    """JSON of a bounded size."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        refuse_too_large(parser_context)
        return super().parse(stream, media_type, parser_context)
