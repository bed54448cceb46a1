"""A project's settings and its pause: who changes them, what is refused, what is kept of it."""

import json
import re
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client

from annotation.models import Project
from annotation.services.claims import claim_comparison
from annotation.services.projects import SETTINGS, change_settings, pause_project
from rankloop.accounts.models import User
from rankloop.audit.models import AuditEvent
from rankloop.errors import Refused
from tests.cast import Cast, assemble, open_ranking
from tests.pages import text_of

pytestmark = pytest.mark.django_db

PAGE, API = "/p/tea/settings/", "/api/v1/projects/tea/settings"
LISTS = ("flags", "aspects", "sensitive_categories", "leak_phrases")


@pytest.fixture
def cast() -> Cast:
    return assemble()


@pytest.fixture
def admin(client: Client, cast: Cast) -> Client:
    client.force_login(cast.admin)
    return client


def as_typed(project: Project, **changed: Any) -> dict[str, Any]:
    """What a browser sends for the project's settings, with some of them changed."""
    values = {name: getattr(project, name) for name in SETTINGS}
    typed = {name: "\n".join(value) if name in LISTS else value for name, value in values.items()} | changed
    return {name: value for name, value in typed.items() if value is not False}


def send(client: Client, method: str, address: str, body: Any) -> Any:
    return getattr(client, method)(address, json.dumps(body), content_type="application/json")


def test_the_page_shows_every_setting_with_its_help(admin: Client, cast: Cast) -> None:
    page = admin.get(PAGE)
    for name in SETTINGS:
        assert f'name="{name}"' in page.content.decode()
        assert page.context["form"][name].help_text
    assert "How many annotators judge each comparison." in text_of(page)
    assert "off-topic\nwrong format" in page.content.decode()


def test_saving_what_the_page_shows_changes_nothing(admin: Client, cast: Cast) -> None:
    before = Project.objects.values().get()
    assert admin.post(PAGE, as_typed(cast.project)).status_code == 302
    assert Project.objects.values().get() == before
    assert not AuditEvent.objects.filter(action="settings changed").exists()


def test_lists_are_one_entry_a_line_without_space_and_empty_lines(admin: Client, cast: Cast) -> None:
    typed = as_typed(
        cast.project,
        flags="  off-topic \r\n\r\n\t\r\nrude\r\n",
        aspects="tone",
        overlap=3,
        blur_sensitive=False,
    )
    assert admin.post(PAGE, typed).url == PAGE
    cast.project.refresh_from_db()
    assert cast.project.flags == ["off-topic", "rude"]
    assert cast.project.aspects == ["tone"]
    assert (cast.project.overlap, cast.project.blur_sensitive) == (3, False)
    event = AuditEvent.objects.get(action="settings changed")
    assert (event.actor, event.project) == (cast.admin, "tea")
    assert event.details["changed"]["overlap"] == [2, 3]
    assert set(event.details["changed"]) == {"flags", "aspects", "overlap", "blur_sensitive"}


@pytest.mark.parametrize(
    ("field", "typed", "told"),
    [
        ("flags", "rude\nRude", "stands here twice"),
        ("flags", "\n".join(f"flag {number}" for number in range(10)), "10 entries, and 9 is the most"),
        ("flags", "x" * 31, "longer than 30 characters"),
        ("aspects", "\n".join(f"aspect {number}" for number in range(7)), "7 entries, and 6 is the most"),
        ("leak_phrases", "\n".join(f"phrase {number}" for number in range(101)), "100 is the most"),
        ("overlap", "0", "greater than or equal to 1"),
        ("overlap", "", "required"),
        ("completions_per_comparison", "9", "less than or equal to 8"),
        ("revise_minutes", "x", "whole number"),
        ("strength_levels", "4", "valid choice"),
        ("name", " ", "required"),
    ],
)
def test_what_is_not_right_is_told_at_its_field_and_nothing_is_saved(
    admin: Client, cast: Cast, field: str, typed: str, told: str
) -> None:
    before = Project.objects.values().get()
    answer = admin.post(PAGE, as_typed(cast.project, description="Changed too", **{field: typed}))
    assert answer.status_code == 400
    error = re.search(rf'id="id_{field}_error">([^<]+)<', answer.content.decode())
    assert error is not None
    assert told in error[1]
    assert "Changed too" in text_of(answer)  # what was typed is not lost
    assert Project.objects.values().get() == before


def test_what_an_admin_types_is_shown_as_text(admin: Client, cast: Cast) -> None:
    admin.post(PAGE, as_typed(cast.project, name="<img src=x>", aspects="</textarea><script>"))
    page = admin.get(PAGE).content.decode()
    assert "<img src=x" not in page
    assert "</textarea><script>" not in page


@pytest.mark.parametrize("who", ["anna", "reviewer", "researcher", "stranger"])
def test_only_admins_reach_the_settings(client: Client, cast: Cast, who: str) -> None:
    client.force_login(getattr(cast, who))
    assert client.get(PAGE).status_code == 404
    assert client.post(PAGE, as_typed(cast.project, overlap=5)).status_code == 404
    assert send(client, "patch", API, {"overlap": 5}).status_code == 404
    assert client.get(API).status_code == (200 if who == "researcher" else 404)
    assert Project.objects.get().overlap == 2
    assert ">Settings</a>" not in client.get("/p/tea/").content.decode()


def test_a_service_call_with_several_wrong_fields_names_each(cast: Cast) -> None:
    with pytest.raises(ValidationError) as told:
        change_settings(project=cast.project, user=cast.admin, flags=["a", "A"], overlap=99, name="Better")
    assert set(told.value.message_dict) == {"flags", "overlap"}
    assert Project.objects.get().name == "Tea questions"
    with pytest.raises(Refused, match="no setting 'slug'"):
        change_settings(project=cast.project, user=cast.admin, slug="coffee")


# --- pause ---


def test_a_researcher_pauses_and_resumes_and_pausing_twice_is_once(client: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=1)
    client.force_login(cast.researcher)
    assert "Pause ranking" in text_of(client.get("/p/tea/"))
    assert client.post("/p/tea/pause/").url == "/p/tea/"
    client.post("/p/tea/pause/")
    page = text_of(client.get("/p/tea/"))
    assert "This project is paused." in page
    assert "Resume ranking" in page
    cast.project.refresh_from_db()
    with pytest.raises(Refused):
        claim_comparison(project=cast.project, annotator=cast.anna)
    assert client.post("/p/tea/resume/").status_code == 302
    cast.project.refresh_from_db()
    assert claim_comparison(project=cast.project, annotator=cast.anna) is not None
    actions = list(
        AuditEvent.objects.filter(project="tea", action__contains="project ").values_list("action")
    )
    assert [action for (action,) in actions][-2:] == ["project paused", "project resumed"]
    assert len(actions) == 3  # opened, paused, resumed


def test_the_button_of_the_settings_page_leads_back_there(admin: Client, cast: Cast) -> None:
    assert "Ranking is open" in text_of(admin.get(PAGE))
    assert admin.post("/p/tea/pause/", {"back": "settings"}).url == PAGE
    assert "Nobody is given new comparisons" in text_of(admin.get(PAGE))
    assert admin.post("/p/tea/resume/", {"back": "https://elsewhere.example/"}).url == "/p/tea/"


@pytest.mark.parametrize("who", ["anna", "reviewer", "stranger"])
def test_others_neither_pause_nor_resume(client: Client, cast: Cast, who: str) -> None:
    client.force_login(getattr(cast, who))
    for address in ("/p/tea/pause/", "/api/v1/projects/tea/pause"):
        assert client.post(address).status_code == 404
    assert not Project.objects.get().is_paused
    pause_project(project=cast.project, user=cast.admin)
    for address in ("/p/tea/resume/", "/api/v1/projects/tea/resume"):
        assert client.post(address).status_code == 404
    assert Project.objects.get().is_paused
    if who != "stranger":
        assert "Resume ranking" not in text_of(client.get("/p/tea/"))


def test_pausing_takes_a_post(admin: Client, cast: Cast) -> None:
    assert admin.get("/p/tea/pause/").status_code == 405


# --- API ---


def test_the_api_lists_my_projects_and_opens_one_for_staff(client: Client, cast: Cast) -> None:
    client.force_login(cast.anna)
    listed = client.get("/api/v1/projects").json()["results"]
    assert [(row["slug"], row["my_role"]) for row in listed] == [("tea", "annotator")]
    refused = send(client, "post", "/api/v1/projects", {"slug": "coffee", "name": "Coffee"})
    assert refused.status_code == 403
    assert "staff" in refused.json()["detail"]

    client.force_login(User.objects.create_user("chief", is_staff=True))
    assert client.get("/api/v1/projects").json()["results"] == []
    made = send(client, "post", "/api/v1/projects", {"slug": "Coffee", "name": "Coffee"})
    assert made.status_code == 201
    assert (made.json()["slug"], made.json()["my_role"]) == ("coffee", "admin")
    again = send(client, "post", "/api/v1/projects", {"slug": "coffee", "name": "Coffee"})
    assert again.status_code == 400
    assert "Choose another" in again.json()["detail"]


def test_annotators_are_not_told_the_leak_phrases(client: Client, cast: Cast) -> None:
    client.force_login(cast.anna)
    answer = client.get("/api/v1/projects/tea")
    assert answer.json()["flags"] == cast.project.flags
    assert "leak_phrases" not in answer.json()
    assert "SmolLM" not in answer.content.decode()
    client.force_login(cast.stranger)
    assert client.get("/api/v1/projects/tea").status_code == 404


def test_the_api_changes_single_settings(admin: Client, cast: Cast) -> None:
    answer = send(admin, "patch", API, {"overlap": 3, "aspects": [" tone ", "honesty"]})
    assert answer.status_code == 200
    assert answer.json()["aspects"] == ["tone", "honesty"]
    cast.project.refresh_from_db()
    assert (cast.project.overlap, cast.project.aspects) == (3, ["tone", "honesty"])
    assert cast.project.lease_minutes == 15


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"overlap": 21}, "overlap"),
        ({"overlap": True}, "overlap"),
        ({"flags": ["rude", "RUDE"]}, "flags"),
        ({"flags": "rude"}, "flags"),
        ({"overlapp": 3}, "overlapp"),
        ({"is_paused": True}, "is_paused"),
    ],
)
def test_the_api_names_the_field_that_is_wrong(admin: Client, cast: Cast, body: dict, field: str) -> None:
    before = Project.objects.values().get()
    answer = send(admin, "patch", API, {"name": "Better", **body})
    assert answer.status_code == 400
    assert list(answer.json()["fields"]) == [field]
    assert Project.objects.values().get() == before


def test_the_api_pauses_and_resumes(client: Client, cast: Cast) -> None:
    client.force_login(cast.researcher)
    assert client.post("/api/v1/projects/tea/pause").json() == {"is_paused": True}
    assert client.post("/api/v1/projects/tea/pause").json() == {"is_paused": True}
    assert Project.objects.get().is_paused
    assert client.post("/api/v1/projects/tea/resume").json() == {"is_paused": False}
    assert AuditEvent.objects.filter(action="project paused").count() == 1
