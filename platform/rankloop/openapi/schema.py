"""How the views are described: summaries from docstrings, sections by address, the refusals that all have in common."""

import re
from functools import lru_cache
from typing import Any

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema

# The sections of the page in their order, each with the addresses in it: the first word after /api/v1/ or after the
# project. An address that stands nowhere here makes a section of its own.
SECTIONS = {
    "Account": ("me", "tokens", "join"),
    "Projects": ("projects", "settings", "pause", "resume", "members", "invitations", "preferences"),
    "Guideline": ("guideline", "guidelines", "preview"),
    "Annotating": ("claim", "progress", "assignments", "my-judgments"),
    "Review": ("answers", "reports"),
    "Prompts": ("prompts",),
    "Rounds": ("rounds", "contestants"),
    "Runs": ("runs", "jobs", "methods"),
    "Checkpoints": ("checkpoints", "datasets", "evaluations"),
    "Compare": ("compare",),
    "Statistics": ("statistics",),
}
_SECTION_OF = {word: section for section, words in SECTIONS.items() for word in words}

PROBLEM = {
    "type": "object",
    "description": "Why a request was refused, and what to do about it.",
    "properties": {
        "detail": {"type": "string"},
        "fields": {
            "type": "object",
            "additionalProperties": {},
            "description": "What is wrong with which field.",
        },
    },
    "required": ["detail"],
}
_REFUSALS = {
    "400": "Something sent is not right; nothing was changed.",
    "401": "The token is unknown or revoked.",
    "403": "Nobody is signed in, or the CSRF token is missing.",
    "404": "There is no such thing, or it is not open to you.",
}


class Schema(AutoSchema):
    """A view's docstring, or that of its method, says what it does: the first sentence is the summary."""

    def get_summary(self) -> str | None:
        return self._told()[0] or None

    def get_description(self) -> str:
        return self._told()[1]

    def get_tags(self) -> list[str]:
        word = self._tokenize_path()[0]
        return [_SECTION_OF.get(word, word.capitalize())]

    def _told(self) -> tuple[str, str]:
        first, _, rest = super().get_description().partition("\n\n")
        summary, _, more = re.sub(r"\s+", " ", first).partition(". ")
        return summary.rstrip("."), "\n\n".join(part for part in (more, rest) if part)


class TokenScheme(OpenApiAuthenticationExtension):
    target_class = "rankloop.accounts.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "rl_...",
            "description": "A token from your account page: `Authorization: Bearer rl_...`.",
        }


class SessionScheme(OpenApiAuthenticationExtension):
    target_class = "rest_framework.authentication.SessionAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "cookie",
            "name": settings.SESSION_COOKIE_NAME,
            "description": "A signed-in browser. What changes something also needs the header `X-CSRFToken`.",
        }


def add_refusals(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Give every operation the refusals it may answer with, and the schema the form they have."""
    result.setdefault("components", {}).setdefault("schemas", {})["Problem"] = PROBLEM
    for operations in result["paths"].values():
        for operation in operations.values():
            places = {parameter["in"] for parameter in operation.get("parameters", [])}
            may_be = {"401", "403"}
            may_be |= {"404"} if "path" in places else set()
            may_be |= {"400"} if "query" in places or "requestBody" in operation else set()
            for code in sorted(may_be - set(operation["responses"])):
                operation["responses"][code] = {
                    "description": _REFUSALS[code],
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
    return result


@lru_cache(maxsize=1)
def built_schema() -> dict[str, Any]:
    """The whole schema. Built once in a process: it follows from the code alone."""
    return SchemaGenerator().get_schema(public=True)
