"""My work: what I said, what became of it, my own pace, and taking a judgment back."""

import uuid
from datetime import UTC, date, datetime, timedelta

import pytest
from django.test import Client
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from annotation.models import Assignment, Judgment, Project, Prompt, Slot
from annotation.services.claims import claim_comparison
from annotation.services.judgments import revise_judgment, submit_judgment, withdraw_judgment
from annotation.submissions import Note, Submission
from rankloop.accounts.models import User
from tests import written as by_hand
from tests.cast import Cast, open_ranking
from tests.pages import text_of
from tests.training.test_uses import add_checkpoint
from training.models import Checkpoint, PreferenceDataset
from training.selectors.datasets import revised_since
from training.selectors.my_work import own_pace
from training.services.snapshots import snapshot_rounds

pytestmark = pytest.mark.django_db
PAGE = "/p/tea/my-work/"
API = "/api/v1/projects/tea/my-judgments"


def judge(cast: Cast, user: User, *, outcome: str = "ranked", ranks=(1, 2, 2, 3), **values) -> Judgment:
    """The user judges what comes next."""
    assignment = claim_comparison(project=cast.project, annotator=user)
    ranks = ranks[: len(assignment.shown_order)] if outcome == "ranked" else ()
    submission = Submission(uuid.uuid4(), outcome, ranks, **values)
    return submit_judgment(assignment=assignment, submission=submission)


def revise(judgment: Judgment, *, outcome: str = "ranked", ranks=(), **values) -> Judgment:
    return revise_judgment(
        assignment=judgment.assignment,
        submission=Submission(uuid.uuid4(), outcome, ranks, **values),
        replaces=judgment.submission_key,
    )


def withdraw(judgment: Judgment) -> Judgment:
    return withdraw_judgment(assignment=judgment.assignment, submission_key=uuid.uuid4())


def freeze(cast: Cast) -> PreferenceDataset:
    return snapshot_rounds(project=cast.project, rounds=list(cast.project.rounds.all()))


def to_split(judgment: Judgment, split: str) -> None:
    Prompt.objects.filter(comparisons=judgment.comparison).update(split=split)


def mine(client: Client, show: str = "all") -> list[dict]:
    return client.get(API, {"show": show}).json()["results"]


@pytest.fixture
def anna(client: Client, cast: Cast, stored) -> Client:
    """A browser in which Anna is signed in."""
    client.force_login(cast.anna)
    return client


# --- what I said ---


def test_my_judgments_are_told_by_the_positions_i_saw_newest_first(anna: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=4)
    judge(cast, cast.anna, ranks=(2, 3, 1, 2))
    judge(cast, cast.anna, outcome="all_bad")
    judge(cast, cast.anna, outcome="cannot_judge", reason="It is in Dutch.")
    by_hand.demonstrate(judge(cast, cast.anna), "Use soft water.")
    judge(cast, cast.ben, ranks=(1, 1, 1, 1))
    said = [(row["said"], row["reason"], row["outcome"]) for row in mine(anna)]
    assert said == [
        ("Wrote the answer", "", "demonstrated"),
        ("Cannot judge", "It is in Dutch.", "cannot_judge"),
        ("All bad", "", "all_bad"),
        ("3 > 1 = 4 > 2", "", "ranked"),
    ]
    page = text_of(anna.get(PAGE))
    assert "3 &gt; 1 = 4 &gt; 2" in page
    assert "It is in Dutch." in page
    assert "1 = 2 = 3 = 4" not in page  # Ben's


def test_a_pair_is_told_with_its_strength(anna: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=1, completions=2)
    judge(cast, cast.anna, ranks=(2, 1), strength=3)
    assert mine(anna)[0]["said"] == "B better than A, significantly"


def test_flags_comments_and_written_answers_come_back_with_their_review(anna: Client, cast: Cast) -> None:
    Project.objects.update(aspects=["tone"])
    open_ranking(cast, comparisons=1)
    note = Note(position=2, flags=["unsafe"], aspects={"tone": 4}, comment="Too hot.", better="Cooler.")
    judgment = judge(cast, cast.anna, notes=[note])
    judgment.written.update(review="declined", review_note="Too short.")
    (row,) = mine(anna)
    assert row["remarks"] == [
        {"label": "2", "flags": ["unsafe"], "aspects": {"tone": 4}, "comment": "Too hot."}
    ]
    assert row["written"] == [{"label": "2", "text": "Cooler.", "review": "declined", "note": "Too short."}]
    page = text_of(anna.get(PAGE))
    for text in ("unsafe", "tone 4", "Too hot.", "Your better answer to 2", "declined", "Too short."):
        assert text in page


def test_a_revision_stands_in_place_of_what_was_said_before(anna: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=1)
    revise(judge(cast, cast.anna), ranks=(4, 3, 2, 1))
    (row,) = mine(anna)
    assert (row["said"], row["is_revised"], row["is_withdrawn"]) == ("4 > 3 > 2 > 1", True, False)


def test_a_withdrawn_judgment_is_shown_as_it_was(anna: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=2)
    withdraw(revise(judge(cast, cast.anna), ranks=(4, 3, 2, 1)))
    withdraw(judge(cast, cast.anna))
    rows = [(row["said"], row["is_revised"], row["is_withdrawn"]) for row in mine(anna)]
    assert rows == [("1 > 2 = 3 > 4", False, True), ("4 > 3 > 2 > 1", True, True)]
    page = text_of(anna.get(PAGE))
    assert "Never used." in page
    assert "Revise" not in page


def test_late_and_masked_judgments_say_so(anna: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=1, overlap=1)
    late = claim_comparison(project=cast.project, annotator=cast.anna)
    Assignment.objects.update(lease_until=timezone.now() - timedelta(minutes=1), leak_masked=True)
    judge(cast, cast.ben)
    submit_judgment(assignment=late, submission=Submission(uuid.uuid4(), "ranked", (1, 2, 3, 4)))
    (row,) = mine(anna)
    assert (row["is_counted"], row["is_masked"]) == (False, True)
    page = text_of(anna.get(PAGE))
    assert "late, not counted" in page
    assert "masked" in page
    assert "kept and not used" in page


def test_a_sensitive_prompt_stays_folded(anna: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=1)
    judge(cast, cast.anna)
    Prompt.objects.update(tags=["violence", "tea"])
    assert mine(anna)[0]["sensitive"] == ["violence"]
    assert "A sensitive prompt (violence)" in text_of(anna.get(PAGE))
    Project.objects.update(blur_sensitive=False)
    assert "A sensitive prompt" not in text_of(anna.get(PAGE))


# --- what it was used for ---


def test_every_dataset_and_model_that_came_of_it_is_told(anna: Client, cast: Cast, base) -> None:
    open_ranking(cast, comparisons=2)
    judgment, tested = judge(cast, cast.anna), judge(cast, cast.anna)
    to_split(judgment, "train")
    to_split(tested, "held_out")
    assert "Not used yet" in text_of(anna.get(PAGE))
    dataset = freeze(cast)
    add_checkpoint(cast, base, "reward", data=dataset)
    policy = add_checkpoint(cast, base, "policy", data=dataset)
    add_checkpoint(cast, base, "policy", parent=policy)
    rows = mine(anna)
    assert [row["part"] for row in rows] == ["measured", "taught"]
    for row in rows:
        (use,) = row["used_in"]
        assert (use["dataset"], use["is_outdated"]) == (dataset.digest, False)
        assert (use["trained"], use["further"]) == (["reward model 1", "policy 1"], ["policy 2"])
    page = text_of(anna.get(PAGE))
    assert f"Used in dataset {dataset.digest[:8]}" in page
    assert "→ taught reward model 1, policy 1 → and through them policy 2" in page
    assert "→ measured reward model 1, policy 1" in page
    assert page.count("policy 2") == 1  # it was not measured with what its parent was measured with


def test_what_prefers_nothing_is_kept_and_teaches_nothing(anna: Client, cast: Cast, base) -> None:
    open_ranking(cast, comparisons=3)
    judge(cast, cast.anna, outcome="all_bad")
    judge(cast, cast.anna, outcome="cannot_judge", reason="Dutch.")
    judge(cast, cast.anna, ranks=(1, 1, 1, 1))
    add_checkpoint(cast, base, "reward", data=freeze(cast))
    assert [row["part"] for row in mine(anna)] == ["kept"] * 3
    page = text_of(anna.get(PAGE))
    assert page.count("Kept in dataset") == 3
    assert "taught" not in page


def test_a_dataset_from_before_a_change_is_marked(anna: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=2)
    revised, withdrawn = judge(cast, cast.anna), judge(cast, cast.anna)
    before = freeze(cast)
    revise(revised, ranks=(4, 3, 2, 1))
    withdraw(withdrawn)
    after = freeze(cast)
    rows = {row["is_withdrawn"]: row["used_in"] for row in mine(anna)}
    assert [(use["dataset"], use["is_outdated"]) for use in rows[False]] == [
        (before.digest, True),
        (after.digest, False),
    ]
    assert [(use["dataset"], use["is_outdated"]) for use in rows[True]] == [(before.digest, True)]
    page = text_of(anna.get(PAGE))
    assert "as it was before you changed it" in page
    assert "as it was before you withdrew it" in page


def test_the_filters_part_used_from_unused_and_withdrawn(anna: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=4)
    first, second = judge(cast, cast.anna), judge(cast, cast.anna)
    freeze(cast)
    revise(first, ranks=(4, 3, 2, 1))  # used in its first form
    withdraw(second)
    third, fourth = judge(cast, cast.anna), judge(cast, cast.anna)
    withdraw(fourth)
    found = {
        show: {row["assignment"] for row in mine(anna, show)}
        for show in ("all", "used", "unused", "withdrawn")
    }
    ids = [str(judgment.assignment_id) for judgment in (first, second, third, fourth)]
    assert found == {"all": set(ids), "used": set(ids[:2]), "unused": {ids[2]}, "withdrawn": {ids[1], ids[3]}}
    for show, wanted in found.items():
        html = anna.get(PAGE, {"show": show}).content.decode()
        assert html.count('class="judged"') == len(wanted)
    assert anna.get(API, {"show": "everything"}).status_code == 400
    assert anna.get(PAGE, {"show": "everything"}).content.decode().count('class="judged"') == 4


@pytest.mark.parametrize("show", ["all", "used", "unused", "withdrawn"])
def test_an_empty_list_says_what_will_be_there(anna: Client, show: str) -> None:
    page = anna.get(PAGE, {"show": show}).content.decode()
    assert 'class="empty"' in page
    assert "NaN" not in page


def test_researchers_are_led_from_their_own_work_to_dataset_and_checkpoint(
    client: Client, cast: Cast, base
) -> None:
    open_ranking(cast, comparisons=1)
    to_split(judge(cast, cast.researcher), "train")
    dataset = freeze(cast)
    reward = add_checkpoint(cast, base, "reward", data=dataset)
    client.force_login(cast.researcher)
    html = client.get(PAGE).content.decode()
    for address in (f"/p/tea/datasets/{dataset.pk}/", f"/p/tea/checkpoints/{reward.pk}/"):
        assert f'href="{address}"' in html
        assert client.get(address).status_code == 200


# --- blind, safe, and one's own ---


def test_nothing_tells_contestants_or_completions(anna: Client, cast: Cast, base) -> None:
    open_ranking(cast, comparisons=1)
    note = Note(position=1, flags=["other"], comment="Hm.", better="My own words.")
    judgment = judge(cast, cast.anna, notes=[note])
    judgment.written.update(review="approved")
    checkpoint = add_checkpoint(cast, base, "policy", data=freeze(cast))
    Checkpoint.objects.filter(pk=checkpoint.pk).update(name="its-permanent-name")
    (row,) = mine(anna)
    html = anna.get(PAGE).content.decode()
    for told in ("plain", "polite", "its-permanent-name", base.name, "Steep it"):
        assert told not in html, told
        assert told not in str(row), told
    assert "/datasets/" not in html
    assert "/checkpoints/" not in html
    assert set(row) == {
        *("assignment", "at", "round", "prompt", "sensitive", "outcome", "part", "said", "reason"),
        *("is_revised", "is_withdrawn", "is_counted", "is_masked", "revisable_until"),
        *("remarks", "written", "used_in"),
    }
    assert set(row["used_in"][0]) == {"dataset", "frozen_at", "is_outdated", "trained", "further"}
    assert row["used_in"][0]["trained"] == ["policy 1"]


def test_every_text_is_escaped(anna: Client, cast: Cast) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    Project.objects.update(flags=["<b>flag</b>"])
    round = open_ranking(cast, comparisons=1)
    round.name = evil[:100]
    round.save()
    note = Note(position=1, flags=["<b>flag</b>"], comment=evil, better=evil)
    judgment = judge(cast, cast.anna, notes=[note], reason=evil)
    judgment.written.update(review="declined", review_note=evil)
    prompt = judgment.comparison.prompt
    prompt.messages = [{"role": "user", "content": evil}]
    prompt.save()
    for address in (PAGE, f"{PAGE}{judgment.assignment_id}/withdraw/"):
        html = anna.get(address).content.decode()
        assert html.count("&lt;script&gt;alert(2)") >= 5  # prompt, reason, comment, answer, note
        assert "<img" not in html
        assert "<script>" not in html
        assert "<b>" not in html


def test_the_page_and_the_api_are_for_members(client: Client, cast: Cast, stored) -> None:
    assert client.get(PAGE).url.startswith("/sign-in/")
    client.force_login(cast.stranger)
    assert client.get(PAGE).status_code == client.get(API).status_code == 404
    for who in (cast.anna, cast.reviewer, cast.researcher, cast.admin):
        client.force_login(who)
        assert client.get(PAGE).status_code == client.get(API).status_code == 200
        assert "My work" in text_of(client.get("/p/tea/"))


def test_judgments_of_another_project_are_not_here(anna: Client, cast: Cast) -> None:
    from annotation.services.members import add_member, open_project

    other = open_project(slug="coffee", name="Coffee", user=cast.admin)
    add_member(project=other, user=cast.anna, role="annotator")
    open_ranking(cast, comparisons=1)
    judgment = judge(cast, cast.anna)
    assert anna.get("/api/v1/projects/coffee/my-judgments").json()["results"] == []
    assert anna.get(f"/p/coffee/my-work/{judgment.assignment_id}/withdraw/").status_code == 404
    assert own_pace(user=cast.anna, project=other).all == 0


def test_pages_go_on_where_the_last_one_ended(anna: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=23)
    for _ in range(23):
        judge(cast, cast.anna)
    assert anna.get(PAGE).content.decode().count('class="judged"') == 20
    assert anna.get(PAGE, {"page": 2}).content.decode().count('class="judged"') == 3
    first = anna.get(API, {"page_size": 20}).json()
    rest = anna.get(first["next"]).json()
    listed = [row["assignment"] for row in first["results"] + rest["results"]]
    newest = Judgment.objects.order_by("-pk").values_list("assignment_id", flat=True)
    assert listed == [str(pk) for pk in newest]


def test_a_long_page_asks_as_much_of_the_database_as_a_short_one(
    anna: Client, cast: Cast, django_assert_num_queries
) -> None:
    open_ranking(cast, comparisons=6)
    counts = []
    for more in (1, 5):
        for _ in range(more):
            judge(cast, cast.anna, notes=[Note(position=1, better="Mine.", flags=["other"])])
        freeze(cast)
        with django_assert_num_queries(10**6, exact=False) as captured:
            anna.get(PAGE)
        counts.append(len(captured))
    assert counts[0] == counts[1]


# --- my pace ---


NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_my_pace_counts_my_first_judgments_by_day(anna: Client, cast: Cast, monkeypatch) -> None:
    open_ranking(cast, comparisons=12)
    made = {0: [10.0, 30.0, 0.0], 1: [50.0], 6: [20.0, 20.0], 7: [40.0], 13: [60.0], 14: [500.0]}
    for days, seconds in made.items():
        for active_seconds in seconds:
            assignment = claim_comparison(project=cast.project, annotator=cast.anna)
            Slot.objects.filter(assignment=assignment).update(state="filled")
            Assignment.objects.filter(pk=assignment.pk).update(state="submitted")
            with monkeypatch.context() as patch:
                patch.setattr("django.utils.timezone.now", lambda days=days: NOON - timedelta(days=days))
                judgment = Judgment.objects.create(
                    assignment=assignment,
                    comparison=assignment.comparison,
                    annotator=cast.anna,
                    outcome="all_bad",
                    source="person",
                    active_seconds=active_seconds,
                    submission_key=uuid.uuid4(),
                )
    monkeypatch.setattr("django.utils.timezone.now", lambda: NOON)
    by_hand.revise(judgment, active_seconds=9000.0)  # a revision is not another judgment
    pace = own_pace(user=cast.anna, project=cast.project)
    assert (pace.today, pace.week, pace.all) == (3, 6, 9)
    assert pace.median_seconds == 35.0  # of 10 20 20 30 40 50 60 500; one without a time is left out
    assert [bar.number for bar in pace.days] == [1, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 3]
    assert [bar.height for bar in pace.days[-3:]] == [0.0, 0.3333, 1.0]
    assert (pace.days[0].day, pace.days[-1].day, pace.most) == (date(2026, 11, 7), date(2026, 11, 20), 3)
    page = anna.get(PAGE).content.decode()
    assert "7 Nov 1, 8 Nov 0" in page
    assert "20 Nov 3" in page


def test_before_the_first_judgment_there_is_no_pace_to_show(anna: Client, cast: Cast) -> None:
    pace = own_pace(user=cast.anna, project=cast.project)
    assert (pace.today, pace.week, pace.all, pace.median_seconds, pace.most) == (0, 0, 0, None, 0)
    assert '<svg viewBox="0 0 14 1"' not in anna.get(PAGE).content.decode()


# --- revising and withdrawing ---


def test_revise_leads_to_the_ranking_page_while_there_is_time(anna: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=1)
    judgment = judge(cast, cast.anna)
    link = f'href="/p/tea/annotate/?revise={judgment.assignment_id}"'
    assert link in anna.get(PAGE).content.decode()
    assert mine(anna)[0]["revisable_until"] is not None
    Project.objects.update(revise_minutes=0)
    assert link not in anna.get(PAGE).content.decode()
    assert mine(anna)[0]["revisable_until"] is None


def test_the_time_to_revise_runs_from_the_first_judgment(anna: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=1)
    judgment = judge(cast, cast.anna)
    revise(judgment, ranks=(4, 3, 2, 1))
    until = parse_datetime(mine(anna)[0]["revisable_until"])
    assert until == judgment.created_at + timedelta(minutes=cast.project.revise_minutes)


def test_withdrawing_asks_first_and_says_what_happens(anna: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=1)
    judgment = judge(cast, cast.anna)
    address = f"{PAGE}{judgment.assignment_id}/withdraw/"
    assert address in anna.get(PAGE).content.decode()
    page = text_of(anna.get(address))
    assert "1 &gt; 2 = 3 &gt; 4" in page
    assert "It is in no dataset yet" in page
    freeze(cast)
    page = text_of(anna.get(address))
    assert "It is in 1 dataset already. That keeps it and is marked as out of date." in page
    assert "can't be undone" in page
    assert Judgment.objects.count() == 1


def test_a_withdrawal_counts_from_then_on_and_marks_what_was_frozen(anna: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=2)
    kept, judgment = judge(cast, cast.anna), judge(cast, cast.anna)
    before = freeze(cast)
    slots = list(Slot.objects.order_by("pk").values_list("state", "assignment_id"))
    form = {"submission_key": str(uuid.uuid4()), "reason": "I had misread it."}
    answer = anna.post(f"{PAGE}{judgment.assignment_id}/withdraw/", form, follow=True)
    assert answer.redirect_chain == [(PAGE, 302)]
    assert "Withdrawn." in text_of(answer)
    withdrawal = Judgment.objects.get(supersedes=judgment)
    assert (withdrawal.outcome, withdrawal.reason) == ("withdrawn", "I had misread it.")
    assert list(Slot.objects.order_by("pk").values_list("state", "assignment_id")) == slots
    after = freeze(cast)
    assert list(after.members.values_list("judgment_id", flat=True)) == [kept.pk]
    assert revised_since(before) is not None
    assert revised_since(after) is None


def test_a_withdrawal_sent_twice_is_one(anna: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=1)
    judgment = judge(cast, cast.anna)
    address = f"{PAGE}{judgment.assignment_id}/withdraw/"
    for key in (uuid.uuid4(),) * 2 + (uuid.uuid4(),):
        assert anna.post(address, {"submission_key": str(key)}).url == PAGE
    assert Judgment.objects.count() == 2
    assert "You have withdrawn this judgment" in text_of(anna.get(address))


def test_a_withdrawal_with_a_bad_form_keeps_what_was_typed(anna: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=1)
    judgment = judge(cast, cast.anna)
    address = f"{PAGE}{judgment.assignment_id}/withdraw/"
    for form in ({"submission_key": "x", "reason": "Misread."}, {"reason": "Misread."}):
        answer = anna.post(address, form)
        assert answer.status_code == 400
        assert "Misread." in text_of(answer)
    assert Judgment.objects.count() == 1


@pytest.mark.parametrize("who", ["ben", "reviewer", "admin", "stranger"])
def test_nobody_withdraws_what_others_said(client: Client, cast: Cast, stored, who: str) -> None:
    open_ranking(cast, comparisons=2)
    judgment = judge(cast, cast.anna)
    client.force_login(getattr(cast, who))
    for pk in (judgment.assignment_id, uuid.uuid4()):
        address = f"{PAGE}{pk}/withdraw/"
        assert client.get(address).status_code == 404
        assert client.post(address, {"submission_key": str(uuid.uuid4())}).status_code == 404
    assert Judgment.objects.count() == 1


def test_what_is_not_judged_yet_can_not_be_withdrawn(anna: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=1)
    assignment = claim_comparison(project=cast.project, annotator=cast.anna)
    assert anna.get(f"{PAGE}{assignment.pk}/withdraw/").status_code == 404
