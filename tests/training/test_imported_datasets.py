"""Pairs and answers from elsewhere become a dataset that runs read like any other."""

import json

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from annotation.importing import ImportErrors
from annotation.models import Prompt
from annotation.services.members import open_project
from annotation.splits import content_hash, split_of
from rankloop.audit.models import AuditEvent
from tests.api import Caller
from tests.cast import Cast
from training.importing import read_dataset
from training.models import PreferenceDataset
from training.selectors.datasets import demonstrations_of, pairs_of
from training.services.imports import import_dataset

pytestmark = pytest.mark.django_db

API = "/api/v1/projects/tea/datasets/import"
PAGE = "/p/tea/datasets/import/"


@pytest.fixture(autouse=True)
def _stored(stored):
    """Everything here writes to the store."""


def lines(*rows: object) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def pair(number: int, **more: object) -> dict[str, object]:
    return {"prompt": f"Why {number}?", "chosen": f"So {number}.", "rejected": "Because.", **more}


def answer(number: int, **more: object) -> dict[str, object]:
    return {"prompt": f"Why {number}?", "completion": f"So {number}.", **more}


def imported(cast: Cast, *rows: object, file: str = "tea.jsonl") -> PreferenceDataset:
    return import_dataset(project=cast.project, content=lines(*rows), file=file, user=cast.researcher)


def both(read, dataset: PreferenceDataset) -> list[dict]:
    return [*read(dataset, split="train"), *read(dataset, split="held_out")]


def test_pairs_and_answers_come_out_as_trainers_read_them(cast):
    said = [{"role": "assistant", "content": "So 2."}]
    messages = [{"role": "user", "content": "Why 2?"}]
    dataset = imported(
        cast,
        pair(1, strength=3, weight=2),
        {"prompt": messages, "chosen": said, "rejected": "No."},
        answer(3),
    )
    pairs = {one["prompt"][0]["content"]: one for one in both(pairs_of, dataset)}
    assert pairs["Why 1?"]["chosen"] == [{"role": "assistant", "content": "So 1."}]
    assert pairs["Why 1?"]["rejected"] == [{"role": "assistant", "content": "Because."}]
    assert (pairs["Why 1?"]["strength"], pairs["Why 1?"]["weight"]) == (3, 2.0)
    assert (pairs["Why 2?"]["chosen"], pairs["Why 2?"]["weight"]) == (said, 1.0)
    written = {one["prompt"][0]["content"]: one["completion"] for one in both(demonstrations_of, dataset)}
    assert written == {
        "Why 1?": [{"role": "assistant", "content": "So 1."}],
        "Why 2?": said,
        "Why 3?": [{"role": "assistant", "content": "So 3."}],
    }
    assert (dataset.sources, dataset.imported_from) == (["imported"], "tea.jsonl")
    assert dataset.counts["train_pairs"] + dataset.counts["held_out_pairs"] == 2


def test_what_was_chosen_of_several_pairs_is_imitated_once(cast):
    dataset = imported(cast, pair(1), pair(1, rejected="No."), pair(1, chosen="Else."), answer(1))
    written = [one["completion"][0]["content"] for one in both(demonstrations_of, dataset)]
    assert sorted(written) == ["Else.", "So 1.", "So 1."]  # an answer that is given as one stays


def test_the_same_rows_are_the_same_dataset_and_nothing_else_is_added(cast):
    first = imported(cast, pair(1), pair(2))
    assert imported(cast, pair(1), pair(2), file="again.jsonl") == first
    assert PreferenceDataset.objects.count() == 1
    assert Prompt.objects.count() == 0
    assert AuditEvent.objects.filter(action="dataset imported", actor=cast.researcher).count() == 1


def test_prompts_fall_on_their_side_of_the_split(cast, settings):
    rows = [pair(number) for number in range(60)]
    dataset = imported(cast, *rows)
    for split in ("train", "held_out"):
        found = [one["prompt"] for one in pairs_of(dataset, split=split)]
        assert found
        for messages in found:
            due = split_of(messages, salt=settings.SPLIT_SALT, held_out_share=settings.HELD_OUT_SHARE)
            assert due == split


def test_what_the_row_or_the_project_holds_out_is_held_out_with_all_of_its_pairs(cast, settings):
    settings.HELD_OUT_SHARE = 0.0
    messages = [{"role": "user", "content": "Why 2?"}]
    Prompt.objects.create(
        project=cast.project, messages=messages, content_hash=content_hash(messages), split="held_out"
    )
    dataset = imported(cast, pair(1), pair(1, chosen="Other.", split="held_out"), pair(2), pair(3))
    held_out = [one["prompt"][0]["content"] for one in pairs_of(dataset, split="held_out")]
    assert sorted(held_out) == ["Why 1?", "Why 1?", "Why 2?"]
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "why  2?"}]
    dataset = imported(cast, pair(3), pair(4) | {"prompt": asked})  # begins as a prompt does that is held out
    assert [one["prompt"] for one in pairs_of(dataset, split="held_out")] == [asked]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "Why?"}, "line 2, row: give `chosen` and `rejected`, or `completion`"),
        ({"prompt": "Why?", "chosen": "So."}, "line 2, row: give"),
        (answer(1, chosen="a", rejected="b"), "line 2, row: give"),
        ({"chosen": "a", "rejected": "b"}, "line 2, prompt: missing"),
        (pair(1, rejected="So 1. "), "line 2, rejected: is the same text"),
        (pair(1, chosen=" "), "line 2, chosen: empty"),
        (pair(1, chosen=[{"role": "user", "content": "x"}]), "line 2, chosen: expected a text"),
        (pair(1, strength=4), "line 2, strength: expected 1, 2 or 3"),
        (answer(1, strength=1), "line 2, strength: belongs to a pair"),
        (pair(1, weight=0), "line 2, weight: expected a positive number"),
        (pair(1, split="train"), "line 2, split: 'train' can't be asked for"),
        (pair(1, tags=[]), "line 2, tags: unknown field"),
        ([], "line 2, row: expected an object"),
        (pair(1, prompt=[{"role": "assistant", "content": "x"}]), "line 2, prompt: the last message"),
        (pair(1, chosen="a\x00"), "line 2, chosen: holds a NUL"),
    ],
)
def test_a_row_that_cannot_be_learned_from_is_named_and_nothing_is_imported(cast, row, told):
    with pytest.raises(ImportErrors, match=r"Nothing was imported\.") as refused:
        imported(cast, pair(9), row)
    assert told in str(refused.value)
    assert PreferenceDataset.objects.count() == 0


@pytest.mark.parametrize(
    ("content", "file", "told"),
    [
        (b"", "a.jsonl", "the file is empty"),
        (b"\xff\xfe", "a.jsonl", "not UTF-8"),
        (b"{", "a.jsonl", "line 1, JSON"),
        (b"prompt,chosen", "a.csv", "Save it as JSONL"),
    ],
)
def test_a_file_that_is_none_is_refused(content, file, told):
    with pytest.raises(ImportErrors, match=told):
        read_dataset(content, file=file)


def test_the_page_takes_a_file_and_says_what_is_wrong_with_it(client: Client, cast: Cast):
    client.force_login(cast.researcher)
    assert "chosen" in client.get(PAGE).content.decode()
    bad = client.post(PAGE, {"file": SimpleUploadedFile("bad.jsonl", b'{"prompt": "<b>"}')})
    assert bad.status_code == 400
    assert "bad.jsonl, line 1, row: give" in bad.content.decode()
    good = client.post(
        PAGE, {"file": SimpleUploadedFile("<i>.jsonl", lines(pair(1), answer(2)))}, follow=True
    )
    dataset = PreferenceDataset.objects.get()
    assert good.redirect_chain[-1][0] == f"/p/tea/datasets/{dataset.pk}/"
    page = good.content.decode()
    assert "Imported from &lt;i&gt;.jsonl" in page
    assert "<i>" not in page


def test_the_api_takes_json_and_a_file_as_its_body(cast):
    caller = Caller(cast.researcher)
    told = caller.post(API, {"file": "mine.jsonl", "content": lines(pair(1)).decode()}).json()
    assert (told["imported_from"], told["sources"]) == ("mine.jsonl", ["imported"])
    assert (
        caller.client.post(
            API, lines(pair(2)), content_type="application/jsonl", headers=caller.headers
        ).json()["counts"]["judgments"]
        == 1
    )
    bad = caller.post(API, {"file": "mine.jsonl", "content": "{}"})
    assert bad.status_code == 400
    assert bad.json()["problems"] == [
        "mine.jsonl, line 1, row: give `chosen` and `rejected`, or `completion`, and not both kinds"
    ]


def test_annotators_and_strangers_find_no_such_page(client: Client, cast: Cast):
    open_project(slug="coffee", name="Coffee", user=cast.admin)
    client.force_login(cast.anna)
    assert client.get(PAGE).status_code == 404
    client.force_login(cast.researcher)
    assert client.get("/p/coffee/datasets/import/").status_code == 404
    assert Caller(cast.anna).post(API, {"file": "a", "content": "{}"}).status_code == 404
