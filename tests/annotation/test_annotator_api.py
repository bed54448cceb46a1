"""The annotator's API from the outside: what it answers, whom it answers, and that it never tells who wrote what."""

import json
import re
import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from annotation.models import Assignment, Completion, Contestant, Judgment, Project, Slot
from annotation.services.claims import expire_leases
from annotation.services.members import open_project
from rankloop.accounts.models import ApiToken
from rankloop.accounts.services import open_token, revoke_token
from tests.cast import Cast, add_simulated, assemble, open_ranking

pytestmark = pytest.mark.django_db

CLAIM = "/api/v1/projects/tea/claim"
POSTS = ("submit", "skip", "release", "renew")


@pytest.fixture
def cast() -> Cast:
    return assemble()


def signed_in(user, **options) -> Client:
    client = Client(**options)
    client.force_login(user)
    return client


@pytest.fixture
def anna(cast) -> Client:
    return signed_in(cast.anna)


def post(client: Client, address: str, content: Any = None, **headers):
    return client.post(address, json.dumps(content or {}), content_type="application/json", headers=headers)


def at(assignment: Any, action: str, slug: str = "tea") -> str:
    return f"/api/v1/projects/{slug}/assignments/{assignment}/{action}"


def claim(client: Client, **body) -> dict[str, Any]:
    answer = post(client, CLAIM, body)
    assert answer.status_code == 200, answer.content
    return answer.json()


def judgment(*ranks: int, **changes) -> dict[str, Any]:
    return {"submission_key": str(uuid.uuid4()), "outcome": "ranked", "ranks": list(ranks), **changes}


# --- what it answers ---


def test_a_claim_answers_with_the_prompt_and_the_completions_by_position(cast, anna):
    open_ranking(cast, comparisons=1)
    answer = claim(anna)
    row = Assignment.objects.get()
    assert answer["assignment"] == str(row.pk)
    assert datetime.fromisoformat(answer["lease_until"]) == row.lease_until
    assert answer["round"] == {"name": "Round 1", "rehearsal": False}
    assert answer["draft"] is None
    (message,) = answer["prompt"]["messages"]
    assert (message["role"], message["text"]) == ("user", "How do I brew tea number 0?")
    texts = dict(Completion.objects.values_list("pk", "text"))
    assert [c["position"] for c in answer["completions"]] == [1, 2, 3, 4]
    assert [c["text"] for c in answer["completions"]] == [texts[pk] for pk in row.shown_order]
    assert all("<strong>" in c["html"] for c in answer["completions"])


def test_a_rehearsal_is_called_one(cast):
    simulated = add_simulated(cast)[0]
    open_ranking(cast, audience="rehearsal")
    assert claim(signed_in(simulated))["round"]["rehearsal"] is True


def test_nothing_left_is_answered_with_no_content(cast, anna):
    assert post(anna, CLAIM).status_code == 204


def test_a_paused_project_is_refused_with_a_reason(cast, anna):
    open_ranking(cast)
    Project.objects.update(is_paused=True)
    answer = post(anna, CLAIM)
    assert answer.status_code == 400
    assert "paused" in answer.json()["detail"]


def test_a_second_comparison_can_be_fetched_ahead(cast, anna):
    open_ranking(cast)
    first = claim(anna)
    ahead = claim(anna, prefetch=True, holding=first["assignment"])
    assert ahead["assignment"] != first["assignment"]
    assert claim(anna)["assignment"] in (first["assignment"], ahead["assignment"])


def test_a_judgment_is_recorded_and_a_repeat_answered_alike(cast, anna):
    open_ranking(cast)
    assignment = claim(anna)["assignment"]
    sent = judgment(2, 1, 1, 3, active_seconds=4.5)
    first, again = post(anna, at(assignment, "submit"), sent), post(anna, at(assignment, "submit"), sent)
    assert (first.status_code, first.json()) == (200, {"recorded": True, "counted": True})
    assert (again.status_code, again.json()) == (200, {"recorded": True, "counted": True})
    assert Judgment.objects.count() == 1


def test_another_body_under_the_same_key_is_a_conflict(cast, anna):
    open_ranking(cast)
    assignment = claim(anna)["assignment"]
    sent = judgment(1, 2, 3, 4)
    post(anna, at(assignment, "submit"), sent)
    answer = post(anna, at(assignment, "submit"), {**sent, "ranks": [4, 3, 2, 1]})
    assert (answer.status_code, set(answer.json())) == (409, {"detail"})
    answer = post(anna, at(assignment, "submit"), judgment(4, 3, 2, 1))
    assert answer.status_code == 409
    assert Judgment.objects.get().ranking.count() == 4


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"outcome": "ranked", "ranks": [1, 2, 3, 4]},
        judgment(),
        judgment(1, 2, 3),
        judgment(1, 2, 3, 4, 4),
        judgment(1, 1, 3, 4),
        judgment(0, 1, 2, 3),
        judgment(1, 2, 3, 9),
        judgment(1, 2, 3, "four"),
        judgment(1, 2, 3, None),
        judgment(1, 2, 3, 1.5),
        judgment(1, 2, 3, 4, outcome="splendid"),
        judgment(1, 2, 3, 4, outcome="withdrawn"),
        judgment(1, 2, 3, 4, outcome="all_bad"),
        judgment(outcome="cannot_judge"),
        judgment(outcome="cannot_judge", reason=" "),
        judgment(1, 2, 3, 4, submission_key="42"),
        judgment(1, 2, 3, 4, active_seconds=-1),
        judgment(1, 2, 3, 4, reason="x" * 2001),
        judgment(outcome="all_bad", reason="a\x00b"),
        judgment(outcome="all_bad", reason="\ud800"),
        {**judgment(), "ranks": {"1": 2}},
        [1, 2, 3, 4],
        "ranked",
    ],
)
def test_a_body_that_is_not_right_is_refused_in_words_and_nothing_is_recorded(cast, anna, body):
    open_ranking(cast)
    assignment = claim(anna)["assignment"]
    answer = anna.post(at(assignment, "submit"), json.dumps(body), content_type="application/json")
    assert answer.status_code == 400
    assert isinstance(answer.json()["detail"], str)
    assert not Judgment.objects.exists()
    assert post(anna, at(assignment, "submit"), judgment(1, 2, 3, 4)).status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"active_seconds": NaN}', b"[" * 500])
def test_a_body_that_is_not_json_is_refused(cast, anna, body):
    open_ranking(cast)
    assignment = claim(anna)["assignment"]
    assert anna.post(at(assignment, "submit"), body, content_type="application/json").status_code == 400
    assert not Judgment.objects.exists()


def test_field_errors_name_their_fields(cast, anna):
    open_ranking(cast)
    answer = post(anna, at(claim(anna)["assignment"], "submit"), judgment(1, 2, 3, 9, outcome="splendid"))
    assert set(answer.json()) == {"detail", "fields"}
    assert set(answer.json()["fields"]) == {"outcome", "ranks"}


def test_a_late_judgment_is_recorded_and_told_not_to_count(cast, anna):
    open_ranking(cast, comparisons=1, overlap=1)
    late = claim(anna)["assignment"]
    Assignment.objects.update(lease_until=timezone.now() - timedelta(minutes=1))
    ben = signed_in(cast.ben)
    assert claim(ben)["assignment"] != late
    answer = post(anna, at(late, "submit"), judgment(1, 2, 3, 4))
    assert answer.json() == {"recorded": True, "counted": False}


def test_skipping_and_giving_back_answer_with_no_content(cast, anna):
    open_ranking(cast)
    first = claim(anna)["assignment"]
    assert post(anna, at(first, "release")).status_code == 204
    again = claim(anna)["assignment"]
    assert again == first
    assert post(anna, at(first, "skip"), {"reason": "Not my language."}).status_code == 204
    assert claim(anna)["assignment"] != first
    assert Assignment.objects.get(pk=first).reason == "Not my language."


def test_renewing_tells_the_new_end_of_the_lease(cast, anna):
    open_ranking(cast)
    assignment = claim(anna)["assignment"]
    Assignment.objects.update(lease_until=timezone.now() + timedelta(seconds=1))
    answer = post(anna, at(assignment, "renew"))
    assert answer.status_code == 200
    row = Assignment.objects.get()
    assert datetime.fromisoformat(answer.json()["lease_until"]) == row.lease_until
    assert row.lease_until > timezone.now() + timedelta(minutes=1)
    assert 890 < answer.json()["lease_seconds"] <= 900


def test_a_lease_that_ran_out_is_had_again_while_a_place_is_free_and_is_a_conflict_after(cast, anna):
    open_ranking(cast, comparisons=1, overlap=1)
    assignment = claim(anna)["assignment"]

    def run_out() -> None:
        Assignment.objects.filter(pk=assignment).update(lease_until=timezone.now() - timedelta(minutes=1))
        assert expire_leases() == 1

    run_out()
    assert post(anna, at(assignment, "renew")).status_code == 200
    slot = Slot.objects.get()
    assert (slot.state, str(slot.assignment_id)) == (Slot.State.HELD, assignment)
    run_out()
    claim(signed_in(cast.ben))
    answer = post(anna, at(assignment, "renew"))
    assert (answer.status_code, Assignment.objects.get(pk=assignment).state) == (409, "expired")


def test_a_lost_lease_is_not_had_again_beside_two_others(cast, anna):
    open_ranking(cast, comparisons=3, overlap=1)
    lost = claim(anna)["assignment"]
    Assignment.objects.update(lease_until=timezone.now() - timedelta(minutes=1))
    expire_leases()
    ben = signed_in(cast.ben)
    taken = claim(ben)["assignment"]
    held = claim(anna)["assignment"]
    claim(anna, prefetch=True, holding=held)
    post(ben, at(taken, "release"))
    assert Slot.objects.get(comparison__assignments=lost).state == Slot.State.OPEN
    assert post(anna, at(lost, "renew")).status_code == 409
    assert Assignment.objects.filter(annotator=cast.anna, state=Assignment.State.OPEN).count() == 2


def test_a_misspelt_field_is_refused_and_not_dropped(cast, anna):
    open_ranking(cast)
    answer = post(anna, at(claim(anna)["assignment"], "submit"), judgment(1, 2, 3, 4, strenght=2))
    assert answer.status_code == 400
    assert "strenght" in answer.json()["detail"]
    assert not Judgment.objects.exists()


def test_a_draft_comes_back_with_the_next_claim(cast, anna):
    open_ranking(cast)
    assignment = claim(anna)["assignment"]
    draft = {"ranks": [2, None, 1, None], "reason": "naïve"}
    answer = anna.put(at(assignment, "draft"), json.dumps(draft), content_type="application/json")
    assert answer.status_code == 204
    assert claim(anna)["draft"] == draft


@pytest.mark.parametrize("draft", [[1, 2], "text", {"note": "a\x00b"}, {"note": "x" * 500_000}])
def test_a_draft_that_cannot_be_kept_is_refused(cast, anna, draft):
    open_ranking(cast)
    assignment = claim(anna)["assignment"]
    answer = anna.put(at(assignment, "draft"), json.dumps(draft), content_type="application/json")
    assert answer.status_code == 400
    assert Assignment.objects.get().draft is None


def test_progress_counts_ones_own_judgments_in_the_project_only(cast, anna):
    open_ranking(cast, comparisons=2)
    ben = signed_in(cast.ben)
    for client, times in ((anna, 1), (ben, 2)):
        for _ in range(times):
            post(client, at(claim(client)["assignment"], "submit"), judgment(1, 2, 3, 4))
    mine = anna.get("/api/v1/projects/tea/progress").json()
    assert mine == {
        "done_by_me": 1,
        "done_today": 1,
        "left": 1,
        "rounds": [{"name": "Round 1", "filled": 3, "places": 4}],
    }
    assert ben.get("/api/v1/projects/tea/progress").json() | {"left": 0} == mine | {
        "done_by_me": 2,
        "done_today": 2,
        "left": 0,
    }
    open_project(slug="coffee", name="Coffee", user=cast.anna)
    nothing = {"done_by_me": 0, "done_today": 0, "left": 0, "rounds": []}
    assert anna.get("/api/v1/projects/coffee/progress").json() == nothing
    tomorrow = (timezone.now() + timedelta(days=1)).isoformat()
    later = anna.get("/api/v1/projects/tea/progress", {"since": tomorrow}).json()
    assert (later["done_by_me"], later["done_today"]) == (1, 0)


# --- whom it answers ---


def test_a_foreign_assignment_and_a_missing_one_are_told_alike(cast, anna):
    open_ranking(cast)
    mine = claim(anna)["assignment"]
    open_project(slug="coffee", name="Coffee", user=cast.anna)
    ben, stranger = signed_in(cast.ben), signed_in(cast.stranger)

    def ask(client: Client, assignment: Any, action: str, slug: str = "tea"):
        method = client.put if action == "draft" else client.post
        body = json.dumps(judgment(1, 2, 3, 4)) if action == "submit" else "{}"
        return method(at(assignment, action, slug), body, content_type="application/json")

    for action in (*POSTS, "draft"):
        answers = [
            ask(ben, mine, action),  # somebody else's
            ask(ben, uuid.uuid4(), action),  # missing
            ask(stranger, mine, action),  # a project one is no member of
            ask(stranger, uuid.uuid4(), action),
            ask(anna, mine, action, slug="coffee"),  # one's own, by the address of another project
            ask(anna, mine, action, slug="no-such-project"),
        ]
        assert {answer.status_code for answer in answers} == {404}, action
        assert len({answer.content for answer in answers}) == 1, action
    row = Assignment.objects.get()
    assert (row.state, row.draft) == ("open", None)
    assert not Judgment.objects.exists()


def test_a_foreign_project_and_a_missing_one_are_told_alike(cast):
    open_ranking(cast)
    stranger = signed_in(cast.stranger)
    for method, what in (("post", "claim"), ("get", "progress")):
        foreign = getattr(stranger, method)(f"/api/v1/projects/tea/{what}")
        missing = getattr(stranger, method)(f"/api/v1/projects/nowhere/{what}")
        assert (foreign.status_code, foreign.content) == (404, missing.content)
        assert missing.status_code == 404


def test_who_is_no_member_any_more_can_send_nothing(cast, anna):
    open_ranking(cast)
    assignment = claim(anna)["assignment"]
    cast.anna.memberships.all().delete()
    assert post(anna, at(assignment, "submit"), judgment(1, 2, 3, 4)).status_code == 404
    assert not Judgment.objects.exists()


def test_nobody_works_without_signing_in(cast, anna):
    open_ranking(cast)
    assignment = claim(anna)["assignment"]
    nobody = Client()
    for address in (CLAIM, *(at(assignment, action) for action in POSTS)):
        assert post(nobody, address).status_code == 403
    assert nobody.get("/api/v1/projects/tea/progress").status_code == 403
    assert not Judgment.objects.exists()


def test_a_session_needs_its_csrf_token(cast):
    open_ranking(cast)
    client = signed_in(cast.anna, enforce_csrf_checks=True)
    refused = post(client, CLAIM)
    assert refused.status_code == 403
    assert "CSRF" in refused.json()["detail"]
    assert not Assignment.objects.exists()
    client.get("/p/tea/annotate/")
    token = client.cookies["csrftoken"].value
    assignment = post(client, CLAIM, **{"X-CSRFToken": token}).json()["assignment"]
    assert post(client, at(assignment, "submit"), judgment(1, 2, 3, 4)).status_code == 403
    accepted = post(client, at(assignment, "submit"), judgment(1, 2, 3, 4), **{"X-CSRFToken": token})
    assert accepted.status_code == 200


def test_a_token_works_without_a_session_until_it_is_revoked(cast):
    open_ranking(cast)
    token = open_token(user=cast.anna, name="script")
    client = Client(enforce_csrf_checks=True)
    authorised = {"Authorization": f"Bearer {token}"}
    assignment = post(client, CLAIM, **authorised).json()["assignment"]
    sent = post(client, at(assignment, "submit"), judgment(1, 2, 3, 4), **authorised)
    assert (sent.status_code, Judgment.objects.get().annotator) == (200, cast.anna)
    assert revoke_token(user=cast.anna, token_id=ApiToken.objects.get().pk)
    refused = post(client, CLAIM, **authorised)
    assert refused.status_code in (401, 403)
    assert "revoked" in refused.json()["detail"]
    assert Assignment.objects.count() == 1


# --- what it never tells ---


def keys_of(value: Any) -> set[str]:
    """Every key in a JSON value, however deep."""
    if isinstance(value, dict):
        return set(value) | {key for inner in value.values() for key in keys_of(inner)}
    if isinstance(value, list):
        return {key for inner in value for key in keys_of(inner)}
    return set()


TELLING_TABLES = ("completion", "contestant", "comparison", "slot", "prompt", "round", "comparisoncompletion")


@pytest.fixture
def telling_ids(cast) -> None:
    """Serial ids that can't be mistaken for anything else."""
    with connection.cursor() as cursor:
        for number, table in enumerate(TELLING_TABLES):
            cursor.execute(
                f"ALTER SEQUENCE annotation_{table}_id_seq RESTART WITH {7_310_000_000 + number * 10_000}"
            )


def assert_blind(text: str) -> None:
    """No serial id, no contestant, no order of generation."""
    assert not re.findall(r"731\d{7}", text)
    for contestant in Contestant.objects.all():
        assert contestant.name not in text
        assert contestant.digest not in text
    for word in ("contestant", "checkpoint", "sample", "seed", "completion_id", "token_count", "engine"):
        assert word not in text.lower()


def test_a_claim_tells_the_assignment_and_positions_and_no_more(cast, anna, telling_ids):
    open_ranking(cast, comparisons=2)
    Contestant.objects.filter(name="plain").update(name="zebra-model")
    answer = post(anna, CLAIM)
    assert_blind(answer.content.decode())
    assert_blind(str(answer.headers))
    assert keys_of(answer.json()) == {
        *("assignment", "round", "name", "rehearsal", "prompt", "messages", "role", "html", "text"),
        *(
            "completions",
            "position",
            "lease_until",
            "lease_seconds",
            "draft",
            "kind",
            "sensitive",
            "guideline",
        ),
        *("asked", "strength_levels", "flags", "aspects", "judgment", "revisable_until"),
    }
    assert all(set(c) == {"position", "html", "text"} for c in answer.json()["completions"])
    assert uuid.UUID(answer.json()["assignment"]).version == 4


def test_no_other_answer_tells_who_wrote_what(cast, anna, telling_ids):
    open_ranking(cast, comparisons=4)
    Contestant.objects.filter(name="plain").update(name="zebra-model")
    first = claim(anna)["assignment"]
    answers = [
        post(anna, at(first, "submit"), judgment(1, 2, 3)),
        post(anna, at(first, "submit"), judgment(1, 2, 3, 4)),
        post(anna, at(first, "submit"), judgment(4, 3, 2, 1)),
        post(anna, at(first, "skip")),
        post(anna, at(claim(anna)["assignment"], "renew")),
        anna.get("/api/v1/projects/tea/progress"),
        anna.get("/p/tea/annotate/"),
    ]
    assert [answer.status_code for answer in answers] == [400, 200, 409, 409, 200, 200, 200]
    for answer in answers[:-1]:
        assert_blind(answer.content.decode())
        assert keys_of(answer.json()) <= {
            *(
                "detail",
                "fields",
                "recorded",
                "counted",
                "lease_until",
                "lease_seconds",
                "done_by_me",
                "done_today",
            ),
            *("left", "rounds", "name", "filled", "places"),
        }
    page = answers[-1].content.decode()
    assert "zebra-model" not in page
    assert not re.findall(r"731\d{7}", page)


def test_json_nested_too_deeply_is_refused_and_not_our_failure(client):
    cast = assemble()
    client.force_login(cast.anna)
    answer = client.post("/api/v1/projects/tea/claim", "[" * 100_000, content_type="application/json")
    assert answer.status_code == 400
    assert "nested" in answer.json()["detail"]
