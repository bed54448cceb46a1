"""The look-over of a draft: what it reads, what it finds, and what ends it."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from django.utils import timezone

from annotation.models import Prompt
from rankloop.errors import Refused
from tests.cast import add_prompts, assemble
from tests.training.launching.stage import FINE, drafted, look_over
from tests.training.stage import draft, rank, to_ranking
from tests.training.stub import in_place_of_recipes
from training import looking_over, store, tasks
from training.models import Checkpoint, TrainingRun, WorkStatus
from training.recipes.run_dir import RecipeError
from training.services.checkpoints import register_base
from training.services.launching import (
    change_draft,
    check_draft,
    fingerprint,
    launch_draft,
    next_draft,
    write_findings,
)
from training.services.runs import cancel_run
from training.services.snapshots import snapshot_rounds

pytestmark = pytest.mark.django_db


@pytest.fixture
def preview(tmp_path, monkeypatch):
    """Put the given code in the place of the recipe `preview`."""
    return in_place_of_recipes(looking_over, tmp_path, monkeypatch)


def test_the_look_over_reads_what_the_run_would_read_and_leaves_no_folder(run, preview, settings):
    preview("""
    rows = (run_dir / "train.jsonl").read_text().count("\\n")
    write("progress.json", json.dumps({"step": 1, "of": 2, "phase": "reading"}))
    result(ok=True, metrics={"problems": [], "cut_share": 0.0, "rows": rows, "config": config})
    """)
    tasks.check_run(str(run.pk))
    tasks.check_run(str(run.pk))  # rung twice: the second finds nothing to do
    run.refresh_from_db()
    assert (run.status, run.findings["of"], run.lease_until) == ("draft", fingerprint(run), None)
    assert run.findings["rows"] == run.inputs.get(role="data").dataset.counts["train_pairs"]
    config = run.findings["config"]
    assert (config["method"], config["of"], config["fewest"], config["measured"]) == (
        "preview",
        "dpo",
        8,
        None,
    )
    assert config["options"] == run.recipe["options"]
    assert (config["imported"], config["processes"], config["is_sharded"]) == (False, 1, False)
    assert list((settings.RUNS_FOLDER / str(run.pk)).iterdir()) == []


def test_what_parent_and_reward_model_learnt_from_is_looked_for_among_what_is_held_out(
    cast, run, dataset, base, judge, tmp_path
):
    earlier = drafted(cast, dataset, base, name="earlier")
    policy = Checkpoint.objects.create(
        project=cast.project, name="policy", kind="policy", digest="p" * 64, base=base, run=earlier
    )
    for parent, learnt in ((base, 0), (policy, run.inputs.get(role="data").dataset.counts["train_prompts"])):
        child = drafted(cast, dataset, parent, reward_model=judge)  # that one was not trained here
        looking_over.write_learnt_before(child, tmp_path / "learnt")
        lines = [json.loads(line) for line in (tmp_path / "learnt").read_text().splitlines()]
        assert len(lines) == learnt
    asked = set(Prompt.objects.filter(split="train").values_list("messages__0__content", flat=True))
    assert {line["prompt"][0]["content"] for line in lines} <= asked
    assert lines[0]["where"] == f"a prompt of {dataset}, which is behind policy"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            'result(ok=False, kind="recipe", error="The base is no model. Choose another.")',
            "The base is no model.",
        ),
        ('result(ok=False, kind="bug", error="KeyError: 3")', "could not be looked over: KeyError: 3"),
        ("sys.exit(1)", "could not be looked over"),
    ],
)
def test_a_look_over_that_fails_says_so_and_forbids_the_launch(cast, run, preview, code, said):
    preview(code)
    looking_over.check_run(run.pk)
    run.refresh_from_db()
    assert said in run.findings["problems"][0]["what"]
    with pytest.raises(Refused, match=re.escape(said)):
        launch_draft(run=run, user=cast.researcher)


def test_a_look_over_that_nobody_foresaw_the_end_of_says_so_too(run, monkeypatch, settings):
    monkeypatch.setattr(looking_over, "training_config", Mock(side_effect=RuntimeError("the bucket is gone")))
    looking_over.check_run(run.pk)
    run.refresh_from_db()
    (problem,) = run.findings["problems"]
    assert problem["what"] == "The run could not be looked over: RuntimeError: the bucket is gone"
    assert (run.lease_until, list(settings.RUNS_FOLDER.glob("*/check-*"))) == (None, [])


def test_a_base_that_is_missing_or_damaged_is_named(cast, run, base):
    folder = store.fetch(base.digest)
    (folder / "model.safetensors").unlink()
    looking_over.check_run(run.pk)
    run.refresh_from_db()
    assert "model.safetensors is missing" in run.findings["problems"][0]["what"]
    with pytest.raises(Refused, match="Choose another checkpoint"):
        launch_draft(run=run, user=cast.researcher)


def test_one_draft_is_looked_over_at_a_time_and_a_dead_look_over_is_taken_up_again(
    cast, run, dataset, base, preview
):
    second = drafted(cast, dataset, base, name="second")
    assert next_draft() == run
    TrainingRun.objects.filter(pk=run.pk).update(lease_until=timezone.now() + timedelta(seconds=30))
    assert next_draft() is None
    TrainingRun.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert next_draft() == run
    run.refresh_from_db()
    look_over(run, FINE)
    assert next_draft() == second


SLOW = """
write("progress.json", json.dumps({"step": 1, "of": 9, "phase": "reading"}))
time.sleep(2)
(run_dir.parent / "went on to the end").touch()
result(ok=True, metrics={"problems": [], "cut_share": 0.0})
"""


@pytest.fixture
def meanwhile(preview, monkeypatch):
    """Have something happen once a look-over that takes its time has said how far it is."""
    preview(SLOW)
    read_json = looking_over.Recipe.read_json

    def be(happens: Callable[[], object]) -> None:
        waiting = [happens]

        def read(recipe, name):
            said = read_json(recipe, name)
            if said and waiting:
                waiting.pop()()
            return said

        monkeypatch.setattr(looking_over.Recipe, "read_json", read)

    return be


@pytest.mark.parametrize("what", ["changed", "to be looked over again", "put away"])
def test_a_draft_that_moves_on_ends_its_look_over_and_the_others_wait_no_longer(
    cast, run, dataset, base, meanwhile, settings, what
):
    change = {"dataset": dataset, "parent": base, "reward_model": None, "options": {}, "name": "", "seed": 5}
    second = drafted(cast, dataset, base, name="second")
    acts = {
        "changed": lambda: change_draft(run=run, user=cast.researcher, **change),
        "to be looked over again": lambda: check_draft(run=run),
        "put away": lambda: cancel_run(run=run, user=cast.researcher),
    }
    meanwhile(acts[what])
    looking_over.check_run(run.pk)
    run.refresh_from_db()
    assert run.findings == {}
    assert next_draft() == (second if what == "put away" else run)
    if what != "put away":
        assert (run.progress, run.lease_until) == ({}, None)
    assert list((settings.RUNS_FOLDER / str(run.pk)).iterdir()) == []


def test_a_look_over_that_was_taken_for_dead_leaves_the_draft_to_the_one_that_took_it_up(run, meanwhile):
    theirs = timezone.now() + timedelta(seconds=20)
    meanwhile(lambda: TrainingRun.objects.filter(pk=run.pk).update(lease_until=theirs))
    looking_over.check_run(run.pk)
    late = TrainingRun.objects.get()
    assert (late.findings, late.lease_until, late.progress) == ({}, theirs, {})
    assert not write_findings(run=run, of=fingerprint(run), findings=FINE)


def test_a_look_over_that_takes_too_long_is_ended_and_says_so(cast, run, preview, monkeypatch):
    preview("time.sleep(600)")
    monkeypatch.setattr(looking_over, "MOST_SECONDS", 0.06)
    looking_over.check_run(run.pk)
    run.refresh_from_db()
    (problem,) = run.findings["problems"]
    assert problem["what"] == "Looking it over took longer than 0.001 minutes, and was ended."
    assert "Choose a smaller dataset." in problem["remedy"]
    assert (run.lease_until, next_draft()) == (None, None)


def test_while_the_data_are_written_nobody_else_takes_the_draft_up(run, monkeypatch):
    def written(*_: object) -> dict[str, Any]:
        assert next_draft() is None
        held = TrainingRun.objects.get().lease_until - timezone.now()
        assert held > timedelta(seconds=looking_over.MOST_SECONDS / 2)
        raise RecipeError("This is as far as the test goes.")

    monkeypatch.setattr(looking_over, "training_config", written)
    looking_over.check_run(run.pk)
    assert "as far as the test goes" in TrainingRun.objects.get().findings["problems"][0]["what"]


def test_the_time_is_taken_from_the_latest_run_of_the_same_method_and_base(cast, run, dataset, base):
    assert looking_over.measured_speed(run) is None
    other = drafted(cast, dataset, base, name="earlier", options={"batch_size": 10})
    result = {"ok": True, "seconds": {"loop": 40.0}, "metrics": {"steps": 4, "resumed_from": None}}
    TrainingRun.objects.filter(pk=other.pk).update(status=WorkStatus.SUCCEEDED, result=result)
    assert looking_over.measured_speed(run) == {
        "by": str(other),
        "seconds_per_row": 1.0,
        "tokens_per_row": None,
    }


@pytest.mark.django_db(transaction=True)
def test_a_real_look_over_of_ranked_completions(tiny_model, settings, tmp_path):
    settings.ARTIFACTS_URL, settings.RUNS_FOLDER = str(tmp_path / "artifacts"), tmp_path / "runs"
    settings.ACCELERATE = "for training only"  # no such file: a look-over must not be launched by it
    cast = assemble()
    add_prompts(cast, 20)
    base = register_base(project=cast.project, folder=tiny_model, name="tiny")
    round = draft(cast, base)
    to_ranking(round)
    rank(cast, [cast.anna, cast.ben])
    dataset = snapshot_rounds(project=cast.project, rounds=[round])
    run = drafted(cast, dataset, base, options={"max_length": 130})
    looking_over.check_run(run.pk)
    run.refresh_from_db()
    found = run.findings
    assert found["problems"] == [] and found["leaked"] == []
    assert found["splits"]["train"]["rows"] == dataset.counts["train_pairs"]
    assert len(found["examples"]) == 3 and len(found["estimates"]) == 2
    assert found["fingerprints"]["tokenizer"]
    assert launch_draft(run=run, user=cast.researcher, accept_truncation=True).status == WorkStatus.QUEUED
