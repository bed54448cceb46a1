"""From an OpenAPI schema to what a page shows: sections, operations, rows of fields. Pure."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

METHODS = ("get", "post", "put", "patch", "delete")
JSON = "application/json"
# Fields of fields; what lies deeper is for programs to read.
DEEPEST = 2
# Bounds from here on are those of the database's numbers and tell a reader nothing.
ENDLESS = 2**31 - 1
_KINDS = {
    ("string", "date-time"): "date and time",
    ("string", "uuid"): "UUID",
    ("string", "uri"): "address",
    ("string", "date"): "date",
    ("string", None): "text",
    ("boolean", None): "true or false",
    ("object", None): "object",
    ("integer", None): "whole number",
    ("number", None): "number",
    ("null", None): "null",
}
_LIMITS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} of them",
    "maxItems": "at most {} of them",
}


@dataclass(frozen=True)
class Field:
    """One parameter or field. Fields within others come as `outer.inner`, those of lists as `outer[].inner`."""

    name: str
    kind: str
    is_required: bool
    limits: str
    help: str


@dataclass(frozen=True)
class Content:
    """What is sent or answered in one media type."""

    media: str
    kind: str
    fields: list[Field]


@dataclass(frozen=True)
class Answer:
    """One answer: its status, what that means, and what it carries."""

    status: str
    told: str
    contents: list[Content]


@dataclass(frozen=True)
class Operation:
    """One method of one address."""

    id: str
    method: str
    path: str
    summary: str
    description: str
    parameters: list[Field]
    bodies: list[Content]
    answers: list[Answer]
    refusals: list[Answer]
    curl: str


@dataclass(frozen=True)
class Section:
    """Operations that belong together."""

    name: str
    operations: list[Operation]


def sections_of(schema: dict[str, Any], *, site: str, order: Sequence[str] = ()) -> list[Section]:
    """Every operation by section: those named in `order` first, the others in alphabetical order behind them.

    `site` is the address of the site, for the examples.
    """
    reader = _Reader(schema, site)
    by_name: dict[str, list[Operation]] = {}
    for path, operations in schema["paths"].items():
        for method in METHODS:
            if method in operations:
                tag = operations[method]["tags"][0]
                by_name.setdefault(tag, []).append(reader.operation(path, method, operations[method]))
    rank = {name: number for number, name in enumerate(order)}
    names = sorted(by_name, key=lambda name: (rank.get(name, len(rank)), name))
    return [Section(name=name, operations=by_name[name]) for name in names]


class _Reader:
    def __init__(self, schema: dict[str, Any], site: str) -> None:
        self.components = schema.get("components", {}).get("schemas", {})
        self.site = site.rstrip("/")

    def operation(self, path: str, method: str, operation: dict[str, Any]) -> Operation:
        parameters = operation.get("parameters", [])
        sent = operation.get("requestBody", {}).get("content", {})
        answers = [self._answer(status, answer) for status, answer in operation["responses"].items()]
        return Operation(
            id=operation["operationId"],
            method=method.upper(),
            path=path,
            summary=_plain(operation.get("summary", "")),
            description=_plain(operation.get("description", "")),
            parameters=[self._parameter(parameter) for parameter in parameters],
            bodies=self._contents(sent),
            answers=_joined(answer for answer in answers if answer.status < "4"),
            refusals=sorted((row for row in answers if row.status >= "4"), key=lambda row: row.status),
            curl=self._curl(path, method, parameters, sent),
        )

    def _parameter(self, parameter: dict[str, Any]) -> Field:
        told = {"description": parameter.get("description", ""), **parameter["schema"]}
        return self._field(parameter["name"], told, is_required=parameter.get("required", False))

    def _answer(self, status: str, answer: dict[str, Any]) -> Answer:
        return Answer(status, answer.get("description", ""), self._contents(answer.get("content", {})))

    def _contents(self, content: dict[str, Any]) -> list[Content]:
        return [
            Content(media, self.kind(body["schema"]), list(self._fields(body["schema"])))
            for media, body in content.items()
        ]

    def _field(self, name: str, schema: dict[str, Any], *, is_required: bool) -> Field:
        whole = self.resolved(schema)
        limits = [
            text.format(whole[limit])
            for limit, text in _LIMITS.items()
            if limit in whole and abs(whole[limit]) < ENDLESS
        ]
        if whole.get("default") not in (None, "", [], {}):
            limits.append(f"{json.dumps(whole['default'], ensure_ascii=False)} unless given")
        return Field(
            name, self.kind(whole), is_required, ", ".join(limits), _plain(whole.get("description", ""))
        )

    def _fields(self, schema: dict[str, Any], before: str = "", depth: int = 1) -> Iterator[Field]:
        """The fields of an object, and right behind each the fields within it."""
        whole = self.resolved(schema)
        if whole.get("type") == "array":
            yield from self._fields(whole["items"], f"{before}[]", depth)
            return
        for name, inner in whole.get("properties", {}).items():
            full = f"{before}.{name}" if before else name
            yield self._field(full, inner, is_required=name in whole.get("required", []))
            if depth < DEEPEST:
                yield from self._fields(inner, full, depth + 1)

    def resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema with references followed and what stands beside them kept; of "this or null" the this."""
        if "$ref" in schema:
            schema = {**self.components[schema["$ref"].rpartition("/")[2]], **schema}
            del schema["$ref"]
            return self.resolved(schema)
        for several in ("allOf", "oneOf", "anyOf"):
            real = [part for part in schema.get(several, []) if part.get("type") != "null"]
            if len(real) == 1:
                beside = {key: value for key, value in schema.items() if key != several}
                null = {"null": True} if len(schema[several]) > 1 else {}
                return {**self.resolved(real[0]), **beside, **null}
        if isinstance(schema.get("type"), list):
            real_types = [name for name in schema["type"] if name != "null"]
            return {**schema, "type": real_types[0], "null": "null" in schema["type"]}
        return schema

    def kind(self, schema: dict[str, Any]) -> str:
        """A schema's type in words."""
        whole = self.resolved(schema)
        or_null = " or null" if whole.get("null") else ""
        if "const" in whole:
            return json.dumps(whole["const"]) + or_null
        if "enum" in whole:
            values = [str(value) for value in whole["enum"] if value not in (None, "")]
            return f"one of {', '.join(values)}{or_null}"
        if whole.get("type") == "array":
            return f"list of {self.kind(whole['items'])}{or_null}"
        several = whole.get("oneOf") or whole.get("anyOf")
        if several:
            return " or ".join(self.kind(part) for part in several)
        name, form = whole.get("type"), whole.get("format")
        return (_KINDS.get((name, form)) or _KINDS.get((name, None), "anything")) + or_null

    def _curl(self, path: str, method: str, parameters: list[dict[str, Any]], sent: dict[str, Any]) -> str:
        for parameter in parameters:
            if parameter["in"] == "path":
                path = path.replace(
                    f"{{{parameter['name']}}}", _in_path(parameter["name"], parameter["schema"])
                )
        needed = [row for row in parameters if row["in"] == "query" and row.get("required")]
        query = "&".join(f"{row['name']}={_in_query(self.example(row['schema']))}" for row in needed)
        verb = "" if method == "get" else f" -X {method.upper()}"
        lines = [
            f"curl{verb} '{self.site}{path}{'?' if query else ''}{query}'",
            "-H 'Authorization: Bearer rl_...'",
        ]
        if JSON in sent:
            body = json.dumps(self.example(sent[JSON]["schema"]), ensure_ascii=False)
            lines += [f"-H 'Content-Type: {JSON}'", f"-d {shlex.quote(body)}"]
        return " \\\n  ".join(lines)

    def example(self, schema: dict[str, Any], name: str = "") -> Any:
        """A value of that schema: of an object the required fields, and all of them when none is required."""
        whole = self.resolved(schema)
        if "example" in whole:
            return whole["example"]
        if "enum" in whole:
            return whole["enum"][0]
        if whole.get("default") not in (None, ""):
            return whole["default"]
        if "properties" in whole:
            names = whole.get("required") or list(whole["properties"])
            return {inner: self.example(whole["properties"][inner], inner) for inner in names}
        if whole.get("type") == "array":
            return [self.example(whole["items"], name)]
        several = whole.get("oneOf") or whole.get("anyOf")
        if several:
            return self.example(several[0], name)
        if whole.get("type") in ("integer", "number"):
            return whole.get("minimum", 1)
        plain = {"boolean": True, "object": {}, "string": _text(whole.get("format"))}
        return plain.get(whole.get("type", ""))


def _plain(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"“\1”", text)


def _joined(answers: Iterable[Answer]) -> list[Answer]:
    """Answers that carry the same stand together."""
    joined: list[Answer] = []
    for answer in answers:
        if joined and joined[-1].contents == answer.contents:
            joined[-1] = replace(joined[-1], status=f"{joined[-1].status} or {answer.status}")
        else:
            joined.append(answer)
    return joined


def _text(form: str | None) -> str:
    return {
        "uuid": "0f8b6d0e-3c5a-4d3e-9a56-6c1a2b3c4d5e",
        "date-time": "2027-01-31T12:00:00Z",
        "date": "2027-01-31",
    }.get(form or "", "...")


def _in_path(name: str, schema: dict[str, Any]) -> str:
    if schema.get("format") == "uuid":
        return _text("uuid")
    return "1" if schema.get("type") == "integer" else name.upper()


def _in_query(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
