"""Rounds in which annotators write the ideal answers: from opening to close, and that nothing else comes of them."""

import re
import uuid

import pytest
from django.core.exceptions import ValidationError

from annotation.models import Comparison, Completion, Contestant, Round, Slot
from annotation.services.claims import claim_comparison, skip_comparison
from annotation.services.comparisons import open_comparisons
from rankloop.errors import Refused
from tests.cast import add_contestants, add_prompts, add_simulated
from tests.pages import text_of
from tests.training.stage import PLAN, advance, draft, launch, rank, status_of
from training.models import Evaluation, GenerationJob, PreferenceDataset, TrainingRun
from training.services.checkpoints import register_policy
from training.services.evaluations import measure_round
from training.services.rounds import active_round_ids, end_ranking, open_next_round, open_round

pytestmark = pytest.mark.django_db

PROMPTS = 14


@pytest.fixture
def prompts(cast) -> list:
    return add_prompts(cast, PROMPTS)


def demonstrations(cast, **changes) -> Round:
    values = {"name": "Ideal answers", "contestants": [], "kind": "demonstration", **changes}
    return open_round(project=cast.project, user=cast.researcher, **values)


def launched(cast, **changes) -> Round:
    round = demonstrations(cast, **changes)
    launch(round)
    assert advance(round) == "ranking", round.failure
    return round


def write(cast, annotator) -> int:
    """The annotator answers each prompt that is left for them; how many."""
    return rank(cast, [annotator], outcome="demonstrated", ranks=[], text="The ideal answer.")


# --- opening ---


def test_one_answer_to_each_train_prompt_unless_told_otherwise(cast):
    cast.project.overlap = 3
    round = demonstrations(cast)
    assert (round.kind, round.overlap, round.held_out_prompts, round.training_plan) == (
        "demonstration",
        1,
        0,
        [],
    )
    assert (round.audience, round.contestants.count()) == ("people", 0)
    told = demonstrations(cast, overlap=2, held_out_prompts=5, train_prompts=7)
    assert (told.overlap, told.held_out_prompts, told.train_prompts) == (2, 5, 7)


def test_what_goes_with_ranking_is_refused(cast, base):
    with pytest.raises(Refused, match="Leave the contestants out"):
        demonstrations(cast, contestants=[register_policy(checkpoint=base)])
    with pytest.raises(Refused, match="nothing can be trained"):
        demonstrations(cast, training_plan=PLAN)
    with pytest.raises(Refused, match="Only people write demonstrations"):
        demonstrations(cast, audience="rehearsal")
    with pytest.raises(ValidationError, match="less than or equal to 20"):
        demonstrations(cast, overlap=21)
    with pytest.raises((ValidationError, Refused)):
        demonstrations(cast, kind="magic")
    assert not Round.objects.exists()


def test_a_launch_key_makes_one_round_of_this_kind_too(cast):
    key = uuid.uuid4()
    assert demonstrations(cast, launch_key=key) == demonstrations(cast, launch_key=key)
    assert Round.objects.count() == 1


def test_without_a_train_prompt_it_is_not_launched(cast):
    with pytest.raises(Refused, match="no prompt for this round"):
        launch(demonstrations(cast))


# --- carrying on ---


def test_the_driver_generates_nothing_and_opens_one_comparison_for_each_train_prompt(cast, prompts):
    launched(cast, overlap=2)
    assert not GenerationJob.objects.exists()
    train = {prompt.pk for prompt in prompts if prompt.split == "train"}
    comparisons = Comparison.objects.all()
    assert {row.prompt_id for row in comparisons} == train
    assert {(row.kind, row.completions.count()) for row in comparisons} == {("demonstration", 0)}
    assert sorted(row.ordinal for row in comparisons) == list(range(1, len(train) + 1))
    assert Slot.objects.filter(state="open").count() == 2 * len(train)


def test_opening_the_comparisons_again_adds_nothing(cast, prompts):
    round = launched(cast)
    before = list(Comparison.objects.order_by("pk").values())
    assert open_comparisons(round=round) == len(before)
    advance(round)
    assert list(Comparison.objects.order_by("pk").values()) == before


def test_a_round_is_written_and_closes_and_nothing_else_comes_of_it(cast, prompts):
    round = launched(cast, overlap=2, held_out_prompts=3)
    wanted = round.prompts.count()
    assert round.prompts.filter(split="held_out").count() == 3
    assert write(cast, cast.anna) == wanted
    assert advance(round) == "ranking"
    assert write(cast, cast.ben) == wanted
    assert (advance(round), round.failure) == ("closed", "")
    assert active_round_ids() == []
    assert Round.objects.count() == 1
    for nothing in (TrainingRun, PreferenceDataset, Evaluation, GenerationJob):
        assert not nothing.objects.exists()
    assert round.contestants.count() == 0


def test_measuring_and_opening_a_next_round_do_nothing_however_often(cast, prompts):
    round = launched(cast)
    write(cast, cast.anna)
    assert advance(round) == "closed"
    measure_round(round=round)
    assert open_next_round(round=round) is None
    Round.objects.update(status="evaluating")
    assert advance(round) == "closed"
    assert (Round.objects.count(), Evaluation.objects.count()) == (1, 0)


def test_writing_ends_by_a_button_with_what_is_there(cast, prompts):
    round = launched(cast)
    assignment = claim_comparison(project=cast.project, annotator=cast.anna)
    skip_comparison(assignment=assignment, reason="not for me")
    end_ranking(round=round, user=cast.researcher)
    assert set(Slot.objects.values_list("state", flat=True)) == {"closed"}
    assert advance(round) == "closed"


def test_simulated_annotators_are_given_no_demonstration(cast, prompts):
    launched(cast)
    (simulated,) = add_simulated(cast, 1)
    assert claim_comparison(project=cast.project, annotator=simulated) is None


def test_a_round_of_each_kind_side_by_side_keep_their_comparisons_apart(cast, base, prompts):
    ranking = draft(cast, base)
    launch(ranking)
    assert advance(ranking) == "generating"
    round = launched(cast)
    write(cast, cast.anna)
    assert advance(round) == "closed"
    # The person who wrote is a contestant now, and of no round: nothing is generated for them.
    assert Contestant.objects.filter(kind="person").count() == 1
    assert advance(ranking) == "generating"
    assert set(ranking.contestants.values_list("kind", flat=True)) == {"policy"}
    assert status_of(ranking) == "generating"


# --- pages ---


def form(**changes) -> dict:
    """What a browser sends: the hidden fields of the other kind too."""
    return {
        "launch_key": str(uuid.uuid4()),
        "kind": "demonstration",
        "name": "Ideal answers",
        "train_prompts": 5,
        "held_out_prompts": 40,
        "held_out_answered": 1,
        "answers": 2,
        "samples_per_contestant": 2,
        "completions_per_comparison": 4,
        "overlap": 3,
        "audience": "people",
        "priority": 0,
        "reward": "on",
        "dpo": "on",
        **changes,
    }


def test_the_form_launches_a_round_of_demonstrations_without_any_model(site, cast, prompts):
    page = text_of(site.get("/p/tea/rounds/new/"))
    assert "Demonstrations can be written without one." in page
    assert site.post("/p/tea/rounds/new/", form()).url == "/p/tea/rounds/1/"
    round = Round.objects.get()
    assert (round.kind, round.status, round.overlap) == ("demonstration", "generating", 2)
    assert (round.train_prompts, round.held_out_prompts, round.training_plan) == (5, 1, [])
    assert {prompt.split for prompt in round.prompts.all()} == {"train", "held_out"}


def test_what_the_form_hides_is_left_out_however_wrong(site, cast, base, prompts):
    writer = register_policy(checkpoint=base)
    wrong = {"contestants": [writer.pk], "overlap": "many", "reward_steps": "-4", "audience": ""}
    assert site.post("/p/tea/rounds/new/", form(**wrong)).status_code == 302
    assert Round.objects.get().contestants.count() == 0
    other = form(kind="ranking", contestants=[writer.pk], answers="", held_out_answered="x", overlap=1)
    assert site.post("/p/tea/rounds/new/", other).status_code == 302
    assert Round.objects.get(number=2).overlap == 1


def test_what_the_form_shows_must_be_right(site, cast, base, prompts):
    for wrong in (
        {"answers": ""},
        {"answers": 0},
        {"held_out_answered": -1},
        {"kind": ""},
        {"kind": "magic"},
    ):
        assert site.post("/p/tea/rounds/new/", form(**wrong)).status_code == 400
    nobody = site.post("/p/tea/rounds/new/", form(kind="ranking"))
    assert "Choose at least one contestant." in text_of(nobody)
    assert not Round.objects.exists()


def test_only_contestants_that_can_write_are_offered(site, cast, base, prompts):
    register_policy(checkpoint=base)
    (person,) = add_contestants(cast, "anna, who edited answers")
    page = text_of(site.get("/p/tea/rounds/new/"))
    assert "anna, who edited answers" not in page
    refused = site.post("/p/tea/rounds/new/", form(kind="ranking", contestants=[person.pk]))
    assert refused.status_code == 400
    assert "anna, who edited answers" in text_of(site.get("/p/tea/compare/"))


def test_pages_speak_of_writing(site, cast, prompts):
    launched(cast, train_prompts=4)
    page = text_of(site.get("/p/tea/rounds/1/"))
    assert "0 of 4 answers written to 4 prompts" in page
    assert "End writing now" in page
    assert "Ranked together" not in page
    assert re.search(r'aria-current="step">writing<', site.get("/p/tea/rounds/1/").content.decode())
    write(cast, cast.anna)
    assert "4 of 4 answers written" in text_of(site.get("/p/tea/rounds/1/"))
    Completion.objects.filter(pk=Completion.objects.first().pk).update(review="approved")
    counted = re.findall(r"<dd>(\d+)</dd>", site.get("/p/tea/rounds/1/").content.decode())
    assert counted[:3] == ["3", "1", "0"]  # waiting, approved, declined
    listed = text_of(site.get("/p/tea/rounds/"))
    assert "Ideal answers demonstrations" in listed
    assert "writing" in listed
    assert "End the writing of “Ideal answers” now?" in text_of(site.get("/p/tea/rounds/1/end-ranking/"))
