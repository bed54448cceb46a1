"""What may be said beside a ranking: strength, flags, aspects, comments, better answers, demonstrations."""

import json
import uuid

import pytest
from django.test import Client

from annotation.models import Assignment, Comparison, Completion, Contestant, Judgment, Round
from annotation.services.claims import claim_comparison
from annotation.services.comparisons import add_comparisons
from annotation.services.judgments import submit_judgment
from annotation.submissions import MOST_COMMENT, MOST_WRITTEN, Note, Submission
from rankloop.errors import Refused
from tests.cast import Cast, add_prompts, assemble, open_ranking

pytestmark = pytest.mark.django_db


@pytest.fixture
def cast() -> Cast:
    cast = assemble()
    cast.project.aspects = ["helpfulness", "tone"]
    cast.project.save()
    return cast


@pytest.fixture
def anna(cast: Cast) -> Client:
    client = Client()
    client.force_login(cast.anna)
    return client


def claimed(cast: Cast, completions: int = 2, **options) -> Assignment:
    open_ranking(cast, comparisons=1, completions=completions, **options)
    return claim_comparison(project=cast.project, annotator=cast.anna)


def said(outcome: str = "ranked", ranks=(1, 2), **more) -> Submission:
    return Submission(uuid.uuid4(), outcome, ranks, **more)


def open_demonstration(cast: Cast) -> Assignment:
    (prompt,) = add_prompts(cast, 1)
    round = Round.objects.create(
        project=cast.project, number=9, name="Write", kind="demonstration", status="ranking", overlap=1
    )
    comparison = Comparison(round=round, prompt=prompt, ordinal=1, kind="demonstration")
    add_comparisons(round=round, comparisons=[comparison], groups=[[]])
    return claim_comparison(project=cast.project, annotator=cast.anna)


def test_strength_flags_aspects_and_comments_are_kept_by_completion(cast):
    assignment = claimed(cast)
    note = Note(position=2, flags=["unsafe", "other", "unsafe"], aspects={"tone": 5}, comment="Ünsafe “tea”")
    judgment = submit_judgment(assignment=assignment, submission=said(strength=3, notes=[note]))
    assert judgment.strength == 3
    first, second = (judgment.ranking.get(completion=pk) for pk in assignment.shown_order)
    assert (first.rank, first.flags, first.aspects, first.comment) == (1, [], {}, "")
    assert (second.rank, second.flags, second.aspects) == (2, ["other", "unsafe"], {"tone": 5})
    assert second.comment == "Ünsafe “tea”"


def test_all_bad_keeps_what_is_said_and_ranks_nothing(cast):
    assignment = claimed(cast)
    judgment = submit_judgment(
        assignment=assignment, submission=said("all_bad", (), notes=[Note(position=1, flags=["unsafe"])])
    )
    (row,) = judgment.ranking.all()
    assert (row.completion_id, row.rank, row.flags) == (assignment.shown_order[0], None, ["unsafe"])


def test_a_tie_has_no_strength_and_its_absence_is_fine(cast):
    assert submit_judgment(assignment=claimed(cast), submission=said(ranks=(1, 1))).strength is None


@pytest.mark.parametrize(
    ("submission", "told"),
    [
        (said(strength=4), "outside this project's scale: send a number from 1 (slightly better) to 3"),
        (said(strength=0), "outside this project's scale"),
        (said(ranks=(1, 1), strength=1), "goes with a preference between two"),
        (said("all_bad", (), strength=1), "goes with a preference between two"),
        (said(notes=[Note(position=3)]), "none of the 2 completions shown"),
        (said(notes=[Note(position=0)]), "none of the 2 completions shown"),
        (said(notes=[Note(position=1), Note(position=1)]), "Two notes are about the same completion"),
        (
            said(notes=[Note(position=1, flags=["nice"])]),
            "has the flag 'nice'. This project's are: factually",
        ),
        (said(notes=[Note(position=1, aspects={"wit": 3})]), "the aspect 'wit'. This project's are: helpful"),
        (said(notes=[Note(position=1, aspects={"tone": 6})]), "gives tone 6 points. Give 1 to 5"),
        (said(notes=[Note(position=1, comment="x" * (MOST_COMMENT + 1))]), "at most 2,000 can be kept"),
        (
            said(notes=[Note(position=2, better="x" * (MOST_WRITTEN + 1))]),
            "Your better answer to completion 2",
        ),
        (said(text="An answer."), "has completions to rank"),
        (said("demonstrated", (), text="An answer."), "has completions to rank"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_do(cast, submission, told):
    assignment = claimed(cast)
    with pytest.raises(Refused) as refused:
        submit_judgment(assignment=assignment, submission=submission)
    assert told in str(refused.value)
    assert not Judgment.objects.exists()


def test_a_scale_without_strengths_takes_none_and_more_than_two_have_none(cast):
    assignment = claimed(cast, completions=3)
    with pytest.raises(Refused, match="between two completions"):
        submit_judgment(assignment=assignment, submission=said(ranks=(1, 2, 3), strength=1))
    cast.project.strength_levels = 1
    cast.project.save()
    with pytest.raises(Refused, match="only which is better"):
        submit_judgment(assignment=assignment, submission=said(ranks=(1, 2, 3), strength=1))


def test_a_better_answer_becomes_a_completion_of_its_author_that_waits_for_review(cast):
    assignment = claimed(cast)
    note = Note(position=2, better="Use water at 80 °C.")
    judgment = submit_judgment(assignment=assignment, submission=said(notes=[note]))
    better = Completion.objects.get(judgment=judgment)
    assert (better.text, better.edited_from_id) == ("Use water at 80 °C.", assignment.shown_order[1])
    assert (better.review, better.prompt) == (Completion.Review.WAITING, assignment.comparison.prompt)
    assert (better.contestant.kind, better.contestant.name) == (Contestant.Kind.PERSON, "anna")


def test_the_same_text_is_no_better_answer_and_nothing_is_recorded(cast):
    assignment = claimed(cast)
    text = Completion.objects.get(pk=assignment.shown_order[0]).text
    with pytest.raises(Refused, match="completion 1 is the same text"):
        submit_judgment(assignment=assignment, submission=said(notes=[Note(position=1, better=f" {text}\n")]))
    assert not Judgment.objects.exists()
    assert Assignment.objects.get().state == Assignment.State.OPEN


def test_a_demonstration_is_written_for_a_prompt_without_completions(cast):
    assignment = open_demonstration(cast)
    judgment = submit_judgment(assignment=assignment, submission=said("demonstrated", (), text="Boil water."))
    written = judgment.written.get()
    assert (written.text, written.edited_from, written.review) == ("Boil water.", None, "waiting")
    assert judgment.is_counted
    assert not judgment.ranking.exists()


@pytest.mark.parametrize(
    ("submission", "told"),
    [
        (said("demonstrated", (), text=" \n"), "The answer is empty"),
        (said("demonstrated", ()), "The answer is empty"),
        (said("demonstrated", (), text="x" * (MOST_WRITTEN + 1)), "at most 20,000 can be kept"),
        (said(), "nothing to rank here"),
        (said("all_bad", ()), "nothing to rank here"),
        (said("demonstrated", (), text="x", notes=[Note(position=1)]), "nothing to rank here"),
        (said("cannot_judge", ()), "why you cannot answer"),
    ],
)
def test_a_demonstration_that_is_not_right_is_refused(cast, submission, told):
    with pytest.raises(Refused) as refused:
        submit_judgment(assignment=open_demonstration(cast), submission=submission)
    assert told in str(refused.value)
    assert not Judgment.objects.exists()


def test_over_the_api_an_answer_too_long_is_refused_and_the_draft_survives(cast, anna):
    assignment = claimed(cast)
    address = f"/api/v1/projects/tea/assignments/{assignment.pk}"
    draft = {"places": [1, 2], "notes": [{"position": 1, "better": "x" * (MOST_WRITTEN + 1)}]}
    kept = anna.put(f"{address}/draft", json.dumps(draft), content_type="application/json")
    assert kept.status_code == 204
    body = {
        "submission_key": str(uuid.uuid4()),
        "outcome": "ranked",
        "ranks": [1, 2],
        "notes": draft["notes"],
    }
    answer = anna.post(f"{address}/submit", json.dumps(body), content_type="application/json")
    assert answer.status_code == 400
    assert "20,001 characters" in answer.json()["detail"]
    assert Assignment.objects.get().draft == draft
    assert anna.get(address).json()["draft"] == draft


def test_a_phrase_that_tells_the_author_is_masked_and_the_assignment_marked(cast, anna):
    open_ranking(cast, comparisons=2, completions=2)
    telling = Completion.objects.order_by("pk").first()
    telling.text = "I am SmolLM2, a model **trained by Hugging Face**."
    telling.save()
    boards = [
        anna.post("/api/v1/projects/tea/claim", json.dumps(body), content_type="application/json").json()
        for body in ({}, {"prefetch": True})
    ]
    first = anna.post("/api/v1/projects/tea/claim", "{}", content_type="application/json").json()
    ahead = anna.post(
        "/api/v1/projects/tea/claim",
        json.dumps({"prefetch": True, "holding": first["assignment"]}),
        content_type="application/json",
    ).json()
    shown = json.dumps([boards, first, ahead], ensure_ascii=False)
    assert "SmolLM" not in shown
    assert "Hugging" not in shown
    assert "I am [masked], a model **[masked]" in shown
    marked = {row.comparison.prompt_id: row.leak_masked for row in Assignment.objects.all()}
    assert marked == {
        prompt: prompt == telling.prompt_id for prompt in Comparison.objects.values_list("prompt", flat=True)
    }


def test_a_better_answer_does_not_keep_a_mask(cast):
    assignment = claimed(cast)
    assignment.leak_masked = True
    note = Note(position=1, better="I am [masked], your tea master.")
    with pytest.raises(Refused, match=r"still has \[masked\] in it"):
        submit_judgment(assignment=assignment, submission=said(notes=[note]))
