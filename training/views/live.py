"""A part of a page that renews itself while there is something to see.

The server renders it; htmx asks for it every two seconds and says which rendering it has. An unchanged one is
answered with 204, which htmx leaves alone: focus stays where it is and nothing is read out twice.
"""

import hashlib
import re
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

# The token in a form is masked anew in each rendering and says nothing about a change.
_CSRF_VALUE = re.compile(r'name="csrfmiddlewaretoken" value="[^"]*"')


def live_part(
    request: HttpRequest, template: str, context: dict[str, Any], *, address: str, is_over: bool
) -> SafeString:
    """The part with what htmx needs to renew it from `address`; without that when all is over."""
    inner = render_to_string(template, context, request)
    seen = hashlib.sha256(_CSRF_VALUE.sub("", inner).encode()).hexdigest()[:16]
    live = {"inner": inner, "address": address, "seen": seen, "is_over": is_over}
    return SafeString(render_to_string("training/live.html", live))


def live_answer(request: HttpRequest, part: str) -> HttpResponse:
    """204 when the page has this very rendering already."""
    seen = request.GET.get("seen", "")
    if seen and f"seen={seen}" in part:
        return HttpResponse(status=204)
    return HttpResponse(part)
