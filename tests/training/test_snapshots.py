"""Freezing judgments: the same ones always give the same dataset, and only what counts is in it."""

import json
import uuid
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from annotation.models import (
    Assignment,
    Comparison,
    Completion,
    Judgment,
    RankedCompletion,
    Round,
    Slot,
)
from annotation.services.claims import claim_comparison
from annotation.services.guidelines import publish_guideline
from annotation.services.judgments import submit_judgment
from annotation.services.members import open_project
from annotation.submissions import Submission
from rankloop.audit.models import AuditEvent
from rankloop.errors import Refused
from tests.cast import Cast, add_simulated, assemble, open_ranking
from tests.together import together
from tests.training.stage import PLAN, draft, rank
from tests.written import revise, write_answer
from training import store, worker
from training.models import DatasetMember, PreferenceDataset, TrainingRun, WorkStatus
from training.preferences import ROWS_FILE
from training.selectors.datasets import demonstrations_of, left_out, pairs_of
from training.services.runs import FEWEST, queue_training
from training.services.snapshots import Filters, snapshot_rounds, sources_of


def freeze(cast: Cast, *rounds: Round, **options) -> PreferenceDataset:
    return snapshot_rounds(project=cast.project, rounds=list(rounds), **options)


def rows_of(dataset: PreferenceDataset) -> list[dict]:
    return [json.loads(line) for line in (store.fetch(dataset.digest) / ROWS_FILE).read_text().splitlines()]


def members_of(dataset: PreferenceDataset) -> set[int]:
    return set(dataset.members.values_list("judgment_id", flat=True))


@pytest.fixture
def ranked(cast, stored) -> Round:
    """A round of six comparisons of which people have judged all."""
    round = open_ranking(cast, comparisons=6, overlap=2)
    rank(cast, [cast.anna, cast.ben])
    return round


def test_a_dataset_holds_what_was_judged_with_its_texts(cast, ranked):
    dataset = freeze(cast, ranked)
    rows = {row["ranking"]: row for row in rows_of(dataset)}
    assert set(rows) == set(Judgment.objects.values_list("pk", flat=True))
    for judgment in Judgment.objects.all():
        row = rows[judgment.pk]
        assert (row["comparison"], row["annotator"]) == (judgment.comparison_id, judgment.annotator_id)
        assert (row["outcome"], row["source"], row["round"]) == ("ranked", "person", ranked.number)
        prompt = judgment.comparison.prompt
        assert (row["prompt"], row["split"]) == (prompt.pk, prompt.split)
        assert [store.get_text(m["text"]) for m in row["messages"]] == [m["content"] for m in prompt.messages]
        ranks = dict(judgment.ranking.values_list("completion_id", "rank"))
        assert {c["completion"]: c["rank"] for c in row["completions"]} == ranks
        for entry in row["completions"]:
            completion = judgment.comparison.completions.get(pk=entry["completion"])
            assert store.get_text(entry["text"]) == completion.text
            assert entry["contestant"] == completion.contestant_id
    assert dataset.counts["judgments"] == 12
    assert dataset.counts["train_pairs"] + dataset.counts["held_out_pairs"] == 12 * 6
    assert dataset.sources == ["person"]


def test_filters_leave_out_annotators_and_earlier_guidelines_and_the_dataset_tells(cast, ranked):
    everything = freeze(cast, ranked)
    assert everything.filters == {} and left_out(everything) is None
    assert freeze(cast, ranked, filters=Filters()) == everything
    assert left_out(freeze(cast, ranked, filters=Filters(without=[cast.stranger.pk]))) is None

    without_ben = freeze(cast, ranked, filters=Filters(without=[cast.ben.pk]))
    assert {row["annotator"] for row in rows_of(without_ben)} == {cast.anna.pk}
    assert without_ben.digest != everything.digest
    assert left_out(without_ben) == {"without": ["ben"], "guideline_from": None, "left_out": 6}
    assert members_of(without_ben) == set(
        Judgment.objects.filter(annotator=cast.anna).values_list("pk", flat=True)
    )
    with pytest.raises(Refused, match="leave out all 12 judgments"):
        freeze(cast, ranked, filters=Filters(without=[cast.anna.pk, cast.ben.pk]))


def test_what_was_judged_under_an_earlier_guideline_can_be_left_out(cast, stored):
    round = open_ranking(cast, comparisons=6, overlap=2)
    rank(cast, [cast.anna])
    text = "Shorter is better."
    now = publish_guideline(project=cast.project, user=cast.admin, text=text, based_on=1)
    rank(cast, [cast.ben])
    dataset = freeze(cast, round, filters=Filters(guideline_from=now.version))
    assert {row["annotator"] for row in rows_of(dataset)} == {cast.ben.pk}
    assert left_out(dataset) == {"without": [], "guideline_from": now.version, "left_out": 6}


def test_the_files_hold_no_text_only_digests(cast, ranked):
    content = (store.fetch(freeze(cast, ranked).digest) / ROWS_FILE).read_text()
    assert "tea" not in content
    assert "Answer" not in content


def test_the_same_judgments_give_the_same_dataset(cast, ranked):
    first = freeze(cast, ranked)
    assert freeze(cast, ranked) == first
    assert PreferenceDataset.objects.count() == 1
    assert DatasetMember.objects.count() == 12


@pytest.mark.django_db(transaction=True)
def test_many_who_freeze_at_once_freeze_one_dataset(stored):
    cast = assemble()
    round = open_ranking(cast, comparisons=3)
    rank(cast, [cast.anna, cast.ben])
    assert len(set(together(6, lambda _: freeze(cast, round)))) == 1
    assert PreferenceDataset.objects.count() == 1
    assert DatasetMember.objects.count() == 6


def test_a_later_judgment_makes_another_dataset_and_leaves_the_first_as_it_was(cast, stored):
    round = open_ranking(cast, comparisons=3)
    rank(cast, [cast.anna])
    first = freeze(cast, round)
    before = rows_of(first)
    rank(cast, [cast.ben])
    second = freeze(cast, round)
    assert second.digest != first.digest
    assert (len(before), len(rows_of(second))) == (3, 6)
    assert rows_of(first) == before
    assert members_of(first) < members_of(second)


def test_from_a_judgment_one_finds_every_dataset_and_back(cast, ranked):
    dataset = freeze(cast, ranked)
    assert members_of(dataset) == set(Judgment.objects.values_list("pk", flat=True))
    judgment = Judgment.objects.first()
    assert PreferenceDataset.objects.get(members__judgment=judgment) == dataset


def test_people_and_simulated_annotators_are_never_mixed_unless_asked(cast, stored):
    simulated = add_simulated(cast)
    people, rehearsal = (
        open_ranking(cast, comparisons=2),
        open_ranking(cast, comparisons=2, audience="rehearsal"),
    )
    rank(cast, [cast.anna, cast.ben, *simulated])
    by_source = {
        source: set(Judgment.objects.filter(source=source).values_list("pk", flat=True))
        for source in ("person", "rehearsal")
    }
    assert members_of(freeze(cast, people)) == by_source["person"]
    assert members_of(freeze(cast, rehearsal)) == by_source["rehearsal"]
    with pytest.raises(Refused, match="mix"):
        freeze(cast, people, rehearsal)
    with pytest.raises(Refused, match="mix"):
        sources_of([people, rehearsal])
    assert members_of(freeze(cast, people, rehearsal, sources=["person"])) == by_source["person"]
    asked = freeze(cast, people, rehearsal, sources=["person", "rehearsal"])
    assert members_of(asked) == by_source["person"] | by_source["rehearsal"]
    assert asked.sources == ["person", "rehearsal"]


def test_a_foreign_source_in_a_round_of_people_is_left_out(cast, ranked):
    judgment = Judgment.objects.first()
    revise(judgment, source="rehearsal")
    assert judgment.pk not in members_of(freeze(cast, ranked))
    assert len(members_of(freeze(cast, ranked))) == 11


def test_a_revision_stands_for_what_it_supersedes_and_a_withdrawal_for_nothing(cast, ranked):
    first, second, *rest = Judgment.objects.order_by("pk")
    revision = revise(first, outcome="all_bad")
    revise(second, outcome="withdrawn")
    dataset = freeze(cast, ranked)
    assert members_of(dataset) == {revision.pk, *(judgment.pk for judgment in rest)}
    assert dataset.counts["all_bad"] == 1


def test_a_withdrawn_revision_takes_the_first_judgment_with_it(cast, ranked):
    first = Judgment.objects.first()
    revise(revise(first, outcome="all_bad"), outcome="withdrawn")
    assert len(members_of(freeze(cast, ranked))) == 11


def test_surplus_is_left_out(cast, stored):
    round = open_ranking(cast, comparisons=1, overlap=1)
    late = claim_comparison(project=cast.project, annotator=cast.anna)
    Assignment.objects.update(lease_until=timezone.now() - timedelta(minutes=1))
    rank(cast, [cast.ben])
    surplus = submit_judgment(assignment=late, submission=Submission(uuid.uuid4(), "ranked", [1, 2, 3, 4]))
    assert members_of(freeze(cast, round)) == {Judgment.objects.exclude(pk=surplus.pk).get().pk}


def test_all_bad_and_cannot_judge_are_kept_but_give_no_pair(cast, stored):
    round = open_ranking(cast, comparisons=2, overlap=2)
    rank(cast, [cast.anna], outcome="all_bad", ranks=[])
    rank(cast, [cast.ben], outcome="cannot_judge", ranks=[], reason="In Dutch.")
    counts = freeze(cast, round).counts
    assert (counts["judgments"], counts["all_bad"], counts["cannot_judge"]) == (4, 2, 2)
    assert counts["train_pairs"] == counts["held_out_pairs"] == 0


def test_with_nothing_judged_there_is_nothing_to_freeze(cast, stored):
    round = open_ranking(cast)
    with pytest.raises(Refused, match="nothing to freeze"):
        freeze(cast, round)
    assert not PreferenceDataset.objects.exists()


def test_judgments_of_another_project_are_never_taken(cast, ranked):
    other = open_project(slug="coffee", name="Coffee", user=cast.admin)
    with pytest.raises(Refused, match="nothing to freeze"):
        snapshot_rounds(project=other, rounds=[ranked])


def test_a_judgment_is_in_a_dataset_once_and_stays(cast, ranked):
    dataset = freeze(cast, ranked)
    member = dataset.members.first()
    with pytest.raises(IntegrityError, match="a_judgment_once_per_dataset"), transaction.atomic():
        DatasetMember.objects.create(dataset=dataset, judgment=member.judgment)


# --- what is said beside the rank, and what people wrote ---


def judged_with_remarks(assignment: Assignment, outcome: str, ranks: list[int | None]) -> Judgment:
    """A counted judgment with flags, aspects and a comment for the completion shown first."""
    slot = Slot.objects.get(assignment=assignment)
    judgment = Judgment.objects.create(
        assignment=assignment,
        comparison=assignment.comparison,
        annotator=assignment.annotator,
        slot=slot,
        outcome=outcome,
        source="person",
        submission_key=uuid.uuid4(),
        body_hash="",
    )
    remarks = {"flags": ["unsafe", "other"], "aspects": {"tone": 2}, "comment": "Burns the tongue."}
    RankedCompletion.objects.bulk_create(
        RankedCompletion(
            judgment=judgment,
            comparison=assignment.comparison,
            completion_id=pk,
            rank=rank,
            **(remarks if position == 0 else {}),
        )
        for position, (pk, rank) in enumerate(zip(assignment.shown_order, ranks, strict=True))
    )
    return judgment


@pytest.mark.parametrize(("outcome", "ranks"), [("ranked", [1, 2, 2, 3]), ("all_bad", [None] * 4)])
def test_flags_aspects_comments_and_masks_are_kept_beside_the_rank(cast, stored, outcome, ranks):
    round = open_ranking(cast, comparisons=1, overlap=1)
    assignment = claim_comparison(project=cast.project, annotator=cast.anna)
    Assignment.objects.update(leak_masked=True)
    judged_with_remarks(assignment, outcome, ranks)
    (row,) = rows_of(freeze(cast, round))
    assert (row["outcome"], row["leak_masked"]) == (outcome, True)
    by_id = {part["completion"]: part for part in row["completions"]}
    shown = [by_id[pk] for pk in assignment.shown_order]
    assert [part["rank"] for part in shown] == ranks
    said = [(part["flags"], part["aspects"], part["comment"]) for part in shown]
    assert said == [(["unsafe", "other"], {"tone": 2}, "Burns the tongue.")] + [([], {}, "")] * 3


def test_a_judgment_with_nothing_beside_the_rank_says_so(cast, ranked):
    for row in rows_of(freeze(cast, ranked)):
        assert (row["leak_masked"], row["edits"]) == (False, [])
        assert all((c["flags"], c["aspects"], c["comment"]) == ([], {}, "") for c in row["completions"])


def test_only_approved_answers_are_taken_in(cast, ranked):
    first, second, third, fourth = Judgment.objects.order_by("pk")[:4]
    original = first.comparison.completions.first()
    approved = write_answer(first, "Warm the pot.", edited_from=original, review="approved")
    write_answer(second, "Waits.", edited_from=second.comparison.completions.first())
    write_answer(third, "No.", edited_from=third.comparison.completions.first(), review="declined")
    write_answer(fourth, "Was right.", edited_from=fourth.comparison.completions.first(), review="approved")
    revise(fourth, outcome="all_bad")  # what was written counts while its judgment does
    dataset = freeze(cast, ranked)
    rows = {row["ranking"]: row for row in rows_of(dataset)}
    (edit,) = rows[first.pk]["edits"]
    assert (edit["completion"], edit["edited_from"]) == (approved.pk, original.pk)
    assert (edit["author"], store.get_text(edit["text"])) == (first.annotator_id, "Warm the pot.")
    assert [row["edits"] for pk, row in rows.items() if pk != first.pk] == [[]] * 11
    assert (dataset.counts["edits"], dataset.counts["demonstrations"]) == (1, 0)


def test_an_approval_makes_another_dataset_and_leaves_the_first_as_it_was(cast, ranked):
    judgment = Judgment.objects.first()
    answer = write_answer(judgment, "Better.", edited_from=judgment.comparison.completions.first())
    before = freeze(cast, ranked)
    Completion.objects.filter(pk=answer.pk).update(review="approved")
    after = freeze(cast, ranked)
    assert after != before
    assert freeze(cast, ranked) == after
    assert (before.counts["edits"], after.counts["edits"]) == (0, 1)
    assert [row["edits"] for row in rows_of(before)] == [[]] * 12


def open_demonstrations(cast: Cast, texts: list[tuple[str, str]]) -> Round:
    """A round of demonstrations by Anna, each with the state of its review."""
    round = open_ranking(cast, comparisons=len(texts), overlap=1)
    Round.objects.filter(pk=round.pk).update(kind="demonstration")
    for ordinal, (text, review) in enumerate(texts, 1):
        comparison = Comparison.objects.create(
            round=round,
            prompt=round.comparisons.get(ordinal=ordinal).prompt,
            ordinal=100 + ordinal,
            kind="demonstration",
        )
        slot = Slot.objects.create(round=round, comparison=comparison, number=1, position=100 + ordinal)
        assignment = Assignment.objects.create(
            comparison=comparison,
            annotator=cast.anna,
            state="submitted",
            lease_until=timezone.now(),
            claimed_at=timezone.now(),
            position=0,
            shown_order=[],
        )
        Slot.objects.filter(pk=slot.pk).update(state="filled", assignment=assignment)
        judgment = judged_with_remarks(assignment, "demonstrated", [])
        write_answer(judgment, text, review=review)
    return round


def test_a_dataset_may_be_made_of_demonstrations_alone(cast, stored):
    texts = [(f"Pour over number {n}.", "approved") for n in range(12)] + [("Not yet.", "waiting")]
    round = open_demonstrations(cast, texts)
    dataset = freeze(cast, round)
    counts = dataset.counts
    assert (counts["judgments"], counts["demonstrations"], counts["edits"]) == (12, 12, 0)
    assert counts["train_pairs"] == counts["held_out_pairs"] == 0
    lines = {split: list(demonstrations_of(dataset, split=split)) for split in ("train", "held_out")}
    assert {split: len(found) for split, found in lines.items()} == {
        split: counts[f"{split}_demonstrations"] for split in lines
    }
    assert min(map(len, lines.values())) > 0
    written = {line["completion"][0]["content"] for found in lines.values() for line in found}
    assert written == {text for text, review in texts if review == "approved"}
    assert len(members_of(dataset)) == 12
    assert Judgment.objects.filter(pk__in=members_of(dataset), written__review="waiting").count() == 0


def test_demonstrations_that_nobody_has_reviewed_are_not_frozen_and_that_is_said(cast, stored):
    round = open_demonstrations(cast, [("One.", "waiting"), ("Two.", "waiting"), ("Three.", "declined")])
    with pytest.raises(Refused, match="2 written answers wait for review"):
        freeze(cast, round)


def test_a_dataset_of_the_first_format_is_still_read(cast, stored, tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    text, question = store.put_text("Four minutes."), store.put_text("How long?")
    row = {
        "ranking": 1,
        "comparison": 1,
        "prompt": 7,
        "split": "train",
        "outcome": "ranked",
        "messages": [{"role": "user", "text": question}],
        "completions": [
            {"completion": 1, "text": text, "rank": 1},
            {"completion": 2, "text": store.put_text("A week."), "rank": 2},
        ],
    }
    (folder / ROWS_FILE).write_bytes(store.canonical(row) + b"\n")
    old = PreferenceDataset.objects.create(
        project=cast.project, digest=store.publish(folder), counts={"judgments": 1}
    )
    (pair,) = pairs_of(old, split="train")
    assert pair["chosen"][0]["content"] == "Four minutes."
    assert list(demonstrations_of(old, split="train")) == []


def test_who_froze_it_is_in_the_audit_log(cast, ranked):
    freeze(cast, ranked, user=cast.researcher)
    event = AuditEvent.objects.get(action="dataset frozen")
    assert (event.actor, event.details) == (cast.researcher, {"judgments": 12})


# --- training on it ---


def queue(cast: Cast, base, rounds_own: Round) -> TrainingRun:
    round = draft(cast, base, training_plan=PLAN)
    return queue_training(round=round, dataset=freeze(cast, rounds_own))[0]


@pytest.fixture
def enough(cast, base) -> Round:
    round = open_ranking(cast, comparisons=20)
    rank(cast, [cast.anna, cast.ben])
    return round


def test_the_pairs_of_a_run_are_those_of_its_dataset(cast, base, enough, tmp_path):
    run = queue(cast, base, enough)
    config = worker.training_config(run, tmp_path)
    dataset = run.inputs.get(role="data").dataset
    for split in ("train", "held_out"):
        lines = [json.loads(line) for line in (tmp_path / config["data"][split]).read_text().splitlines()]
        assert len(lines) == dataset.counts[f"{split}_pairs"] > 0
        prompts = set(enough.prompts.filter(split=split).values_list("pk", flat=True))
        assert {line["prompt_id"] for line in lines} == prompts
        assert all(line["prompt"][0]["content"].startswith("How do I brew") for line in lines)
    assert config["base"] == str(store.fetch(base.digest))
    assert (config["parent"], config["seed"], config["method"]) == (None, run.seed, "reward")


def test_a_dataset_with_an_erased_text_keeps_its_name_and_is_not_trained_on(cast, base, enough):
    run = queue(cast, base, enough)
    dataset = run.inputs.get(role="data").dataset
    store.erase_text(rows_of(dataset)[0]["completions"][0]["text"])
    assert len(rows_of(dataset)) == 40
    worker.run_training(run.pk)
    run.refresh_from_db()
    assert run.status == WorkStatus.FAILED
    assert "was erased" in run.error


def test_a_dataset_with_a_damaged_text_is_not_trained_on(cast, base, enough, stored):
    run = queue(cast, base, enough)
    digest = rows_of(run.inputs.get(role="data").dataset)[0]["messages"][0]["text"]
    (stored / "texts" / digest[:2] / digest).write_text("something else")
    worker.run_training(run.pk)
    run.refresh_from_db()
    assert run.status == WorkStatus.FAILED
    assert "does not match its digest" in run.error


def test_too_few_pairs_are_refused_before_anything_is_queued(cast, base):
    round = open_ranking(cast, comparisons=1, completions=2, overlap=1)
    rank(cast, [cast.anna])
    with pytest.raises(Refused, match=f"at least {FEWEST}"):
        queue(cast, base, round)
    assert not TrainingRun.objects.exists()


def test_without_held_out_pairs_training_is_refused(cast, base, enough):
    round = draft(cast, base, training_plan=PLAN)
    dataset = freeze(cast, enough)
    dataset.counts["held_out_pairs"] = 0
    with pytest.raises(Refused, match="No held-out prompt"):
        queue_training(round=round, dataset=dataset)
    assert not TrainingRun.objects.exists()
