"""Launching a run by hand: what is refused, what is looked over, and that what was looked at is what is launched."""

import json
import re
import sys
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from django.utils import timezone

from annotation.models import Prompt, Round
from annotation.services.members import open_project
from rankloop.audit.models import AuditEvent
from rankloop.errors import Conflict, Refused
from tests.api import Caller
from tests.cast import Cast, add_prompts, assemble
from tests.training.stage import base_folder, draft, rank, to_ranking
from tests.training.stub import write_stub
from training import looking_over, store, tasks
from training.models import Checkpoint, PreferenceDataset, RunInput, TrainingRun, WorkStatus
from training.recipes.options import METHODS, describe_options
from training.recipes.presets import PRESETS
from training.recipes.run_dir import RecipeError
from training.services.checkpoints import register_base, register_result
from training.services.launching import (
    change_draft,
    check_draft,
    chosen_dataset,
    fingerprint,
    launch_draft,
    next_draft,
    open_draft,
    write_findings,
)
from training.services.runs import cancel_run
from training.services.snapshots import Filters, snapshot_rounds
from training.services.work import claim_work, end_work, to_claim

pytestmark = pytest.mark.django_db

RUNS = "/api/v1/projects/tea/runs"
FINE = {"problems": [], "cut_share": 0.0}
CUT = {"problems": [], "cut_share": 0.02}
LEAK = {
    "problems": [{"what": "It leaks.", "remedy": "Mend it.", "rows": 1, "first": "train row 3"}],
    "cut_share": 0.0,
}


@pytest.fixture
def ranked(cast: Cast, base: Checkpoint) -> Round:
    """A round that is ranked to the end."""
    add_prompts(cast, 16)
    round = draft(cast, base, overlap=2)
    to_ranking(round)
    rank(cast, [cast.anna, cast.ben])
    return round


@pytest.fixture
def dataset(cast: Cast, ranked: Round) -> PreferenceDataset:
    return snapshot_rounds(project=cast.project, rounds=[ranked])


@pytest.fixture
def judge(cast: Cast, base: Checkpoint) -> Checkpoint:
    """A reward model on the base."""
    return Checkpoint.objects.create(
        project=cast.project, name="judge", kind="reward", digest="r" * 64, base=base
    )


@pytest.fixture
def run(cast: Cast, dataset: PreferenceDataset, base: Checkpoint) -> TrainingRun:
    return drafted(cast, dataset, base)


@pytest.fixture
def site(client, cast: Cast):
    client.force_login(cast.researcher)
    return client


def drafted(cast: Cast, dataset: PreferenceDataset, base: Checkpoint, **changes: Any) -> TrainingRun:
    given = {"method": "dpo", "options": {}, "dataset": dataset, "parent": base, **changes}
    return open_draft(project=cast.project, user=cast.researcher, **given)


def look_over(run: TrainingRun, findings: dict[str, Any]) -> TrainingRun:
    """Have that found of a draft."""
    assert write_findings(run=run, of=fingerprint(run), findings=findings)
    run.refresh_from_db()
    return run


def text_of(answer: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode()))


# --- a draft ---


def test_a_draft_has_its_inputs_and_complete_options_and_no_worker_takes_it(cast, run, dataset, base):
    assert (run.status, run.step, run.method, run.findings) == ("draft", "dpo", "dpo", {})
    assert set(run.recipe["options"]) == {option["name"] for option in describe_options("dpo")}
    assert {(i.role, i.checkpoint, i.dataset) for i in run.inputs.all()} == {
        ("data", None, dataset),
        ("base", base, None),
    }
    assert claim_work(TrainingRun, run.pk, worker="w") is None
    assert to_claim(TrainingRun, 1) == []
    assert AuditEvent.objects.filter(action="run drafted", actor=cast.researcher).count() == 1


def test_the_same_launch_key_makes_one_draft(cast, ranked, dataset, base):
    asked = {"launch_key": uuid.uuid4(), "options": {"learning_rate": 3e-5}, "seed": 4}
    first = drafted(cast, dataset, base, **asked)
    again = chosen_dataset(project=cast.project, dataset=None, rounds=[ranked], user=cast.researcher)
    assert drafted(cast, again, base, **asked, name=" dpo ").pk == first.pk
    assert TrainingRun.objects.count() == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "kto"}, "differs in method, options, name from"),
        ({"options": {"learning_rate": 2e-5}}, "differs in options from"),
        ({"seed": 5}, "differs in seed from"),
        ({"name": "other"}, "differs in name from"),
        ({"reward_model": "judge"}, "differs in inputs from"),
        ({"parent": "other"}, "differs in inputs from"),
        ({"dataset": "other"}, "differs in inputs from"),
    ],
)
def test_a_launch_key_that_comes_with_other_content_is_a_conflict(
    cast, ranked, dataset, base, judge, changes, said
):
    key = uuid.uuid4()
    first = drafted(cast, dataset, base, launch_key=key)
    whole = Checkpoint.objects.create(project=cast.project, name="other", kind="base", digest="o" * 64)
    filters = Filters(without=[cast.anna.pk])
    others = {
        "reward_model": judge,
        "parent": whole,
        "dataset": snapshot_rounds(project=cast.project, rounds=[ranked], filters=filters),
    }
    with pytest.raises(Conflict, match=re.escape(f"opened the run {first}, which {said}")):
        asked = {"method": "dpo", "dataset": dataset, "parent": base, "launch_key": key, **changes}
        for name in others.keys() & changes.keys():
            asked[name] = others[name]
        open_draft(project=cast.project, user=cast.researcher, **asked)
    assert TrainingRun.objects.get() == first


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "magic"}, "Unknown method 'magic'"),
        ({"options": {"clip_range": 0.2}}, "dpo has no option 'clip_range'"),
        ({"options": {"beta": -1}}, "Set beta to a number from 0.0001 to 10"),
        ({"options": {"flipped_share": 0.2}}, "Set loss to robust"),
        ({"name": "x" * 41}, "a line of 1 to 40 characters"),
        ({"name": "a\x00b"}, "a line of 1 to 40 characters"),
        ({"seed": -1}, "give a whole number from 0"),
        ({"method": "ppo"}, "PPO learns from a reward model's scores. Choose one"),
        (
            {"method": "rloo", "options": {"reward": "length", "batch_size": 6}},
            "no multiple of group_size = 4",
        ),
        ({"method": "sft"}, "learns from approved written answers. The train split has 0"),
    ],
)
def test_what_can_not_work_is_refused_at_once_with_the_remedy(cast, dataset, base, changes, said):
    with pytest.raises(Refused, match=re.escape(said)):
        drafted(cast, dataset, base, **changes)
    assert not TrainingRun.objects.exists()


def test_too_few_pairs_and_ties_alone_are_refused(cast, dataset, base):
    dataset.counts = {**dataset.counts, "train_pairs": 7}
    with pytest.raises(Refused, match=r"The train split has 7, and at least 8 are needed. Rank more"):
        drafted(cast, dataset, base)
    dataset.counts = {**dataset.counts, "train_pairs": 0, "tied_pairs": 30}
    with pytest.raises(Refused, match="every comparison of the train split is a tie"):
        drafted(cast, dataset, base)
    dataset.counts = {**dataset.counts, "train_pairs": 60, "held_out_pairs": 0}
    with pytest.raises(Refused, match="No held-out prompt has pairs"):
        drafted(cast, dataset, base)


def test_a_parent_and_a_reward_model_must_be_of_the_right_kind_and_on_one_base(
    cast, dataset, base, judge, tmp_path
):
    with pytest.raises(Refused, match="DPO can't go on from judge"):
        drafted(cast, dataset, base, parent=judge)
    with pytest.raises(Refused, match="learns from no reward model"):
        drafted(cast, dataset, base, method="ppo", reward_model=judge, options={"reward": "length"})
    with pytest.raises(Refused, match=r"Reward model learns from no reward model\. Leave it out"):
        drafted(cast, dataset, base, method="reward", reward_model=judge)
    with pytest.raises(Refused, match=r"trains all weights here.* set weights to lora"):
        drafted(cast, dataset, base, reward_model=judge, options={"weights": "full"})
    with pytest.raises(Refused, match="is no reward model"):
        drafted(cast, dataset, base, method="ppo", reward_model=base)
    folder = base_folder(tmp_path / "other", weights=b"other")
    other = register_base(project=cast.project, folder=folder, name="other")
    with pytest.raises(Refused, match="The reward model judge stands on tiny and the policy on other"):
        drafted(cast, dataset, other, method="ppo", reward_model=judge)
    for method in ("ppo", "dpo"):
        run = drafted(cast, dataset, base, method=method, reward_model=judge)
        assert run.inputs.get(role=RunInput.Role.REWARD_MODEL).checkpoint == judge
    going_on = drafted(cast, dataset, judge, method="reward")
    assert going_on.inputs.get(role=RunInput.Role.PARENT).checkpoint == judge
    assert going_on.inputs.get(role=RunInput.Role.BASE).checkpoint == base


def test_what_belongs_to_another_project_is_refused(cast, dataset, base):
    foreign = open_project(slug="foreign", name="Foreign", user=cast.admin)
    stranger = Checkpoint.objects.create(project=foreign, name="b", kind="base", digest=base.digest)
    with pytest.raises(Refused, match="belongs to another project"):
        drafted(cast, dataset, stranger)


def test_a_dataset_or_rounds_to_freeze_but_not_both(cast, ranked, dataset):
    given = {"project": cast.project, "user": cast.researcher}
    assert chosen_dataset(dataset=dataset, rounds=[], **given) == dataset
    assert (
        chosen_dataset(dataset=None, rounds=[ranked], **given) == dataset
    )  # the same judgments: the same dataset
    filters = Filters(without=[cast.anna.pk])
    narrower = chosen_dataset(dataset=None, rounds=[ranked], filters=filters, **given)
    assert narrower.counts["judgments"] < dataset.counts["judgments"]
    with pytest.raises(Refused, match="nothing can be left out of it"):
        chosen_dataset(dataset=dataset, rounds=[], filters=filters, **given)
    for wrong in ({"dataset": None, "rounds": []}, {"dataset": dataset, "rounds": [ranked]}):
        with pytest.raises(Refused, match="one dataset, or rounds"):
            chosen_dataset(**wrong, **given)


# --- the launch ---


def test_nothing_is_launched_before_it_was_looked_over(cast, run):
    with pytest.raises(Refused, match="has not been looked over"):
        launch_draft(run=run, user=cast.researcher)
    assert TrainingRun.objects.get().status == WorkStatus.DRAFT


def test_a_launch_queues_the_draft_once(cast, run):
    look_over(run, FINE)
    for _ in range(2):
        assert launch_draft(run=run, user=cast.researcher).status == WorkStatus.QUEUED
    assert AuditEvent.objects.filter(action="run launched").count() == 1
    assert to_claim(TrainingRun, 1) == [run]
    held = claim_work(TrainingRun, run.pk, worker="w")
    assert held.attempt == 1
    assert launch_draft(run=run, user=cast.researcher).status == WorkStatus.RUNNING


def test_what_stands_in_the_way_is_said_with_its_remedy(cast, run):
    look_over(run, LEAK)
    with pytest.raises(Refused, match=r"It leaks\. Mend it\."):
        launch_draft(run=run, user=cast.researcher, accept_truncation=True)


@pytest.mark.parametrize(("share", "needs_word"), [(0.0, False), (0.01, False), (0.011, True), (0.5, True)])
def test_more_than_one_row_in_a_hundred_that_is_cut_must_be_accepted(cast, run, share, needs_word):
    look_over(run, {"problems": [], "cut_share": share})
    if needs_word:
        with pytest.raises(Refused, match="Accept that, or raise max_length"):
            launch_draft(run=run, user=cast.researcher)
        assert TrainingRun.objects.get().status == WorkStatus.DRAFT
    assert (
        launch_draft(run=run, user=cast.researcher, accept_truncation=needs_word).status == WorkStatus.QUEUED
    )


def test_a_changed_draft_must_be_looked_over_anew(cast, run, dataset, base):
    seen = look_over(run, FINE).findings["of"]
    change = {
        "dataset": dataset,
        "parent": base,
        "reward_model": None,
        "options": {"beta": 0.2},
        "name": "",
        "seed": 5,
    }
    changed = change_draft(run=run, user=cast.researcher, **change)
    assert (changed.findings, changed.seed, changed.recipe["options"]["beta"]) == ({}, 5, 0.2)
    with pytest.raises(Refused, match="has not been looked over"):
        launch_draft(run=run, user=cast.researcher)
    # What a slow look-over found of the options before is not kept.
    assert not write_findings(run=run, of=seen, findings=FINE)
    run.refresh_from_db()
    look_over(run, FINE)
    with pytest.raises(
        Conflict, match="changed since it was looked over"
    ):  # from a tab that shows the old ones
        launch_draft(run=run, user=cast.researcher, looked_at=seen)
    assert launch_draft(run=run, user=cast.researcher, looked_at=fingerprint(run)).status == WorkStatus.QUEUED
    with pytest.raises(Conflict, match="launched already"):
        change_draft(run=run, user=cast.researcher, **change)
    with pytest.raises(Conflict, match="launched already"):
        check_draft(run=run)


def test_a_draft_that_was_put_away_is_not_launched(cast, run):
    look_over(run, FINE)
    cancel_run(run=run, user=cast.researcher)
    with pytest.raises(Conflict, match="put away"):
        launch_draft(run=run, user=cast.researcher)
    assert TrainingRun.objects.get().status == WorkStatus.CANCELLED


def test_a_policy_trained_by_hand_becomes_a_contestant_like_the_one_it_went_on_from(cast, run, base):
    look_over(run, FINE)
    launch_draft(run=run, user=cast.researcher)
    held = claim_work(TrainingRun, run.pk, worker="w")
    end_work(held, WorkStatus.SUCCEEDED, result={"ok": True})
    made = register_result(run=held, kind="policy", digest="p" * 64, base=base, metrics={})
    assert made.name == f"dpo-{str(run.pk)[:8]}"
    contestant = made.contestants.get()
    plain = base.contestants.get(system_prompt="")
    assert (contestant.name, contestant.decoding) == (made.name, plain.decoding)
    draft(cast, base, name="Next", contestants=[contestant, plain])  # it can be ranked


# --- the look-over ---


@pytest.fixture
def preview(tmp_path, monkeypatch):
    """Put the given code in the place of the recipe `preview`."""
    monkeypatch.setattr(looking_over, "POLL_SECONDS", 0.02)

    def be(code: str) -> None:
        monkeypatch.setattr(sys, "executable", str(write_stub(tmp_path / "python", code)))

    return be


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


# --- pages ---


def form(dataset: PreferenceDataset, base: Checkpoint, **changes: Any) -> dict[str, Any]:
    return {
        "launch_key": str(uuid.uuid4()), "name": "", "dataset": dataset.pk, "parent": base.pk, "seed": 1, **changes
    }  # fmt: skip


NEW = "/p/tea/runs/new/"


@pytest.mark.parametrize("method", METHODS)
def test_the_form_shows_every_option_with_its_help_and_default(site, dataset, base, method):
    page = site.get(NEW, {"method": method})
    assert page.status_code == 200
    html = page.content.decode()
    for option in describe_options(method):
        assert f'name="option_{option["name"]}"' in html
        assert option["source"].split("&")[0].split("'")[0][:30] in text_of(page).replace("&#x27;", "'")
    assert ('name="reward_model"' in html) == (METHODS[method].makes == "policy")


def test_a_reward_model_that_a_policy_is_measured_by_is_asked_for_and_not_chosen_unasked(
    site, dataset, base, judge
):
    assert site.get(NEW, {"method": "ppo"}).context["form"]["reward_model"].value() == judge.pk
    shown = site.get(NEW, {"method": "dpo"})
    assert shown.context["form"]["reward_model"].value() is None
    assert "Not needed to learn." in text_of(shown)
    sent = form(dataset, base, reward_model=judge.pk)
    assert site.post(f"{NEW}?method=dpo", sent).status_code == 302
    run = TrainingRun.objects.get(method="dpo")
    assert run.inputs.get(role=RunInput.Role.REWARD_MODEL).checkpoint == judge
    assert "reward_model" not in run.recipe["options"]
    whole = form(dataset, base, reward_model=judge.pk, option_weights="full")
    assert "Leave it out, or set weights to lora" in text_of(site.post(f"{NEW}?method=dpo", whole))


def test_a_form_with_many_checkpoints_and_datasets_asks_as_much_of_the_database_as_one_with_few(
    site, cast, ranked, dataset, base, django_assert_num_queries
):
    counts = []
    for number in range(5):
        for kind in ("policy", "reward"):
            Checkpoint.objects.create(
                project=cast.project, name=f"{kind} {number}", kind=kind, digest=f"{number}" * 64, base=base
            )
        frozen = PreferenceDataset.objects.create(project=cast.project, digest=f"{number}" * 64)
        frozen.rounds.set([ranked])
        if number in (0, 4):
            with django_assert_num_queries(10**6, exact=False) as captured:
                page = text_of(site.get(NEW, {"method": "dpo"}))
            counts.append(len(captured))
    assert "policy 4 (policy on tiny)" in page and "444444444444, round 1:" in page
    assert counts[0] == counts[1]


def test_a_preset_fills_the_form(site, dataset, base):
    chosen = PRESETS["cpu-smoke"].options("dpo")
    shown = site.get(NEW, {"method": "dpo", "preset": "cpu-smoke"}).context["form"]
    assert shown["option_steps"].value() == chosen["steps"]
    assert shown["option_beta"].value() == 0.1
    nonsense = site.get(NEW, {"method": "dpo", "preset": "<script>", "like": "x"})
    assert nonsense.status_code == 200
    assert "<script>" not in nonsense.content.decode()


def test_a_form_sent_twice_makes_one_draft_and_leads_to_its_page(site, dataset, base):
    sent = form(dataset, base, name="Shorter answers", option_steps=12, option_learning_rate="")
    for _ in range(2):
        answer = site.post(f"{NEW}?method=dpo", sent)
    run = TrainingRun.objects.get()
    assert answer.url == f"/p/tea/runs/{run.pk}/"
    assert (run.step, run.recipe["options"]["steps"], run.recipe["options"]["learning_rate"]) == (
        "Shorter answers",
        12,
        5e-4,
    )
    page = site.get(answer.url)
    assert "Looking it over" in text_of(page)
    assert "every 2s" in page.content.decode()


def test_a_form_sent_again_with_other_content_says_so_and_sent_once_more_opens_another_draft(
    site, dataset, base
):
    sent = form(dataset, base, option_learning_rate="0.0001")
    site.post(f"{NEW}?method=dpo", sent)
    first = TrainingRun.objects.get()
    changed = sent | {"option_learning_rate": "0.0002"}
    told = site.post(f"{NEW}?method=dpo", changed)
    assert told.status_code == 400
    assert f"opened the run {first}, which differs in options" in text_of(told)
    assert "submit it again" in text_of(told)
    shown = told.context["form"]
    assert shown["option_learning_rate"].value() == "0.0002"
    fresh = re.search(r'name="launch_key" value="([^"]+)"', told.content.decode())[1]
    assert fresh != sent["launch_key"]
    for _ in range(2):
        again = site.post(f"{NEW}?method=dpo", changed | {"launch_key": fresh})
    second = TrainingRun.objects.exclude(pk=first.pk).get()
    assert again.url == f"/p/tea/runs/{second.pk}/"
    rates = [run.recipe["options"]["learning_rate"] for run in (first, second)]
    assert rates == [0.0001, 0.0002]


def test_rounds_are_frozen_when_no_dataset_is_chosen(site, ranked, base):
    nothing = PreferenceDataset()
    sent = {**form(nothing, base), "dataset": "", "rounds": [ranked.pk]}
    for _ in range(2):
        assert site.post(f"{NEW}?method=dpo", sent).status_code == 302
    assert TrainingRun.objects.get().inputs.get(role="data").dataset == ranked.datasets.get()
    refused = site.post(f"{NEW}?method=dpo", {**form(nothing, base), "dataset": ""})
    assert refused.status_code == 400
    assert "tick rounds to freeze one from" in text_of(refused)


def test_judgments_of_some_are_left_out_by_form_and_by_api_and_the_dataset_says_so(site, cast, ranked, base):
    page = site.get(NEW, {"method": "dpo"})
    assert "Leave out what was judged by" in text_of(page)
    sent = {**form(PreferenceDataset(), base), "dataset": "", "rounds": [ranked.pk], "without": [cast.ben.pk]}
    assert site.post(f"{NEW}?method=dpo", sent).status_code == 302
    dataset = ranked.datasets.get()
    shown = text_of(site.get(f"/p/tea/datasets/{dataset.pk}/"))
    assert "Left out" in shown and "all of ben" in shown
    both = site.post(f"{NEW}?method=dpo", sent | {"dataset": dataset.pk})
    assert both.status_code == 400
    assert "Nothing can be left out of a dataset that is frozen" in text_of(both)
    assert both.content.decode().count("<details open>") == 2  # where it is said
    asked = {"method": "dpo", "rounds": [ranked.number], "without": ["ben"], "parent": base.pk}
    caller = Caller(cast.researcher)
    assert caller.post(RUNS, asked).json()["inputs"]
    assert ranked.datasets.get() == dataset
    told = caller.get(f"/api/v1/projects/tea/datasets/{dataset.pk}").json()
    assert told["left_out"]["without"] == ["ben"]
    assert told["left_out"]["left_out"] > 0
    assert caller.post(RUNS, {**asked, "without": ["nobody"]}).status_code == 400
    assert caller.post(RUNS, {**asked, "guideline_from": 2**40}).status_code == 400


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"option_beta": "0"}, "greater than or equal to 0.0001"),
        ({"option_loss": "hinge"}, "not one of the available choices"),
        ({"option_flipped_share": "0.2"}, "Set loss to robust"),
        ({"parent": 999_999}, "not one of the available choices"),
        ({"seed": ""}, "This field is required"),
    ],
)
def test_a_wrong_form_says_what_to_change_and_opens_nothing(site, dataset, base, changes, said):
    page = site.post(f"{NEW}?method=dpo", form(dataset, base, **changes))
    assert page.status_code == 400
    assert said in text_of(page)
    assert not TrainingRun.objects.exists()


def test_the_pages_say_what_is_missing_first(site, cast):
    assert "Register the default model" in text_of(site.get(NEW))
    Checkpoint.objects.create(project=cast.project, name="base", kind="base", digest="b" * 64)
    assert "Nothing to learn from yet" in text_of(site.get(NEW))


def test_findings_are_shown_escaped_and_the_launch_asks_for_acceptance(site, cast, run):
    hostile = "<img src=x onerror=alert(1)>"
    side = {"name": "chosen", "runs": [
        {"text": "<|im_start|>", "kind": "special", "learnt": False, "cut": False},
        {"text": f"user\n{hostile}", "kind": "template", "learnt": False, "cut": False},
        {"text": hostile, "kind": "text", "learnt": True, "cut": False},
        {"text": hostile, "kind": "text", "learnt": False, "cut": True},
    ]}  # fmt: skip
    split = {"rows": 60, "tokens": 6000, "mean": 50.0, "p95": 80, "longest": 90, "truncated": 3, "dropped": 0}
    cut = {"how": "truncated", "why": "too long", "rows": 3, "first": "train row 7"}
    look_over(run, {
        **CUT, "notices": [hostile], "splits": {"train": {**split, "cut": [cut]}}, "leaked": [],
        "examples": [{"where": "train row 1", "tokens": 90, "sides": [side]}], "estimates": [],
        "fingerprints": {"tokenizer": "a" * 64, "chat_template": "b" * 64},
    })  # fmt: skip
    page = site.get(f"/p/tea/runs/{run.pk}/")
    html = page.content.decode()
    assert "<img" not in html
    assert html.count("&lt;img src=x") == 4
    assert f"<mark>{hostile.replace('<', '&lt;').replace('>', '&gt;')}</mark>" in html
    assert "user↵" in html
    assert "3 train rows truncated: too long" in text_of(page).replace("  ", " ")
    assert 'name="accept"' in html
    launch = f"/p/tea/runs/{run.pk}/launch/"
    refused = site.post(launch, {"of": run.findings["of"]}, follow=True)
    assert "would be truncated or dropped" in text_of(refused)
    launched = site.post(launch, {"of": run.findings["of"], "accept": "on"}, follow=True)
    assert "is launched and waits for a worker" in text_of(launched)
    assert TrainingRun.objects.get().status == WorkStatus.QUEUED
    assert "no longer a draft" in text_of(site.get(f"/p/tea/runs/{run.pk}/findings/"))


def test_problems_are_shown_with_their_remedy_and_there_is_no_launch_button(site, run):
    look_over(run, LEAK)
    page = site.get(f"/p/tea/runs/{run.pk}/")
    assert "This run can't be launched as it is." in text_of(page)
    assert "the first is train row 3" in text_of(page)
    assert "Mend it." in text_of(page)
    assert 'id="launch"' not in page.content.decode()


def test_a_draft_is_changed_looked_over_again_and_put_away_by_its_page(site, run, dataset, base):
    look_over(run, FINE)
    address = f"/p/tea/runs/{run.pk}/"
    shown = site.get(f"{address}change/").context["form"]
    assert (shown["dataset"].value(), shown["parent"].value()) == (dataset.pk, base.pk)
    site.post(f"{address}change/", form(dataset, base, option_beta="0.3"))
    run.refresh_from_db()
    assert (run.recipe["options"]["beta"], run.findings) == (0.3, {})
    look_over(run, FINE)
    site.post(f"{address}check/")
    run.refresh_from_db()
    assert run.findings == {}
    site.post(f"{address}discard/")
    run.refresh_from_db()
    assert run.status == WorkStatus.CANCELLED
    assert site.get(f"{address}change/").url == address


def test_a_run_is_duplicated_from_the_form_with_everything_it_had(site, cast, run, base):
    change_draft(
        run=run, user=cast.researcher, dataset=run.inputs.get(role="data").dataset, parent=base, reward_model=None,
        options={"beta": 0.7}, name="With more beta", seed=9,
    )  # fmt: skip
    shown = site.get(NEW, {"like": run.pk}).context["form"]
    assert (shown["option_beta"].value(), shown["seed"].value(), shown["name"].value()) == (
        0.7,
        9,
        "With more beta",
    )
    data = run.inputs.get(role="data").dataset
    site.post(f"{NEW}?like={run.pk}", form(data, base, option_beta="0.8"))
    assert TrainingRun.objects.exclude(pk=run.pk).get().duplicate_of == run


ADDRESSES = ["", "change/", "findings/", "launch/", "check/", "discard/"]


@pytest.mark.parametrize("who", ["anna", "reviewer", "stranger"])
def test_launching_is_for_researchers_and_everything_else_is_missing(client, cast, run, who):
    client.force_login(getattr(cast, who))
    assert client.get(NEW).status_code == 404
    for part in ADDRESSES:
        method = client.post if part in ("launch/", "check/", "discard/") else client.get
        assert method(f"/p/tea/runs/{run.pk}/{part}").status_code == 404, part
    caller = Caller(getattr(cast, who))
    assert caller.post(RUNS, {}).status_code == 404
    for answer in (caller.patch(f"{RUNS}/{run.pk}", {}), caller.post(f"{RUNS}/{run.pk}/launch")):
        assert answer.status_code == 404
    assert TrainingRun.objects.get().status == WorkStatus.DRAFT


def test_what_changes_something_takes_a_post(site, run):
    for part in ("launch/", "check/", "discard/"):
        assert site.get(f"/p/tea/runs/{run.pk}/{part}").status_code == 405


# --- the API ---


@pytest.mark.parametrize("by", ["token", "session"])
def test_a_run_is_drafted_changed_looked_over_and_launched_by_api(cast, dataset, base, by):
    caller = Caller(cast.researcher, by=by)
    asked = {
        "method": "dpo", "dataset": dataset.pk, "parent": base.pk, "preset": "cpu-smoke", "options": {"beta": 0.3},
        "launch_key": str(uuid.uuid4()), "name": "By program",
    }  # fmt: skip
    made = caller.post(RUNS, asked)
    assert made.status_code == 201, made.content
    assert caller.post(RUNS, asked).json()["id"] == made.json()["id"]
    assert caller.post(RUNS, {**asked, "seed": 2}).status_code == 409
    told = made.json()
    assert (told["status"], told["step"], told["findings"]) == ("draft", "By program", {})
    assert (told["recipe"]["options"]["steps"], told["recipe"]["options"]["beta"]) == (4, 0.3)
    address = f"{RUNS}/{told['id']}"
    assert caller.post(f"{address}/launch").status_code == 400
    changed = caller.patch(address, {"options": {"beta": 0.4}, "seed": 3}).json()
    assert (changed["recipe"]["options"]["beta"], changed["recipe"]["options"]["steps"], changed["seed"]) == (
        0.4,
        4,
        3,
    )
    run = look_over(TrainingRun.objects.get(), CUT)
    assert caller.get(address).json()["findings"]["cut_share"] == 0.02
    assert caller.post(f"{address}/launch").status_code == 400
    assert (
        caller.post(f"{address}/launch", {"accept_truncation": True, "looked_at": "old"}).status_code == 409
    )
    assert caller.post(f"{address}/check").json()["findings"] == {}
    look_over(run, CUT)
    for _ in range(2):
        launched = caller.post(f"{address}/launch", {"accept_truncation": True})
        assert (launched.status_code, launched.json()["status"]) == (200, "queued")
    assert caller.patch(address, {"seed": 4}).status_code == 409
    assert caller.post(f"{address}/check").status_code == 409


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": None}, "one dataset, or rounds"),
        ({"dataset": 999_999}, "Some fields are not right"),
        ({"parent": 999_999}, "Some fields are not right"),
        ({"rounds": [77], "dataset": None}, "Some fields are not right"),
        ({"options": {"beta": "much"}}, "Set beta to a number"),
        ({"options": {"beta": 10**310}}, "Set beta to a number"),
        ({"method": "ppo", "options": {"required_words": "a\0b"}}, "Take that out"),
        ({"method": "ppo", "options": {"required_words": "a\ud800b"}}, "Take that out"),
        ({"preset": "huge"}, "Some fields are not right"),
        ({"colour": "red"}, "Unknown field 'colour'"),
        ({"method": "ppo"}, "Choose one, or another reward"),
    ],
)
def test_a_draft_that_can_not_work_is_refused_by_api(cast, dataset, base, changes, said):
    asked = {"method": "dpo", "dataset": dataset.pk, "parent": base.pk, **changes}
    answer = Caller(cast.researcher).post(RUNS, asked)
    assert answer.status_code == 400
    assert said in answer.json()["detail"]
    assert not TrainingRun.objects.exists()


def test_the_methods_are_told_with_every_option(cast):
    told = Caller(cast.anna).get("/api/v1/methods").json()
    assert [one["method"] for one in told] == list(METHODS)
    for one in told:
        assert json.loads(json.dumps(one["options"])) == json.loads(
            json.dumps(describe_options(one["method"]))
        )
        assert set(one["presets"]) == set(PRESETS)
    assert Caller(None).get("/api/v1/methods").status_code == 403
