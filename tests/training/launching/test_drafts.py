"""A draft of a run, and its launch: what is refused, and that what was looked at is what is launched."""

import re
import uuid

import pytest

from annotation.services.members import open_project
from rankloop.audit.models import AuditEvent
from rankloop.errors import Conflict, Refused
from tests.training.launching.stage import FINE, LEAK, drafted, look_over
from tests.training.stage import base_folder, draft
from training.models import Checkpoint, RunInput, TrainingRun, WorkStatus
from training.recipes.options import describe_options
from training.services.checkpoints import register_base, register_result
from training.services.launching import (
    change_draft,
    check_draft,
    chosen_dataset,
    fingerprint,
    launch_draft,
    open_draft,
    write_findings,
)
from training.services.runs import cancel_run
from training.services.snapshots import Filters, snapshot_rounds
from training.services.work import claim_work, end_work, to_claim

pytestmark = pytest.mark.django_db


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
    assert TrainingRun.objects.get().status == WorkStatus.DRAFT


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
