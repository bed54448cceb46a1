"""The researchers' pages: launching rounds, helping them along, runs, datasets, comparisons."""

import json
import re
import uuid

import pytest
from django.test import Client

from annotation.models import Completion, Judgment, Round, Slot
from annotation.services.claims import claim_comparison
from annotation.services.judgments import submit_judgment
from annotation.submissions import Submission
from tests.cast import Cast, add_prompts, add_simulated, assemble, open_ranking
from tests.pages import text_of
from tests.written import write_answer
from training.models import Checkpoint, PreferenceDataset, RunInput, RunMetric, TrainingRun, WorkStatus
from training.services.checkpoints import register_policy
from training.services.snapshots import snapshot_rounds

pytestmark = pytest.mark.django_db


@pytest.fixture
def cast() -> Cast:
    return assemble()


def add_base(cast: Cast) -> Checkpoint:
    base = Checkpoint.objects.create(project=cast.project, name="base", kind="base", digest="b" * 64)
    register_policy(checkpoint=base)
    register_policy(checkpoint=base, name="base, brief", system_prompt="Be brief.")
    return base


def launch_form(cast: Cast, **changes: object) -> dict[str, object]:
    contestants = cast.project.contestants.filter(checkpoints__isnull=False)
    return {
        "launch_key": str(uuid.uuid4()),
        "kind": "ranking",
        "name": "First",
        "contestants": [contestant.pk for contestant in contestants],
        "train_prompts": 5,
        "held_out_prompts": 5,
        "samples_per_contestant": 1,
        "completions_per_comparison": 2,
        "overlap": 1,
        "audience": "people",
        "priority": 0,
        "dpo": "on",
        "dpo_learning_rate": "0.0001",
        **changes,
    }


def rank_all(cast: Cast, users) -> None:
    """Everybody ranks by the order shown until nothing is left."""
    for user in users:
        while (assignment := claim_comparison(project=cast.project, annotator=user)) is not None:
            ranks = tuple(range(1, len(assignment.shown_order) + 1))
            submit_judgment(assignment=assignment, submission=Submission(uuid.uuid4(), "ranked", ranks))


def add_run(cast: Cast, round: Round, **fields: object) -> TrainingRun:
    return TrainingRun.objects.create(project=cast.project, round=round, step="dpo", method="dpo", **fields)


def test_the_form_launches_a_round_once_however_often_it_is_sent(site: Client, cast: Cast) -> None:
    add_base(cast)
    add_prompts(cast, 8)
    form = launch_form(cast)
    assert site.post("/p/tea/rounds/new/", form).url == "/p/tea/rounds/1/"
    assert site.post("/p/tea/rounds/new/", form).url == "/p/tea/rounds/1/"
    launched = Round.objects.get()
    assert launched.status == Round.Status.GENERATING
    assert [step["method"] for step in launched.training_plan] == ["dpo"]
    assert launched.training_plan[0]["options"]["learning_rate"] == 0.0001
    assert (
        launched.training_plan[0]["options"]["beta"] == 0.1
    )  # a field left empty keeps the recipe's default


def test_a_form_sent_again_with_other_content_says_so_and_sent_once_more_launches_another_round(
    site: Client, cast: Cast
) -> None:
    add_base(cast)
    add_prompts(cast, 8)
    form = launch_form(cast)
    site.post("/p/tea/rounds/new/", form)
    told = site.post("/p/tea/rounds/new/", form | {"overlap": 2})
    assert told.status_code == 400
    assert "opened round 1, which differs in overlap" in text_of(told)
    fresh = re.search(r'name="launch_key" value="([^"]+)"', told.content.decode())[1]
    again = site.post("/p/tea/rounds/new/", form | {"overlap": 2, "launch_key": fresh})
    assert again.url == "/p/tea/rounds/2/"
    assert list(Round.objects.order_by("number").values_list("overlap", flat=True)) == [1, 2]


@pytest.mark.parametrize(
    ("changes", "judge"),
    [
        ({"reward": "on", "judged": "on"}, "reward"),
        ({"reward": "on"}, None),
        ({"judged": "on"}, None),  # by no reward model of this round
    ],
)
def test_what_learns_from_data_is_measured_by_the_rounds_reward_model_when_it_is_asked_for(
    site: Client, cast: Cast, changes: dict[str, str], judge: str | None
) -> None:
    add_base(cast)
    add_prompts(cast, 8)
    assert site.post("/p/tea/rounds/new/", launch_form(cast, kto="on", **changes)).status_code == 302
    plan = {step["step"]: step.get("reward_model") for step in Round.objects.get().training_plan}
    assert (plan["dpo"], plan["kto"]) == (judge, judge)
    assert plan.get("reward") is None


def test_a_launch_that_can_not_work_leaves_no_round_behind(site: Client, cast: Cast) -> None:
    add_base(cast)
    add_prompts(cast, 2)
    no_prompts = site.post(
        "/p/tea/rounds/new/", launch_form(cast, held_out_prompts=0, train_prompts=0, dpo="")
    )
    assert "The project has no prompt for this round" in text_of(no_prompts)
    too_fast = site.post("/p/tea/rounds/new/", launch_form(cast, dpo_learning_rate="2"))
    assert 'id="id_dpo_learning_rate_error"' in too_fast.content.decode()
    nobody = site.post("/p/tea/rounds/new/", launch_form(cast, contestants=[]))
    assert "Choose at least one contestant" in text_of(nobody)
    assert not Round.objects.exists()


def test_a_contestant_of_another_project_can_not_be_chosen(site: Client, cast: Cast) -> None:
    add_base(cast)
    foreign = open_foreign_contestant(cast)
    refused = site.post("/p/tea/rounds/new/", launch_form(cast, contestants=[foreign]))
    assert refused.status_code == 400
    assert not Round.objects.exists()


def open_foreign_contestant(cast: Cast) -> int:
    from annotation.services.members import open_project

    other = open_project(slug="coffee", name="Coffee", user=cast.stranger)
    base = Checkpoint.objects.create(project=other, name="base", kind="base", digest="b" * 64)
    return register_policy(checkpoint=base).pk


def test_a_round_that_needs_somebody_shows_why_and_is_helped_along(site: Client, cast: Cast) -> None:
    round = open_ranking(cast)
    Round.objects.update(status="training", failure="The rankings give 2 pairs.")
    page = text_of(site.get("/p/tea/rounds/1/"))
    assert "The rankings give 2 pairs." in page
    run = add_run(cast, round, status=WorkStatus.FAILED, error="too fast")
    site.post("/p/tea/rounds/1/retry/")
    run.refresh_from_db()
    assert run.status == WorkStatus.QUEUED
    assert Round.objects.get().failure == ""
    again = site.post("/p/tea/rounds/1/retry/", follow=True)
    assert "Nothing has failed in this round." in text_of(again)


def test_ranking_is_ended_by_a_button_once_confirmed(site: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=2, overlap=2)
    assert "0 of 4 places are filled" in text_of(site.get("/p/tea/rounds/1/end-ranking/"))
    assert Slot.objects.filter(state="open").count() == 4
    site.post("/p/tea/rounds/1/end-ranking/")
    assert Slot.objects.filter(state="closed").count() == 4


def test_a_round_is_cancelled_once_confirmed(site: Client, cast: Cast) -> None:
    open_ranking(cast)
    site.get("/p/tea/rounds/1/cancel/")
    assert Round.objects.get().status == Round.Status.RANKING
    page = site.post("/p/tea/rounds/1/cancel/", follow=True)
    assert Round.objects.get().status == Round.Status.CANCELLED
    assert "What was judged is kept" in text_of(page)
    assert "hx-get" not in page.content.decode()


def test_the_live_part_is_sent_only_when_it_has_changed(site: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=1, overlap=1)
    seen = re.search(r"live/\?seen=(\w+)", site.get("/p/tea/rounds/1/").content.decode())[1]
    assert site.get("/p/tea/rounds/1/live/", {"seen": seen}).status_code == 204
    rank_all(cast, [cast.anna])
    changed = site.get("/p/tea/rounds/1/live/", {"seen": seen})
    assert changed.status_code == 200
    assert "1 of 1 places filled" in text_of(changed)


@pytest.mark.parametrize("action", ["launch", "retry", "skip"])
def test_acting_on_a_round_takes_a_post_and_a_researcher(client: Client, cast: Cast, action: str) -> None:
    open_ranking(cast)
    client.force_login(cast.anna)
    assert client.post(f"/p/tea/rounds/1/{action}/").status_code == 404
    client.force_login(cast.researcher)
    assert client.get(f"/p/tea/rounds/1/{action}/").status_code == 405


def test_a_run_shows_its_error_and_its_newest_measurements(site: Client, cast: Cast) -> None:
    round = open_ranking(cast)
    run = add_run(cast, round, status=WorkStatus.RUNNING, attempt=2, error="killed by signal 9")
    assert "killed by signal 9" in text_of(site.get(f"/p/tea/runs/{run.pk}/"))
    for attempt, step, value in ((1, 1, 0.7), (1, 2, 0.6), (2, 2, 0.5)):
        RunMetric.objects.create(run=run, attempt=attempt, step=step, name="loss", value=value)
    first = site.get(f"/p/tea/runs/{run.pk}/metrics.json").json()
    assert first["rows"] == [["loss", 1, 0.7], ["loss", 2, 0.6], ["loss", 2, 0.5]]
    assert first["over"] is False
    RunMetric.objects.create(run=run, attempt=2, step=3, name="loss", value=0.4)
    more = site.get(f"/p/tea/runs/{run.pk}/metrics.json", {"after": first["last"]}).json()
    assert more["rows"] == [["loss", 3, 0.4]]


def test_a_running_run_is_asked_to_stop(site: Client, cast: Cast) -> None:
    run = add_run(cast, open_ranking(cast), status=WorkStatus.RUNNING)
    site.post(f"/p/tea/runs/{run.pk}/cancel/")
    run.refresh_from_db()
    assert run.status == WorkStatus.CANCELLING


def test_a_run_and_a_dataset_are_not_found_through_another_project(client: Client, cast: Cast) -> None:
    run = add_run(cast, open_ranking(cast))
    open_foreign_contestant(cast)
    client.force_login(cast.stranger)  # admin of coffee, nobody in tea
    assert client.get(f"/p/coffee/runs/{run.pk}/").status_code == 404
    assert client.get(f"/p/coffee/runs/{run.pk}/metrics.json").status_code == 404
    assert client.get("/p/coffee/datasets/1/").status_code == 404


def frozen(cast: Cast) -> tuple[Round, PreferenceDataset]:
    """A rehearsal, ranked by two simulated annotators and frozen."""
    round = open_ranking(cast, comparisons=12, completions=3, audience="rehearsal")
    rank_all(cast, add_simulated(cast))
    return round, snapshot_rounds(project=cast.project, rounds=[round])


def test_the_pairs_of_a_dataset_are_downloaded_in_trl_form(site: Client, cast: Cast) -> None:
    _, dataset = frozen(cast)
    assert "come from simulated annotators" in text_of(site.get(f"/p/tea/datasets/{dataset.pk}/"))
    for split in ("train", "held_out"):
        answer = site.get(f"/p/tea/datasets/{dataset.pk}/{split}.jsonl")
        lines = [json.loads(line) for line in b"".join(answer.streaming_content).splitlines()]
        assert len(lines) == dataset.counts[f"{split}_pairs"] > 0
        assert {"prompt", "chosen", "rejected"} <= set(lines[0])
    assert site.get(f"/p/tea/datasets/{dataset.pk}/elsewhere.jsonl").status_code == 404


def test_a_checkpoint_lists_every_judgment_behind_it(site: Client, cast: Cast) -> None:
    round, dataset = frozen(cast)
    base = add_base(cast)
    run = add_run(cast, round, status=WorkStatus.SUCCEEDED)
    RunInput.objects.create(run=run, role="base", checkpoint=base)
    RunInput.objects.create(run=run, role="data", dataset=dataset)
    trained = Checkpoint.objects.create(
        project=cast.project, name="round-1-dpo", kind="policy", digest="c" * 64, base=base, run=run
    )
    answer = site.get(f"/p/tea/checkpoints/{trained.pk}/")
    assert "1 dataset, 24 judgments: 24 by simulated annotators" in text_of(answer)
    assert answer.context["page"].paginator.count == Judgment.objects.count() == 24


def test_two_versions_are_compared_on_held_out_prompts_and_marked_as_simulated(
    site: Client, cast: Cast
) -> None:
    frozen(cast)
    a, b = cast.project.contestants.order_by("pk")
    page = text_of(site.get("/p/tea/compare/", {"a": a.pk, "b": b.pk}))
    assert "simulated judgments" in page
    held_out = Completion.objects.filter(prompt__split="held_out").values("prompt").distinct().count()
    assert f"of {held_out} comparisons on {held_out} held-out prompts" in page
    assert "Choose two different versions" in text_of(site.get("/p/tea/compare/", {"a": a.pk, "b": a.pk}))


def test_a_comparison_without_judgments_says_what_to_do(site: Client, cast: Cast) -> None:
    assert "Nothing to compare yet" in text_of(site.get("/p/tea/compare/"))
    open_ranking(cast, comparisons=8)
    page = text_of(site.get("/p/tea/compare/"))
    assert "No win rate yet." in page
    assert "Answer 1 to How do I brew tea" in page


def test_a_round_is_frozen_by_hand_and_says_what_waits_for_review(site: Client, cast: Cast, stored) -> None:
    round = open_ranking(cast, comparisons=2, overlap=1)
    assert "Freeze a dataset" not in text_of(site.get("/p/tea/rounds/1/"))  # nothing to freeze yet
    rank_all(cast, [cast.anna])
    first, second = Judgment.objects.order_by("pk")
    write_answer(first, "Waits.", edited_from=first.comparison.completions.first())
    page = text_of(site.get("/p/tea/rounds/1/"))
    assert "1 written answer waits for review" in page
    assert "1 written answer still waits for review and would be left out" in text_of(
        site.get("/p/tea/rounds/1/freeze/")
    )
    assert not PreferenceDataset.objects.exists()
    answers = [site.post("/p/tea/rounds/1/freeze/").url for _ in range(2)]
    dataset = PreferenceDataset.objects.get()
    assert answers == [f"/p/tea/datasets/{dataset.pk}/"] * 2
    assert list(dataset.rounds.all()) == [round]
    assert "People wrote" not in text_of(site.get(answers[0]))

    write_answer(
        second, "<b>Better</b>", edited_from=second.comparison.completions.first(), review="approved"
    )
    address = site.post("/p/tea/rounds/1/freeze/").url
    page = site.get(address)
    assert "People wrote 0 demonstrations and 1 better answer, each approved" in text_of(page)
    split = second.comparison.prompt.split
    other = {"train": "held_out", "held_out": "train"}[split]
    lines = b"".join(site.get(f"{address}sft-{split}.jsonl").streaming_content).decode().splitlines()
    assert json.loads(lines[0])["completion"] == [{"role": "assistant", "content": "<b>Better</b>"}]
    assert len(lines) == 1
    assert b"".join(site.get(f"{address}sft-{other}.jsonl").streaming_content) == b""
    assert site.get(f"{address}sft-all.jsonl").status_code == 404


def test_with_nothing_left_to_freeze_the_round_says_so(site: Client, cast: Cast, stored) -> None:
    open_ranking(cast, comparisons=1)
    page = site.post("/p/tea/rounds/1/freeze/", follow=True)
    assert "Nobody has judged anything in this round yet" in text_of(page)
    assert not PreferenceDataset.objects.exists()


@pytest.mark.parametrize("who", ["anna", "reviewer", "stranger"])
def test_only_researchers_freeze_a_round(client: Client, cast: Cast, stored, who: str) -> None:
    open_ranking(cast, comparisons=1)
    rank_all(cast, [cast.ben])
    client.force_login(getattr(cast, who))
    assert client.post("/p/tea/rounds/1/freeze/").status_code == 404
    assert not PreferenceDataset.objects.exists()
