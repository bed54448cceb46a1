"""Prompts by API: listed and searched, written one at a time, imported by the file."""

import json

import pytest

from annotation.models import Prompt
from annotation.services.members import open_project
from annotation.services.prompts import add_prompt
from rankloop.audit.models import AuditEvent
from tests.api import Caller, all_pages
from tests.cast import Cast, add_prompts, assemble

pytestmark = pytest.mark.django_db

PROMPTS = "/api/v1/projects/tea/prompts"
BOTH_WAYS = pytest.mark.parametrize("by", ["token", "session"])


@pytest.fixture
def cast() -> Cast:
    return assemble()


@pytest.fixture
def researcher(cast) -> Caller:
    return Caller(cast.researcher)


def test_prompts_are_listed_newest_first_and_page_by_page(cast, researcher):
    made = add_prompts(cast, 5)
    rows = all_pages(researcher, PROMPTS, page_size=2)
    assert [row["id"] for row in rows] == [prompt.pk for prompt in reversed(made)]
    assert set(rows[0]) == {"id", "messages", "split", "tags", "source", "created_at"}
    assert rows[0]["messages"] == [{"role": "user", "content": "How do I brew tea number 4?"}]


def test_pages_stay_right_while_prompts_are_added(cast, researcher):
    made = add_prompts(cast, 4)
    first = researcher.get(PROMPTS, page_size=2).json()
    add_prompt(project=cast.project, user=cast.researcher, prompt="A new one?")
    second = researcher.get(first["next"]).json()
    seen = [row["id"] for row in first["results"] + second["results"]]
    assert seen == [prompt.pk for prompt in reversed(made)]


def test_prompts_are_filtered_by_text_split_and_tag(cast, researcher):
    add_prompts(cast, 12)
    add_prompt(project=cast.project, user=cast.researcher, prompt="What is OOLONG?", tags=["leaf", "a,b"])

    def found(**query: str) -> int:
        return len(all_pages(researcher, PROMPTS, page_size=3, **query))

    assert (found(q="oolong"), found(q="TEA NUMBER 1"), found(q="user")) == (1, 3, 0)
    assert (found(tag="leaf"), found(tag="a,b"), found(tag="lea"), found(tag="leaf", q="number")) == (
        1,
        1,
        0,
        0,
    )
    assert found(split="train") + found(split="held_out") == 13
    assert found(split="train") == Prompt.objects.filter(split="train").count() > 0


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"text": "x"}, "Known are q, split, tag, cursor, page_size"),
        ({"ordering": "id"}, "Unknown parameter 'ordering'"),
        ({"split": "test"}, "split"),
        ({"q": "a\x00"}, "q"),
    ],
)
def test_a_filter_that_is_not_allowed_is_refused(researcher, query, said):
    answer = researcher.get(PROMPTS, **query)
    assert answer.status_code == 400
    assert said in json.dumps(answer.json())


@BOTH_WAYS
def test_one_prompt_is_added_once(cast, by):
    caller = Caller(cast.researcher, by=by)
    body = {"prompt": "What is oolong?", "tags": ["leaf", "b"], "source": "a friend"}
    made = caller.post(PROMPTS, body)
    assert made.status_code == 201
    row = Prompt.objects.get()
    assert (row.tags, row.source, row.created_by) == (["b", "leaf"], "a friend", cast.researcher)
    assert caller.get(f"{PROMPTS}/{row.pk}").json() == made.json()
    again = caller.post(PROMPTS, {**body, "tags": ["other"]})
    assert (again.status_code, again.json()) == (200, made.json())
    assert AuditEvent.objects.filter(action="prompt added").count() == 1


def test_a_conversation_is_added_as_it_is(researcher):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "<script>alert(1)</script>"},
    ]
    assert researcher.post(PROMPTS, {"prompt": messages}).json()["messages"] == messages


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [{"role": "assistant", "content": "x"}]}, "prompt"),
        ({"prompt": [{"role": "user", "content": "x", "more": 1}]}, "prompt"),
        ({"prompt": "half \ud83d a character"}, "prompt"),
        ({"prompt": "a NUL \x00"}, "prompt"),
        ({"prompt": "tea " * 2000}, "prompt"),
        ({"prompt": "x", "tags": "leaf"}, "tags"),
        ({"prompt": "x", "tags": ["y" * 61]}, "tags"),
        ({"prompt": "x", "tags": ["\x00"]}, "tags"),
        ({"prompt": "x", "source": "y" * 201}, "source"),
    ],
)
def test_a_prompt_that_is_not_right_is_refused_and_the_field_named(researcher, body, field):
    answer = researcher.post(PROMPTS, body)
    assert answer.status_code == 400
    assert field in answer.json()["fields"]
    assert not Prompt.objects.exists()


def test_a_field_that_is_not_known_is_refused(researcher):
    answer = researcher.post(PROMPTS, {"prompt": "x", "split": "train"})
    assert answer.status_code == 400
    assert answer.json()["detail"] == "Unknown field 'split'. Known are prompt, tags, source."


# --- importing ---

JSONL = '{"prompt": "One?"}\n{"prompt": "Two?", "tags": ["leaf"], "split": "held_out"}\n'
CSV = 'prompt,tags,source\n"One, or two?",leaf;b,here\nThree?,,\n'
IMPORT = f"{PROMPTS}/import"


@BOTH_WAYS
def test_a_file_is_imported_as_json_and_again_adds_nothing(cast, by):
    caller = Caller(cast.researcher, by=by)
    sent = {"file": "teas.jsonl", "content": JSONL}
    assert caller.post(IMPORT, sent).json() == {"rows": 2, "added": 2}
    assert caller.post(IMPORT, sent).json() == {"rows": 2, "added": 0}
    two = Prompt.objects.get(tags=["leaf"])
    assert (two.split, two.created_by) == ("held_out", cast.researcher)
    first, _ = AuditEvent.objects.filter(action="prompts imported").order_by("pk")
    assert first.details == {"file": "teas.jsonl", "rows": 2, "added": 2}


@BOTH_WAYS
@pytest.mark.parametrize(
    ("content_type", "content"),
    [("application/jsonl", JSONL), ("text/csv", CSV), ("text/csv; charset=utf-8", "\ufeff" + CSV)],
)
def test_a_file_is_imported_as_it_is(cast, by, content_type, content):
    answer = Caller(cast.researcher, by=by).post(IMPORT, content.encode(), content_type=content_type)
    assert (answer.status_code, answer.json()) == (200, {"rows": 2, "added": 2})


def test_a_csv_file_is_known_by_its_name(researcher):
    assert researcher.post(IMPORT, {"file": "t.CSV", "content": CSV}).json() == {"rows": 2, "added": 2}
    assert researcher.post(IMPORT, {"file": "t.jsonl", "content": CSV}).status_code == 400


def test_a_file_with_one_bad_line_is_refused_as_a_whole_and_every_problem_told(researcher):
    content = '{"prompt": "Fine?"}\n{"prompt": ""}\nnot json\n{"prompt": "x", "split": "train"}\n'
    answer = researcher.post(IMPORT, {"file": "teas.jsonl", "content": content})
    assert answer.status_code == 400
    told = answer.json()
    assert told["detail"] == "3 problems were found, and nothing was imported."
    assert [problem.split(":")[0] for problem in told["problems"]] == [
        "teas.jsonl, line 2, prompt",
        "teas.jsonl, line 3, JSON",
        "teas.jsonl, line 4, split",
    ]
    assert not Prompt.objects.exists()


def test_of_very_many_problems_the_first_are_told(researcher):
    answer = researcher.post(IMPORT, b"x\n" * 5000, content_type="application/jsonl")
    assert answer.json()["detail"].startswith("5000 problems")
    assert len(answer.json()["problems"]) == 200


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ({}, "application/json", 400),
        ({"file": "x.csv"}, "application/json", 400),
        ({"file": "x.csv", "content": ""}, "application/json", 400),
        ({"file": "x.csv", "content": 5}, "application/json", 400),
        (b"", "text/csv", 400),
        (b"\xff\xfe", "text/csv", 400),
        (b"question\nx\n", "text/csv", 400),
        (b"PK", "application/zip", 415),
    ],
)
def test_what_is_no_file_of_prompts_is_refused(researcher, body, content_type, status):
    answer = researcher.post(IMPORT, body, content_type=content_type)
    assert answer.status_code == status
    assert answer.json()["detail"]
    assert not Prompt.objects.exists()


def test_the_tags_in_use_are_listed(cast, researcher):
    assert researcher.get(f"{PROMPTS}/tags").json() == []
    for text, tags in (("One?", ["b", "a"]), ("Two?", ["b"])):
        add_prompt(project=cast.project, user=cast.researcher, prompt=text, tags=tags)
    assert researcher.get(f"{PROMPTS}/tags").json() == ["a", "b"]


# --- who may ---


@BOTH_WAYS
@pytest.mark.parametrize("who", ["anna", "reviewer", "stranger"])
def test_prompts_are_not_there_for_others_and_nothing_is_added(cast, who, by):
    (prompt,) = add_prompts(cast, 1)
    caller = Caller(getattr(cast, who), by=by)
    answers = [caller.get(address) for address in (PROMPTS, f"{PROMPTS}/{prompt.pk}", f"{PROMPTS}/tags")]
    answers += [caller.post(PROMPTS, {"prompt": "x"}), caller.post(IMPORT, {"file": "x", "content": JSONL})]
    missing = caller.get("/api/v1/projects/nowhere/prompts")
    for answer in [*answers, missing]:
        assert (answer.status_code, answer.json()) == (404, missing.json())
    assert Prompt.objects.count() == 1


def test_an_admin_may_what_a_researcher_may(cast):
    assert Caller(cast.admin).post(PROMPTS, {"prompt": "x"}).status_code == 201


def test_a_prompt_of_another_project_is_not_found_through_ones_own(cast):
    (prompt,) = add_prompts(cast, 1)
    open_project(slug="coffee", name="Coffee", user=cast.stranger)
    caller = Caller(cast.stranger)
    assert caller.get(f"/api/v1/projects/coffee/prompts/{prompt.pk}").status_code == 404
    assert caller.get("/api/v1/projects/coffee/prompts").json()["results"] == []
    assert caller.get("/api/v1/projects/coffee/prompts/99999999999999999999999").status_code == 404


def test_a_session_without_the_csrf_token_adds_nothing(cast):
    forged = Caller(cast.researcher, by="session", csrf=False)
    for body, content_type in (({"prompt": "x"}, "application/json"), (CSV.encode(), "text/csv")):
        for address in (PROMPTS, IMPORT):
            assert forged.post(address, body, content_type=content_type).status_code == 403
    assert not Prompt.objects.exists()
