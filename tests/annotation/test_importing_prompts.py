"""Importing prompts: all or nothing, repeatable, and every error names file, line, field and reason."""

import json

import pytest
from django.core.management import CommandError, call_command
from hypothesis import given
from hypothesis import strategies as st

from annotation.importing import MOST_ERRORS, FieldError, ImportErrors, checked_messages, read_rows
from annotation.models import Project, Prompt
from annotation.services.prompts import add_prompt, import_prompts
from rankloop.audit.models import AuditEvent
from tests.cast import Cast, assemble


@pytest.fixture
def cast(db) -> Cast:
    return assemble()


def jsonl(*rows) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def bring_in(cast: Cast, content: bytes | str, file: str = "tea.jsonl"):
    content = content.encode() if isinstance(content, str) else content
    return import_prompts(project=cast.project, content=content, file=file, user=cast.researcher)


def problems(content: bytes | str, file: str = "tea.jsonl") -> list[str]:
    with pytest.raises(ImportErrors) as caught:
        read_rows(content.encode() if isinstance(content, str) else content, file=file)
    return caught.value.problems


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["role", "content"]), inner),
)

# --- what is read ---


def test_a_string_and_a_message_list_are_both_prompts():
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Green tea?"},
        {"role": "assistant", "content": "80 °C."},
        {"role": "user", "content": "And black?"},
    ]
    first, second = read_rows(
        jsonl({"prompt": "How hot?", "tags": ["b", "a", "b"], "source": "notes"}, {"prompt": talk}),
        file="a.jsonl",
    )
    assert first.messages == [{"role": "user", "content": "How hot?"}]
    assert (first.tags, first.source, first.held_out) == (["a", "b"], "notes", False)
    assert second.messages == talk


def test_csv_holds_texts_message_lists_tags_and_quoted_lines():
    content = (
        "prompt,tags,source,split\n"
        '"How hot, and how long?\nFor green tea.",green; short ;,notes,held_out\n'
        '"[{""role"": ""user"", ""content"": ""Oolong?""}]",,,\n'
        "[sic] is what kind of word?,,,\n"
        "\n"
        "Short row\n"
    )
    assert read_rows(b"prompt,,\nWhy?,,\n", file="spreadsheet.csv")[0].messages[0]["content"] == "Why?"
    rows = read_rows(content.encode(), file="tea.CSV")
    assert [row.messages[0]["content"] for row in rows] == [
        "How hot, and how long?\nFor green tea.",
        "Oolong?",
        "[sic] is what kind of word?",
        "Short row",
    ]
    assert (rows[0].tags, rows[0].source, rows[0].held_out) == (["green", "short"], "notes", True)
    assert rows[0].line == 3  # where the record ends
    assert rows[1:] == [row for row in rows[1:] if row.tags == [] and not row.held_out]


@pytest.mark.parametrize("file", ["tea.jsonl", "tea.csv"])
def test_a_byte_order_mark_is_passed_over(file):
    content = "prompt\nWhy?\n" if file.endswith("csv") else '{"prompt": "Why?"}\n'
    assert read_rows(b"\xef\xbb\xbf" + content.encode(), file=file)[0].messages[0]["content"] == "Why?"


def test_empty_lines_windows_line_ends_and_unicode_line_separators_are_no_trouble():
    content = '\r\n{"prompt": "One\u2028two"}\r\n\r\n{"prompt": "Three"}'
    rows = read_rows(content.encode(), file="a.jsonl")
    assert [(row.line, row.messages[0]["content"]) for row in rows] == [(2, "One\u2028two"), (4, "Three")]


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1).filter(
            str.strip
        ),
        min_size=1,
    )
)
def test_every_text_comes_back_from_a_jsonl_file_as_it_was(texts):
    content = "\n".join(json.dumps({"prompt": text}, ensure_ascii=False) for text in texts)
    rows = read_rows(content.encode(), file="a.jsonl")
    assert [row.messages[0]["content"] for row in rows] == texts


# --- what is refused ---


@pytest.mark.parametrize("content", [b"", b"  \n\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("file", ["tea.jsonl", "tea.csv"])
def test_an_empty_file_is_refused(content, file):
    assert problems(content, file) == [f"{file}: the file is empty."]


def test_a_file_that_is_not_utf_8_names_the_byte():
    assert problems("prompt\ncaf\xe9\n".encode("latin-1")) == [
        "tea.jsonl: byte 10: not UTF-8. Save the file as UTF-8."
    ]


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ('{"prompt": "Why?"', "JSON", "Expecting ',' delimiter"),
        ("[" * 100_000, "JSON", "nested too deeply"),
        ("42", "row", "found int"),
        ('"Why?"', "row", "found str"),
        ("null", "row", "found NoneType"),
        ("{}", "prompt", "missing"),
        ('{"prompt": ""}', "prompt", "empty"),
        ('{"prompt": " \\n"}', "prompt", "empty"),
        ('{"prompt": null}', "prompt", "expected a text"),
        ('{"prompt": []}', "prompt", "non-empty list"),
        ('{"prompt": ["Why?"]}', "prompt", "message 1"),
        ('{"prompt": [{"role": "user"}]}', "prompt", "message 1"),
        ('{"prompt": [{"role": "user", "content": "a", "name": "b"}]}', "prompt", "message 1"),
        ('{"prompt": [{"role": "tool", "content": "a"}]}', "prompt", "unknown role 'tool'"),
        ('{"prompt": [{"role": ["user"], "content": "a"}]}', "prompt", "unknown role"),
        ('{"prompt": [{"role": "user", "content": 5}]}', "prompt", "not a text"),
        ('{"prompt": [{"role": "assistant", "content": "a"}]}', "prompt", "must be the user's"),
        (
            '{"prompt": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}',
            "prompt",
            "first",
        ),
        ('{"prompt": "a\\u0000b"}', "prompt", "NUL"),
        ('{"prompt": "a\\ud800b"}', "prompt", "half a character"),
        ('{"prompt": "Why?", "label": 1}', "label", "unknown field"),
        ('{"prompt": "Why?", "tags": "green"}', "tags", "list of texts"),
        ('{"prompt": "Why?", "tags": [""]}', "tags", "list of texts"),
        ('{"prompt": "Why?", "tags": [7]}', "tags", "list of texts"),
        (json.dumps({"prompt": "Why?", "tags": ["x" * 61]}), "tags", "60 characters"),
        ('{"prompt": "Why?", "tags": ["a\\u0000"]}', "tags", "NUL"),
        ('{"prompt": "Why?", "tags": ["a\\udfff"]}', "tags", "half a character"),
        ('{"prompt": "Why?", "source": 7}', "source", "text"),
        (json.dumps({"prompt": "Why?", "source": "x" * 201}), "source", "200 characters"),
        ('{"prompt": "Why?", "source": "a\\u0000"}', "source", "NUL"),
        ('{"prompt": "Why?", "split": "train"}', "split", "Only `held_out` can"),
        ('{"prompt": "Why?", "split": ["held_out"]}', "split", "can't be asked for"),
    ],
)
def test_a_bad_row_names_file_line_field_and_reason(row, field, reason):
    (problem,) = problems('{"prompt": "A good one"}\n\n' + row + "\n")
    assert problem.startswith(f"tea.jsonl, line 3, {field}: ")
    assert reason in problem


@pytest.mark.parametrize(
    ("content", "start", "reason"),
    [
        ("question\nWhy?\n", "tea.csv, line 1, header: ", "no column `prompt`"),
        ("prompt\n", "tea.csv: ", "no row"),
        ("prompt,tags\nWhy?,a,b\n", "tea.csv, line 2, row: ", "more cells"),
        ('prompt\nWhy?\n"open\n', "tea.csv, line 3, CSV: ", "quotes"),
        ('prompt\n"a"b\n', "tea.csv, line 2, CSV: ", "quotes"),
        ("prompt,grade\nWhy?,5\n", "tea.csv, line 2, grade: ", "unknown field"),
        ("prompt,tags\n,a\n", "tea.csv, line 2, prompt: ", "missing"),
        ("prompt\nok\n[7]\n", "tea.csv, line 3, prompt: ", "message 1"),
        ("prompt,split\nWhy?,train\n", "tea.csv, line 2, split: ", "Only `held_out` can"),
        ("prompt,prompt\nWhy?,How?\n", "tea.csv, line 1, header: ", "twice"),
        ("prompt\n" + "x" * 200_000, "tea.csv, line 2, CSV: ", "field larger"),
    ],
)
def test_a_bad_csv_file_names_file_line_field_and_reason(content, start, reason):
    (problem,) = problems(content, "tea.csv")
    assert problem.startswith(start)
    assert reason in problem


def test_every_bad_row_is_named_but_not_hundreds_of_them():
    content = jsonl(*({"prompt": ""} for _ in range(MOST_ERRORS + 5)))
    with pytest.raises(ImportErrors) as caught:
        read_rows(content, file="tea.jsonl")
    said = str(caught.value)
    assert f"line {MOST_ERRORS}," in said
    assert f"line {MOST_ERRORS + 1}," not in said
    assert "and 5 more" in said
    assert said.endswith("Nothing was imported.")


@given(json_values)
def test_whatever_a_prompt_is_it_is_a_conversation_or_a_field_error(value):
    try:
        messages = checked_messages(value)
    except FieldError as error:
        assert error.name == "prompt"
    else:
        assert messages[-1]["role"] == "user"
        assert all(message["content"].strip() for message in messages)


# --- what is kept ---


def test_a_file_becomes_prompts_in_one_go(cast):
    rows = [{"prompt": f"Question {number}", "tags": ["green"]} for number in range(30)]
    result = bring_in(cast, jsonl(*rows))
    assert (result.rows, result.added) == (30, 30)
    assert set(Prompt.objects.values_list("created_by__username", flat=True)) == {"researcher"}
    assert set(Prompt.objects.values_list("split", flat=True)) == {"train", "held_out"}
    event = AuditEvent.objects.get(action="prompts imported")
    assert (event.actor, event.details["added"]) == (cast.researcher, 30)


def test_the_same_file_twice_adds_nothing_and_a_longer_one_adds_the_rest(cast):
    rows = [{"prompt": f"Question {number}"} for number in range(5)]
    bring_in(cast, jsonl(*rows[:3]))
    before = list(Prompt.objects.order_by("pk").values())
    assert bring_in(cast, jsonl(*rows[:3])).added == 0
    assert list(Prompt.objects.order_by("pk").values()) == before
    assert bring_in(cast, jsonl(*rows)).added == 2


def test_a_prompt_that_stands_twice_in_a_file_is_added_once(cast):
    result = bring_in(cast, jsonl({"prompt": "Why?"}, {"prompt": "Why?", "tags": ["again"]}))
    assert (result.rows, result.added) == (2, 1)


def test_one_bad_row_keeps_everything_out(cast):
    events = AuditEvent.objects.count()
    with pytest.raises(ImportErrors, match="line 2, prompt"):
        bring_in(cast, jsonl({"prompt": "Good"}, {"prompt": ""}, {"prompt": "Good too"}))
    assert not Prompt.objects.exists()
    assert AuditEvent.objects.count() == events


def test_a_prompt_over_the_limit_is_refused_with_its_length_and_nothing_is_imported(cast):
    Project.objects.update(max_prompt_tokens=20)
    cast.project.refresh_from_db()
    with pytest.raises(ImportErrors) as caught:
        bring_in(cast, jsonl({"prompt": "Short."}, {"prompt": "word " * 300}))
    (problem,) = caught.value.problems
    assert problem.startswith("tea.jsonl, line 2, prompt: ")
    length = int(problem.split("prompt: ")[1].split()[0])
    assert 250 < length < 700
    assert "at most 20" in problem
    assert not Prompt.objects.exists()


def test_an_import_may_force_a_prompt_to_be_held_out(cast):
    rows = [{"prompt": f"Question {number}", "split": "held_out"} for number in range(20)]
    bring_in(cast, jsonl(*rows))
    assert set(Prompt.objects.values_list("split", flat=True)) == {"held_out"}


def test_importing_again_never_moves_a_prompt_to_the_other_split(cast):
    rows = [{"prompt": f"Question {number}"} for number in range(20)]
    bring_in(cast, jsonl(*rows))
    before = dict(Prompt.objects.values_list("pk", "split"))
    bring_in(cast, jsonl(*({**row, "split": "held_out"} for row in rows)))
    assert dict(Prompt.objects.values_list("pk", "split")) == before


def test_a_prompt_written_by_hand_is_added_once(cast):
    first, is_new = add_prompt(project=cast.project, user=cast.researcher, prompt="Why?", tags=["b", "a"])
    again, is_new_again = add_prompt(project=cast.project, user=cast.admin, prompt="Why?")
    assert (first, is_new, is_new_again) == (again, True, False)
    assert first.tags == ["a", "b"]
    with pytest.raises(FieldError, match="empty"):
        add_prompt(project=cast.project, user=cast.researcher, prompt="  ")


def test_the_command_says_how_many_were_new(cast, tmp_path, capsys):
    file = tmp_path / "tea.jsonl"
    file.write_bytes(jsonl({"prompt": "Why?"}, {"prompt": "How?"}))
    call_command("import_prompts", "tea", str(file))
    call_command("import_prompts", "tea", str(file))
    assert capsys.readouterr().out.splitlines() == [
        "2 rows, 2 new, 0 there already.",
        "2 rows, 0 new, 2 there already.",
    ]


def test_the_command_names_what_is_wrong(cast, tmp_path):
    with pytest.raises(CommandError, match=r"no project 'coffee'. Known are: tea"):
        call_command("import_prompts", "coffee", str(tmp_path / "x.jsonl"))
    with pytest.raises(CommandError, match="No such file"):
        call_command("import_prompts", "tea", str(tmp_path / "x.jsonl"))
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": ""}\n')
    with pytest.raises(CommandError, match=r"bad.jsonl, line 1, prompt: .*\nNothing was imported"):
        call_command("import_prompts", "tea", str(bad))
    assert not Prompt.objects.exists()
