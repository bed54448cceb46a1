"""The guideline: its versions, what changed, who has read it, and the preview."""

import json
import re
from typing import Any

import pytest
from django.test import Client

from annotation.models import Guideline, Membership
from annotation.services.guidelines import MOST_CHARACTERS, Overtaken, mark_guideline_read, publish_guideline
from rankloop.audit.models import AuditEvent
from rankloop.errors import Refused
from tests.cast import Cast, assemble
from tests.pages import text_of
from tests.together import outcome_of, together

pytestmark = pytest.mark.django_db

PAGE, EDIT, API = "/p/tea/guideline/", "/p/tea/guideline/edit/", "/api/v1/projects/tea"
MEMBERS = ("anna", "reviewer", "researcher", "admin")


@pytest.fixture
def cast() -> Cast:
    return assemble()


def publish(cast: Cast, text: str, based_on: int | None = None) -> Guideline:
    version = cast.project.guidelines.count() if based_on is None else based_on
    return publish_guideline(project=cast.project, user=cast.researcher, text=text, based_on=version)


def read_by(cast: Cast, name: str) -> int:
    return Membership.objects.get(project=cast.project, user=getattr(cast, name)).guideline_read


def send(client: Client, address: str, body: Any) -> Any:
    return client.post(f"{API}/{address}", json.dumps(body), content_type="application/json")


# --- reading ---


@pytest.mark.parametrize("who", MEMBERS)
def test_every_member_reads_the_newest_version_and_who_wrote_it(client: Client, cast: Cast, who: str) -> None:
    publish(cast, "Put **sources** first.")
    client.force_login(getattr(cast, who))
    page = client.get(PAGE)
    assert "<strong>sources</strong>" in page.content.decode()
    assert "Version 2, the newest" in text_of(page)
    assert "by researcher" in text_of(page)
    assert ("Edit" in text_of(page)) == (who in ("researcher", "admin"))
    assert ">Guideline</a>" in page.content.decode()


def test_an_old_version_is_shown_as_old_and_a_missing_one_not_at_all(client: Client, cast: Cast) -> None:
    publish(cast, "Put sources first.")
    client.force_login(cast.anna)
    page = text_of(client.get(PAGE, {"version": 1}))
    assert "This is an old version" in page
    assert "Put the completion you would rather be given first" in page
    for version in ("3", "0", "-1", "x", "99999999999999999999"):
        assert client.get(PAGE, {"version": version}).status_code == 404


def test_what_changed_between_any_two_versions_is_marked(client: Client, cast: Cast) -> None:
    for text in ("Be kind.", "Be brief.", "Be brief and kind."):
        publish(cast, text)
    client.force_login(cast.anna)
    page = client.get(PAGE, {"version": 3, "since": 2}).content.decode()
    assert "Be <del>kind</del><ins>brief</ins>." in page
    back = client.get(PAGE, {"version": 3, "since": 4}).content.decode()
    assert "brief<del> and kind</del>." in back


def test_opening_it_counts_as_reading_and_news_is_shown_once(client: Client, cast: Cast) -> None:
    client.force_login(cast.anna)
    assert "New since" not in text_of(client.get(PAGE))
    assert read_by(cast, "anna") == 1
    publish(cast, "Be kind.")
    assert "New since you read it last" in text_of(client.get(PAGE))
    assert read_by(cast, "anna") == 2
    assert "New since" not in text_of(client.get(PAGE))
    client.get(PAGE, {"version": 1})
    assert read_by(cast, "anna") == 2
    assert read_by(cast, "ben") == 0


def test_strangers_read_nothing(client: Client, cast: Cast) -> None:
    client.force_login(cast.stranger)
    for address in (PAGE, EDIT, f"{API}/guideline", f"{API}/guidelines", f"{API}/guidelines/1"):
        assert client.get(address).status_code == 404
    assert send(client, "preview", {"text": "x"}).status_code == 404
    assert send(client, "guideline/read", {"version": 1}).status_code == 404


def test_a_project_without_a_guideline_says_so(client: Client, cast: Cast) -> None:
    Guideline.objects.all().delete()
    client.force_login(cast.researcher)
    assert "No guideline yet" in text_of(client.get(PAGE))
    assert client.get(f"{API}/guideline").status_code == 404
    assert client.post(EDIT, {"based_on": 0, "text": "Be kind."}).url == PAGE
    assert Guideline.objects.get().version == 1


def test_markup_in_a_guideline_stays_text(client: Client, cast: Cast) -> None:
    publish(cast, "<script>alert(1)</script> [x](javascript:alert(1)) <img src=x onerror=alert(1)>")
    client.force_login(cast.researcher)
    for address in (PAGE, f"{PAGE}?version=2&since=1", EDIT, "/p/tea/"):
        page = client.get(address).content.decode()
        assert "<script>alert" not in page
        assert "<img" not in page
        assert 'href="javascript:' not in page


# --- publishing ---


def test_a_researcher_publishes_the_next_version(client: Client, cast: Cast) -> None:
    client.force_login(cast.researcher)
    page = client.get(EDIT).content.decode()
    assert 'name="based_on" value="1"' in page
    assert 'data-preview="preview"' in page
    assert client.post(EDIT, {"based_on": 1, "text": "# New\r\n\r\nBe kind.\r\n\r\n"}).url == PAGE
    newest = cast.project.guidelines.get(version=2)
    assert (newest.text, newest.created_by) == ("# New\n\nBe kind.\n", cast.researcher)
    assert cast.project.guidelines.filter(version=1).exists()
    event = AuditEvent.objects.get(action="guideline published")
    assert (event.actor, event.subject) == (cast.researcher, "2")


@pytest.mark.parametrize("who", ["anna", "reviewer", "stranger"])
def test_others_publish_nothing(client: Client, cast: Cast, who: str) -> None:
    client.force_login(getattr(cast, who))
    assert client.get(EDIT).status_code == 404
    assert client.post(EDIT, {"based_on": 1, "text": "Mine."}).status_code == 404
    assert send(client, "guidelines", {"based_on": 1, "text": "Mine."}).status_code == 404
    assert Guideline.objects.count() == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("  \n ", "The guideline is empty"),
        ("x" * (MOST_CHARACTERS + 1), "100,000 is the most"),
        (None, "Nothing is changed"),
    ],
    ids=["empty", "too long", "unchanged"],
)
def test_what_cannot_be_published_is_told_at_the_text(
    client: Client, cast: Cast, text: str | None, told: str
) -> None:
    text = cast.project.guidelines.get().text.replace("\n", "\r\n") if text is None else text
    client.force_login(cast.researcher)
    answer = client.post(EDIT, {"based_on": 1, "text": text})
    assert answer.status_code == 400
    assert told in re.search(r'id="id_text_error">([^<]+)<', answer.content.decode())[1]
    assert told in send(client, "guidelines", {"based_on": 1, "text": text}).json()["detail"]
    assert Guideline.objects.count() == 1


def test_who_was_overtaken_sees_what_changed_keeps_their_text_and_can_publish_then(
    client: Client, cast: Cast
) -> None:
    publish(cast, "Be kind.")
    publish(cast, "Be very kind.")
    client.force_login(cast.admin)
    answer = client.post(EDIT, {"based_on": 2, "text": "Be <brief>."})
    assert answer.status_code == 409
    page = answer.content.decode()
    assert "Somebody was quicker" in page
    assert "What researcher changed" in page
    assert "Be<ins> very</ins> kind." in page
    assert "Be &lt;brief&gt;." in page
    assert 'name="based_on" value="3"' in page
    assert Guideline.objects.count() == 3
    assert client.post(EDIT, {"based_on": 3, "text": "Be brief and kind."}).url == PAGE
    assert cast.project.guidelines.get(version=4).text == "Be brief and kind.\n"


def test_sent_twice_it_is_published_once(cast: Cast) -> None:
    assert publish(cast, "Be kind.", based_on=1) == publish(cast, "Be kind.\n", based_on=1)
    assert Guideline.objects.count() == 2
    assert AuditEvent.objects.filter(action="guideline published").count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_who_publish_at_once_the_second_is_told() -> None:
    cast = assemble()
    done = together(
        4, lambda number: outcome_of(lambda: publish(cast, f"Text {number}.", based_on=1), Overtaken)
    )
    assert sum(isinstance(outcome, Overtaken) for outcome in done) == 3
    assert Guideline.objects.count() == 2


# --- API ---


def test_the_api_tells_annotators_what_is_new_until_they_have_read_it(client: Client, cast: Cast) -> None:
    client.force_login(cast.anna)
    first = client.get(f"{API}/guideline").json()
    assert (first["version"], first["read"], first["changes_html"]) == (1, 0, None)
    assert ">Put the completion" in first["html"]
    assert send(client, "guideline/read", {"version": 1}).status_code == 204
    publish(cast, "Be kind & <b>brief</b>.")
    told = client.get(f"{API}/guideline").json()
    assert (told["version"], told["read"]) == (2, 1)
    assert "<ins>Be kind &amp; &lt;b&gt;brief&lt;/b&gt;" in told["changes_html"]
    send(client, "guideline/read", {"version": 2})
    assert client.get(f"{API}/guideline").json()["changes_html"] is None


def test_reading_never_goes_backwards_and_only_to_what_is_there(client: Client, cast: Cast) -> None:
    publish(cast, "Be kind.")
    client.force_login(cast.anna)
    for version, status in ((2, 204), (1, 204), (3, 400), (0, 400), ("x", 400), (10**30, 400)):
        assert send(client, "guideline/read", {"version": version}).status_code == status
        assert read_by(cast, "anna") == 2
    with pytest.raises(Refused, match="no version 7"):
        mark_guideline_read(project=cast.project, user=cast.anna, version=7)


def test_the_api_lists_shows_and_publishes_versions(client: Client, cast: Cast) -> None:
    client.force_login(cast.researcher)
    made = send(client, "guidelines", {"based_on": 1, "text": "Be kind."})
    assert made.status_code == 201
    assert (made.json()["version"], made.json()["created_by"]) == (2, "researcher")
    late = send(client, "guidelines", {"based_on": 1, "text": "Be brief."})
    assert late.status_code == 409
    assert "Look at what changed" in late.json()["detail"]
    client.force_login(cast.anna)
    listed = client.get(f"{API}/guidelines").json()["results"]
    assert [row["version"] for row in listed] == [2, 1]
    assert client.get(f"{API}/guidelines/1").json()["created_by"] is None
    assert client.get(f"{API}/guidelines/3").status_code == 404


@pytest.mark.parametrize("who", MEMBERS)
def test_every_member_previews_a_text_and_nothing_is_kept(client: Client, cast: Cast, who: str) -> None:
    client.force_login(getattr(cast, who))
    answer = send(client, "preview", {"text": "**bold** <script>x</script>"})
    assert "<strong>bold</strong> &lt;script&gt;x&lt;/script&gt;" in answer.json()["html"]
    assert send(client, "preview", {"text": ""}).json()["html"] == ""
    too_long = send(client, "preview", {"text": "x" * (MOST_CHARACTERS + 1)})
    assert too_long.status_code == 400
    assert "too long to preview" in too_long.json()["fields"]["text"][0]
    assert send(client, "preview", {"text": ["x"]}).status_code == 400
    assert Guideline.objects.count() == 1
