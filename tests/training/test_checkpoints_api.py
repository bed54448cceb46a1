"""Checkpoints, datasets, evaluations and comparisons by API: down to each judgment behind them."""

import json

import pytest

from annotation.models import Judgment
from annotation.services.members import open_project
from tests.api import Caller, all_pages
from tests.cast import add_contestants
from tests.training.stage import PROMPTS, advance, base_folder, to_ranking, to_training, train
from training import store
from training.models import Checkpoint, PreferenceDataset
from training.services.snapshots import snapshot_rounds

pytestmark = pytest.mark.django_db

TEA = "/api/v1/projects/tea"
BOTH_WAYS = pytest.mark.parametrize("by", ["token", "session"])


@pytest.fixture
def researcher(cast) -> Caller:
    return Caller(cast.researcher)


@pytest.fixture
def trained(cast, round, tmp_path) -> Checkpoint:
    """The policy of a round that has closed."""
    to_training(cast, round)
    train(round, tmp_path)
    assert advance(round) == "closed"
    return Checkpoint.objects.get(kind="policy")


# --- checkpoints ---


def test_checkpoints_are_listed_page_by_page_and_filtered(trained, base, researcher):
    rows = all_pages(researcher, f"{TEA}/checkpoints", page_size=1)
    assert [row["kind"] for row in rows] == ["policy", "reward", "base"]
    assert [row["round"] for row in rows] == [1, 1, None]
    assert (rows[0]["base"], rows[0]["run"]) == (base.pk, str(trained.run_id))
    assert [row["id"] for row in all_pages(researcher, f"{TEA}/checkpoints", kind="base")] == [base.pk]
    assert len(all_pages(researcher, f"{TEA}/checkpoints", round=1)) == 2


@BOTH_WAYS
def test_a_checkpoint_tells_what_stands_behind_it_and_what_it_became(cast, trained, by):
    told = Caller(cast.researcher, by=by).get(f"{TEA}/checkpoints/{trained.pk}").json()
    assert told["name"] == "round-1-dpo"
    assert [run["step"] for run in told["lineage"]["runs"]] == ["dpo"]
    assert [row["rounds"] for row in told["lineage"]["datasets"]] == [[1]]
    assert told["lineage"]["judgments"] == {"person": 2 * PROMPTS}
    assert [row["id"] for row in told["contestants"]] == list(
        trained.contestants.values_list("pk", flat=True)
    )
    assert told["metrics"] == {"accuracy": 0.7}


def test_a_base_has_nothing_behind_it_and_its_adapters_on_it(trained, base, researcher):
    told = researcher.get(f"{TEA}/checkpoints/{base.pk}").json()
    assert told["lineage"] == {"runs": [], "datasets": [], "judgments": {}}
    assert set(told["adapters"]) == set(base.adapters.values_list("pk", flat=True))


@BOTH_WAYS
def test_every_judgment_behind_a_checkpoint_is_listed(cast, trained, by):
    caller = Caller(cast.researcher, by=by)
    address = f"{TEA}/checkpoints/{trained.pk}/judgments"
    rows = all_pages(caller, address, page_size=7)
    assert {row["id"] for row in rows} == set(Judgment.objects.values_list("pk", flat=True))
    assert len(rows) == 2 * PROMPTS
    assert {row["annotator"] for row in rows} == {"anna", "ben"}
    train_rows = all_pages(caller, address, split="train", source="person", outcome="ranked", round=1)
    assert len(train_rows) == Judgment.objects.filter(comparison__prompt__split="train").count()
    assert all_pages(caller, address, source="rehearsal") == []


@BOTH_WAYS
def test_the_default_model_is_registered_once(cast, stored, settings, tmp_path, by):
    settings.DEFAULT_MODEL = base_folder(tmp_path / "default-model")
    caller = Caller(cast.researcher, by=by)
    first, again = (caller.post(f"{TEA}/checkpoints/add-default") for _ in range(2))
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert Checkpoint.objects.get().name == "default-model"
    assert cast.project.contestants.count() == 2


def test_a_default_model_that_is_not_there_is_refused(settings, stored, researcher, tmp_path):
    settings.DEFAULT_MODEL = tmp_path / "nowhere"
    answer = researcher.post(f"{TEA}/checkpoints/add-default")
    assert (answer.status_code, "is not a folder" in answer.json()["detail"]) == (400, True)


# --- contestants and evaluations ---


def test_contestants_are_listed_and_those_that_can_write_told_apart(cast, base, round, researcher):
    (person,) = add_contestants(cast, "a person")
    type(person).objects.filter(pk=person.pk).update(kind="person")
    rows = all_pages(researcher, f"{TEA}/contestants", page_size=1)
    assert [row["name"] for row in rows] == ["a person", "brief", "tiny"]
    assert [row["checkpoints"] for row in rows] == [[], [base.pk], [base.pk]]
    writers = all_pages(researcher, f"{TEA}/contestants", writes="true")
    assert [row["system_prompt"] for row in writers] == ["Be brief.", ""]
    assert [row["id"] for row in all_pages(researcher, f"{TEA}/contestants", writes="false")] == [person.pk]
    assert [row["id"] for row in all_pages(researcher, f"{TEA}/contestants", kind="person")] == [person.pk]


def test_evaluations_are_listed_and_filtered(trained, round, researcher):
    rows = all_pages(researcher, f"{TEA}/evaluations", page_size=1)
    reward = Checkpoint.objects.get(kind="reward")
    assert [(row["checkpoint"], row["round"]) for row in rows] == [(reward.pk, 1), (None, 1)]
    contestant = rows[1]["contestant"]
    assert rows[1]["result"]["source"] == "person"
    found = all_pages(researcher, f"{TEA}/evaluations", contestant=contestant)
    assert [row["id"] for row in found] == [rows[1]["id"]]
    assert len(all_pages(researcher, f"{TEA}/evaluations", checkpoint=reward.pk, round=1)) == 1
    assert all_pages(researcher, f"{TEA}/evaluations", round=2) == []


@pytest.mark.parametrize(
    ("address", "query"),
    [
        ("checkpoints", {"name": "x"}),
        ("checkpoints", {"kind": "x"}),
        ("contestants", {"writes": "true", "q": "x"}),
        ("evaluations", {"suite": "x"}),
        ("evaluations", {"contestant": "x"}),
        ("datasets", {"digest": "x"}),
        ("datasets", {"round": "1.5x"}),
        ("checkpoints/1/judgments", {"annotator": "anna"}),
    ],
)
def test_a_filter_that_is_not_allowed_is_refused(cast, base, researcher, address, query):
    address = address.replace("/1/", f"/{base.pk}/")
    assert researcher.get(f"{TEA}/{address}", **query).status_code == 400


# --- datasets ---


@BOTH_WAYS
def test_datasets_are_listed_and_one_tells_who_learned_from_it(cast, trained, by):
    caller = Caller(cast.researcher, by=by)
    (row,) = all_pages(caller, f"{TEA}/datasets", round=1)
    assert (row["rounds"], row["sources"], row["counts"]["judgments"]) == ([1], ["person"], 2 * PROMPTS)
    assert all_pages(caller, f"{TEA}/datasets", round=2) == []
    told = caller.get(f"{TEA}/datasets/{row['id']}").json()
    assert {key: told[key] for key in row} == row
    assert told["revised_since"] is None
    assert [run["step"] for run in told["runs"]] == ["reward", "dpo"]


@BOTH_WAYS
def test_the_pairs_of_a_dataset_are_streamed_in_trl_form(cast, trained, by):
    caller = Caller(cast.researcher, by=by)
    dataset = PreferenceDataset.objects.get()
    for split in ("train", "held_out"):
        answer = caller.get(f"{TEA}/datasets/{dataset.pk}/pairs", split=split)
        assert answer.headers["Content-Type"] == "application/jsonl; charset=utf-8"
        lines = [json.loads(line) for line in b"".join(answer.streaming_content).splitlines()]
        assert len(lines) == dataset.counts[f"{split}_pairs"] > 0
        assert {"prompt", "chosen", "rejected", "weight"} <= set(lines[0])


def test_pairs_are_given_to_whoever_accepts_only_their_kind_and_refusals_stay_json(trained, researcher):
    dataset = PreferenceDataset.objects.get()
    address = f"{TEA}/datasets/{dataset.pk}/pairs"
    headers = {**researcher.headers, "Accept": "application/jsonl"}
    assert researcher.client.get(address, {"split": "train"}, headers=headers).status_code == 200
    for query in ({}, {"split": "test"}, {"split": "train", "format": "csv"}):
        answer = researcher.client.get(address, query, headers=headers)
        assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/json")


def test_pairs_of_a_damaged_dataset_are_refused_before_the_first_line(trained, stored, researcher):
    dataset = PreferenceDataset.objects.get()
    (store.fetch(dataset.digest) / "rankings.jsonl").write_text("{}\n")
    answer = researcher.get(f"{TEA}/datasets/{dataset.pk}/pairs", split="train")
    assert answer.status_code == 409
    assert "can't be given out" in answer.json()["detail"]


# --- comparing ---


@BOTH_WAYS
def test_two_versions_are_compared_in_figures_and_side_by_side(cast, trained, round, by):
    caller = Caller(cast.researcher, by=by)
    a, b = round.contestants.order_by("pk").values_list("pk", flat=True)
    (figure,) = caller.get(f"{TEA}/compare", a=a, b=b).json()["figures"]
    assert (figure["source"], figure["annotators"]) == ("person", 2)
    assert 0 <= figure["low"] <= figure["rate"] <= figure["high"] <= 1
    mirrored = caller.get(f"{TEA}/compare", a=b, b=a).json()["figures"][0]
    assert mirrored["rate"] == pytest.approx(1 - figure["rate"])

    rows = all_pages(caller, f"{TEA}/compare/prompts", a=a, b=b, page_size=3)
    held_out = round.prompts.filter(split="held_out")
    assert {row["prompt"] for row in rows} == set(held_out.values_list("pk", flat=True))
    names = dict(round.contestants.values_list("pk", "name"))
    assert all(text.startswith(names[a]) for row in rows for text in row["a"]["texts"])
    assert all(text.startswith(names[b]) for row in rows for text in row["b"]["texts"])
    assert len(all_pages(caller, f"{TEA}/compare/prompts", a=a, b=b, split="train")) == PROMPTS - len(rows)


def test_versions_that_were_not_judged_have_no_figures(cast, round, researcher):
    to_ranking(round)
    a, b = round.contestants.values_list("pk", flat=True)
    assert researcher.get(f"{TEA}/compare", a=a, b=b).json() == {"figures": []}


@pytest.mark.parametrize("address", ["compare", "compare/prompts"])
def test_what_can_not_be_compared_is_refused(cast, round, researcher, address):
    a = round.contestants.order_by("pk").first().pk

    def status(**query) -> int:
        return researcher.get(f"{TEA}/{address}", **query).status_code

    assert (status(), status(a=a), status(a=a, b="x"), status(a=a, b=a)) == (400, 400, 400, 400)
    assert (status(a=a, b=a + 1, c=3), status(a=a, b=999_999), status(a=a, b="9" * 30)) == (400, 404, 400)


# --- who may ---


def addresses(trained: Checkpoint) -> list[str]:
    dataset = PreferenceDataset.objects.get()
    at_checkpoint, at_dataset = f"checkpoints/{trained.pk}", f"datasets/{dataset.pk}"
    return [
        "contestants", "checkpoints", at_checkpoint, f"{at_checkpoint}/judgments", "datasets", at_dataset,
        f"{at_dataset}/pairs?split=train", "evaluations", "compare?a=1&b=2", "compare/prompts?a=1&b=2",
    ]  # fmt: skip


def test_none_of_it_is_there_for_others(cast, trained):
    for who in (cast.anna, cast.reviewer, cast.stranger):
        for by in ("token", "session"):
            caller = Caller(who, by=by)
            for address in addresses(trained):
                assert caller.get(f"{TEA}/{address}").status_code == 404, address
            assert caller.post(f"{TEA}/checkpoints/add-default").status_code == 404


def test_none_of_it_is_found_through_another_project(cast, trained):
    open_project(slug="coffee", name="Coffee", user=cast.researcher)
    caller = Caller(cast.researcher)
    for address in addresses(trained):
        answer = caller.get(f"/api/v1/projects/coffee/{address}")
        assert answer.status_code == 404 or answer.json()["results"] == [], address


def test_a_session_without_the_csrf_token_registers_nothing(cast, stored):
    forged = Caller(cast.researcher, by="session", csrf=False)
    assert forged.post(f"{TEA}/checkpoints/add-default").status_code == 403
    assert not Checkpoint.objects.exists()


def test_a_dataset_tells_when_one_of_its_judgments_was_revised(cast, round, researcher):
    to_training(cast, round)
    dataset = snapshot_rounds(project=cast.project, rounds=[round])
    first = Judgment.objects.order_by("pk").first()
    first.pk, first.supersedes_id, first.submission_key = (
        None,
        first.pk,
        "0f8b6d0e-3c5a-4d3e-9a56-6c1a2b3c4d5e",
    )
    first.save(force_insert=True)
    assert researcher.get(f"{TEA}/datasets/{dataset.pk}").json()["revised_since"] is not None
