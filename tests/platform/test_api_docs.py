"""The API's description is complete, and its page shows it. Then what all addresses have in common."""

import json
import re
from collections import Counter
from collections.abc import Iterator

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import EndpointEnumerator
from drf_spectacular.validation import validate_schema
from rest_framework.exceptions import Throttled

from rankloop.accounts.models import ApiToken
from rankloop.api import exception_handler
from rankloop.openapi.reading import sections_of
from rankloop.openapi.schema import built_schema
from tests.api import Caller, all_pages
from tests.cast import Cast, add_prompts, assemble

ENDPOINTS = [(method, path, view.cls) for path, _, method, view in EndpointEnumerator().get_api_endpoints()]
LISTS = [
    path for method, path, view in ENDPOINTS if method == "GET" and hasattr(view, "pagination_class")
]  # fmt: skip


@pytest.fixture
def cast(db) -> Cast:
    return assemble()


def test_every_address_below_api_is_one_of_the_endpoints_that_are_checked():
    def addresses(patterns, before: str = "") -> Iterator[str]:
        for pattern in patterns:
            if isinstance(pattern, URLResolver):
                yield from addresses(pattern.url_patterns, before + str(pattern.pattern))
            elif isinstance(pattern, URLPattern) and (before + str(pattern.pattern)).startswith("api/"):
                yield "/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", before + str(pattern.pattern))

    pages = {"/api/docs"}
    assert set(addresses(get_resolver().url_patterns)) - pages == {path for _, path, _ in ENDPOINTS}


@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in ENDPOINTS])
def test_every_endpoint_says_what_it_does_what_it_takes_and_what_it_answers(method, path):
    operation = built_schema()["paths"][path][method.lower()]
    assert operation["summary"]
    answers = operation["responses"]
    good = {code: answer for code, answer in answers.items() if code < "4"}
    assert good
    for code, answer in good.items():
        if code == "204":
            assert "content" not in answer
        else:
            assert all(content["schema"] for content in answer["content"].values()), code
    assert {"401", "403"} <= set(answers)
    assert "404" in answers or "{" not in path
    for parameter in operation.get("parameters", []):
        assert parameter["schema"].get("type") or parameter["schema"].get("enum"), parameter


def test_the_description_is_valid_and_was_made_without_a_warning():
    built_schema.cache_clear()
    schema = built_schema()
    validate_schema(schema)
    assert schema["openapi"].startswith("3.1")
    told = [*GENERATOR_STATS._warn_cache, *GENERATOR_STATS._error_cache]
    assert told == []


def test_no_two_endpoints_say_the_same():
    said = Counter(
        operation["summary"]
        for operations in built_schema()["paths"].values()
        for operation in operations.values()
    )
    assert [summary for summary, times in said.items() if times > 1] == []


def test_both_ways_to_sign_in_are_described():
    schemes = built_schema()["components"]["securitySchemes"]
    assert (schemes["token"]["scheme"], schemes["session"]["in"]) == ("bearer", "cookie")
    assert "Authorization: Bearer rl_" in built_schema()["info"]["description"]
    for operations in built_schema()["paths"].values():
        for operation in operations.values():
            assert {"token": []} in operation["security"]
            assert {"session": []} in operation["security"]


def test_the_description_is_given_to_whoever_is_signed_in(cast):
    for by in ("token", "session"):
        given = Caller(cast.stranger, by=by).get("/api/schema.json")
        assert given.status_code == 200
        assert "/api/v1/projects/{slug}/prompts" in given.json()["paths"]
    assert Caller(None).get("/api/schema.json").status_code == 403


def test_the_page_shows_every_endpoint_to_whoever_is_signed_in(cast):
    client = Client()
    assert client.get("/api/docs").url == "/sign-in/?next=/api/docs"
    client.force_login(cast.stranger)
    page = client.get("/api/docs").content.decode()
    for method, path, _ in ENDPOINTS:
        assert f"Example of {method} {path}" in page
    assert "/account/" in page
    assert "<script" not in page
    assert not re.search(r"<style|\sstyle=", page)


def test_ids_on_the_page_are_there_once(cast):
    client = Client()
    client.force_login(cast.anna)
    ids = re.findall(r'\sid="([^"]+)"', client.get("/api/docs").content.decode())
    assert len(ids) == len(set(ids))


# --- from a schema to rows ---

SCHEMA = {
    "components": {
        "schemas": {
            "Tea": {
                "type": "object",
                "required": ["kind"],
                "properties": {
                    "kind": {"type": "string", "enum": ["green", "black"], "description": "Of leaf."},
                    "minutes": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
                    "seen": {"type": ["string", "null"], "format": "date-time"},
                    "cups": {"type": "array", "items": {"$ref": "#/components/schemas/Cup"}, "maxItems": 4},
                    "pot": {"oneOf": [{"$ref": "#/components/schemas/Cup"}, {"type": "null"}]},
                },
            },
            "Cup": {"type": "object", "properties": {"size": {"type": "integer", "maximum": 2**31 - 1}}},
        }
    },
    "paths": {
        "/teas/{number}": {
            "post": {
                "operationId": "brew",
                "tags": ["teas"],
                "summary": "Brew it",
                "parameters": [
                    {"in": "path", "name": "number", "required": True, "schema": {"type": "integer"}},
                    {"in": "query", "name": "hot", "required": True, "schema": {"type": "boolean"}},
                    {"in": "query", "name": "q", "schema": {"type": "string"}, "description": "A word."},
                ],
                "requestBody": {
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Tea"}}}
                },
                "responses": {
                    "409": {"description": "Cold."},
                    "200": {"content": {"application/json": {"schema": {"type": "string"}}}},
                    "201": {"content": {"application/json": {"schema": {"type": "string"}}}},
                    "400": {"description": "No."},
                },
            }
        },
        "/milk": {"get": {"operationId": "milk", "tags": ["a"], "responses": {"204": {"description": "None."}}}},
    },
}  # fmt: skip


def test_a_schema_is_read_into_rows():
    teas, others = sections_of(SCHEMA, site="http://here/", order=["teas"])
    assert (teas.name, others.name) == ("teas", "a")
    (brew,) = teas.operations
    (body,) = brew.bodies
    assert [(field.name, field.kind, field.is_required, field.limits) for field in body.fields] == [
        ("kind", "one of green, black", True, ""),
        ("minutes", "whole number", False, "at least 1, at most 9, 3 unless given"),
        ("seen", "date and time or null", False, ""),
        ("cups", "list of object", False, "at most 4 of them"),
        ("cups[].size", "whole number", False, ""),
        ("pot", "object or null", False, ""),
        ("pot.size", "whole number", False, ""),
    ]
    assert body.fields[0].help == "Of leaf."
    assert [(field.name, field.help) for field in brew.parameters][-1] == ("q", "A word.")
    assert [answer.status for answer in brew.answers] == ["200 or 201"]
    assert [answer.status for answer in brew.refusals] == ["400", "409"]
    assert brew.curl.splitlines() == [
        "curl -X POST 'http://here/teas/1?hot=true' \\",
        "  -H 'Authorization: Bearer rl_...' \\",
        "  -H 'Content-Type: application/json' \\",
        """  -d '{"kind": "green"}'""",
    ]


# --- what all addresses have in common ---


def is_told_in_json(answer, status: int) -> None:
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/json"
    assert set(answer.json()) <= {"detail", "fields"}
    assert answer.json()["detail"]


@pytest.mark.parametrize("method", ["get", "post", "put", "delete"])
@pytest.mark.parametrize(
    "path", ["/api/", "/api/v1/", "/api/v2/me", "/api/v1/me/", "/api/v1/projects/tea/rounds/x"]
)
def test_an_unknown_address_is_told_in_json(cast, method, path):
    for client in (Client(enforce_csrf_checks=True), Caller(cast.anna, by="session", csrf=False).client):
        is_told_in_json(getattr(client, method)(path), 404)


def test_whatever_is_refused_is_told_in_json(cast):
    caller = Caller(cast.researcher)
    prompts = "/api/v1/projects/tea/prompts"
    is_told_in_json(caller.post(prompts, "{"), 400)
    is_told_in_json(caller.post(prompts, "[" * 100_000), 400)
    is_told_in_json(caller.post(prompts, "[]"), 400)
    is_told_in_json(caller.post(prompts, "x=y", content_type="application/x-www-form-urlencoded"), 415)
    is_told_in_json(caller.post(prompts, json.dumps("x" * 2_000_000)), 413)
    is_told_in_json(caller.put(prompts, {}), 405)
    is_told_in_json(caller.client.get(prompts, headers={**caller.headers, "Accept": "text/html"}), 406)
    is_told_in_json(Caller(cast.stranger).get(prompts), 404)
    is_told_in_json(Caller(None).get(prompts), 403)
    throttled = exception_handler(Throttled(wait=9), {})
    assert (throttled.status_code, throttled["Retry-After"], set(throttled.data)) == (429, "9", {"detail"})


def test_a_bad_token_is_answered_with_401_and_what_is_wanted(cast):
    answer = Client().get("/api/v1/me", headers={"Authorization": "Bearer rl_wrong"})
    is_told_in_json(answer, 401)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_session_changes_nothing_without_the_csrf_token(cast):
    forged = Caller(cast.anna, by="session", csrf=False)
    assert forged.get("/api/v1/tokens").status_code == 200
    is_told_in_json(forged.post("/api/v1/tokens", {"name": "stolen"}), 403)
    assert not ApiToken.objects.exists()
    assert Caller(cast.anna, by="session").post("/api/v1/tokens", {"name": "mine"}).status_code == 201


def test_lists_refuse_a_parameter_they_do_not_know_and_name_those_they_do(cast):
    prompts = "/api/v1/projects/tea/prompts"
    answer = Caller(cast.researcher).get(prompts, tags="x")
    is_told_in_json(answer, 400)
    assert answer.json()["detail"] == "Unknown parameter 'tags'. Known are q, split, tag, cursor, page_size."


def lists_of_a_project() -> list[str]:
    """Every list that needs no more than a project."""
    found = [path.replace("{slug}", "tea") for path in LISTS]
    return [path for path in found if "{" not in path]


@pytest.mark.parametrize("path", lists_of_a_project())
def test_no_list_passes_over_a_parameter_it_does_not_know(cast, path):
    answer = Caller(cast.admin).get(path, surely_no_filter="x")
    assert answer.status_code == 400
    assert "surely_no_filter" in answer.json()["detail"]


def test_a_page_can_not_be_larger_than_allowed_nor_begin_where_nothing_is(cast):
    add_prompts(cast, 3)
    caller = Caller(cast.researcher)
    prompts = "/api/v1/projects/tea/prompts"
    for size in ("0", "-1", "201", "many", "", "9" * 5000, "1.5"):
        is_told_in_json(caller.get(prompts, page_size=size), 400)
    for cursor in ("x", "cD14", "bz0tMQ==", "cD0lMDA=", "ÿ"):
        is_told_in_json(caller.get(prompts, cursor=cursor), 404)
    assert len(all_pages(caller, prompts, page_size=2)) == 3
    assert len(caller.get(prompts, page_size=200).json()["results"]) == 3


# --- my account ---


def test_who_i_am(cast):
    cast.anna.first_name, cast.anna.last_name = "Anna", "Lee"
    cast.anna.save()
    me = {"username": "anna", "name": "Anna Lee", "is_staff": False, "is_simulated": False}
    assert Caller(cast.anna).get("/api/v1/me").json() == me
    assert Caller(cast.anna, by="session").get("/api/v1/me").json() == me


@pytest.mark.parametrize("by", ["token", "session"])
def test_a_token_is_made_shown_once_and_revoked(cast, by):
    caller = Caller(cast.anna, by=by)
    made = caller.post("/api/v1/tokens", {"name": " import script "})
    assert made.status_code == 201
    assert made.json()["name"] == "import script"
    token = made.json()["token"]
    program = Client(headers={"Authorization": f"Bearer {token}"})
    assert program.get("/api/v1/me").json()["username"] == "anna"
    listed = caller.get("/api/v1/tokens")
    assert token not in listed.content.decode()
    assert listed.json()["results"][0]["id"] == made.json()["id"]

    mine = f"/api/v1/tokens/{made.json()['id']}"
    assert Caller(cast.ben).delete(mine).status_code == 404
    assert program.get("/api/v1/me").status_code == 200
    assert caller.delete(mine).status_code == 204
    assert program.get("/api/v1/me").status_code == 401
    assert caller.delete(mine).status_code == 404
    assert caller.get("/api/v1/tokens").json()["results"][0]["revoked_at"]


def test_my_tokens_are_listed_in_pages_and_nobody_elses(cast):
    caller = Caller(cast.anna)
    for number in range(4):
        assert caller.post("/api/v1/tokens", {"name": f"number {number}"}).status_code == 201
    Caller(cast.ben)
    names = [row["name"] for row in all_pages(caller, "/api/v1/tokens", page_size=2)]
    assert names == ["number 3", "number 2", "number 1", "number 0", "a test"]
    assert caller.get("/api/v1/tokens", user="ben").status_code == 400


@pytest.mark.parametrize(
    "body", [{}, {"name": ""}, {"name": "x" * 81}, {"name": "a\x00b"}, {"name": "x", "user": 1}, [], "x"]
)
def test_a_token_without_a_proper_name_is_not_made(cast, body):
    caller = Caller(cast.anna, by="session")
    is_told_in_json(caller.post("/api/v1/tokens", json.dumps(body)), 400)
    assert not ApiToken.objects.exists()
