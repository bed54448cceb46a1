"""The pages around ranking: home, overview, prompts."""

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client

from annotation.models import Membership, Project, Prompt
from rankloop.accounts.models import User
from tests.cast import Cast, add_prompts, assemble, open_ranking
from tests.pages import text_of

pytestmark = pytest.mark.django_db

RESEARCHERS_PAGES = (
    "prompts/", "prompts/new/", "rounds/", "rounds/new/", "rounds/1/", "runs/", "checkpoints/", "compare/",
    "checkpoints/latest/",
)  # fmt: skip


@pytest.fixture
def cast() -> Cast:
    return assemble()


def test_home_shows_my_projects_with_what_is_left(client: Client, cast: Cast) -> None:
    open_ranking(cast, comparisons=3)
    client.force_login(cast.anna)
    page = text_of(client.get("/"))
    assert "Tea questions" in page
    assert "3 comparisons to rank" in page


def test_home_of_somebody_without_a_project_says_whom_to_ask(client: Client, cast: Cast) -> None:
    client.force_login(cast.stranger)
    page = text_of(client.get("/"))
    assert "Ask an admin to add stranger to a project" in page
    assert "Tea questions" not in page


def test_staff_open_a_project_and_become_its_admin(client: Client, cast: Cast) -> None:
    chief = User.objects.create_user("chief", is_staff=True)
    client.force_login(chief)
    assert client.post("/projects/new/", {"name": "Coffee", "slug": "coffee"}).url == "/p/coffee/"
    assert Membership.objects.get(user=chief).role == Membership.Role.ADMIN
    again = client.post("/projects/new/", {"name": "Coffee", "slug": "tea"})
    assert again.status_code == 400
    assert "Choose another" in text_of(again)


def test_others_open_no_project(client: Client, cast: Cast) -> None:
    client.force_login(cast.researcher)
    assert client.post("/projects/new/", {"name": "Coffee", "slug": "coffee"}).status_code == 404
    assert Project.objects.count() == 1


@pytest.mark.parametrize("page", ["", "annotate/"])
def test_a_foreign_project_and_a_missing_one_give_the_same_404(client: Client, cast: Cast, page: str) -> None:
    client.force_login(cast.stranger)
    answers = [client.get(f"/p/{slug}/{page}") for slug in ("tea", "nowhere")]
    assert [answer.status_code for answer in answers] == [404, 404]
    bodies = [re.sub(r'value="[^"]+"', "", answer.content.decode()) for answer in answers]
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("page", RESEARCHERS_PAGES)
@pytest.mark.parametrize("who", ["anna", "reviewer", "stranger"])
def test_researchers_pages_are_not_there_for_others(client: Client, cast: Cast, page: str, who: str) -> None:
    open_ranking(cast, comparisons=1)
    client.force_login(getattr(cast, who))
    assert client.get(f"/p/tea/{page}").status_code == 404


@pytest.mark.parametrize("page", ["", "annotate/", *RESEARCHERS_PAGES])
def test_every_page_opens_for_a_researcher_and_asks_a_visitor_to_sign_in(
    client: Client, cast: Cast, page: str
) -> None:
    open_ranking(cast, comparisons=1)
    assert client.get(f"/p/tea/{page}").url.startswith("/sign-in/")
    client.force_login(cast.researcher)
    assert client.get(f"/p/tea/{page}").status_code == 200


def test_a_paused_project_says_so(client: Client, cast: Cast) -> None:
    Project.objects.update(is_paused=True)
    client.force_login(cast.anna)
    assert "This project is paused." in text_of(client.get("/p/tea/"))


def test_a_prompt_written_by_hand_is_added_once(client: Client, cast: Cast) -> None:
    client.force_login(cast.researcher)
    form = {"user": "Is green tea black?", "system": "Be brief.", "tags": "colours, tea"}
    assert client.post("/p/tea/prompts/new/", form).url == "/p/tea/prompts/"
    client.post("/p/tea/prompts/new/", form)
    prompt = Prompt.objects.get()
    assert [message["role"] for message in prompt.messages] == ["system", "user"]
    assert prompt.tags == ["colours", "tea"]
    assert prompt.created_by == cast.researcher


def test_a_prompt_that_is_empty_or_too_long_is_refused_at_its_field(client: Client, cast: Cast) -> None:
    client.force_login(cast.researcher)
    empty = client.post("/p/tea/prompts/new/", {"user": "  "})
    assert 'id="id_user_error"' in empty.content.decode()
    too_long = client.post("/p/tea/prompts/new/", {"user": "tea " * 5000})
    assert too_long.status_code == 400
    assert "this project takes at most 512" in text_of(too_long)
    assert "tea tea" in text_of(too_long)  # what was typed is not lost
    assert not Prompt.objects.exists()


def test_prompts_are_found_by_their_text_and_split(client: Client, cast: Cast) -> None:
    add_prompts(cast, 12)
    client.force_login(cast.researcher)
    page = text_of(client.get("/p/tea/prompts/", {"q": "NUMBER 7"}))
    assert "tea number 7?" in page
    assert "tea number 8?" not in page
    assert "No prompt matches" in text_of(client.get("/p/tea/prompts/", {"q": "100% role"}))
    held_out = client.get("/p/tea/prompts/", {"split": "held_out"}).context["page"].object_list
    assert {prompt.split for prompt in held_out} == {"held_out"}


def test_every_module_of_the_ranking_page_is_named_in_it(client: Client, cast: Cast) -> None:
    """Or the browser learns of it only from the module that imports it: a round trip later."""
    client.force_login(cast.anna)
    page = client.get("/p/tea/annotate/").content.decode()
    named = set(re.findall(r'<link rel="modulepreload" href="/static/([^"]+)">', page))
    modules = Path(settings.ROOT, "annotation/static")
    waiting, imported = [modules / "annotation/ranking.js"], set()
    while waiting:
        module = waiting.pop()
        for address in re.findall(r'from "(\.[^"]+)"', module.read_text()):
            found = (module.parent / address).resolve()
            if found not in imported:
                imported.add(found)
                waiting.append(found)
    assert named == {str(module.relative_to(modules)) for module in imported}


def test_no_template_has_a_script_or_style_that_the_policy_forbids() -> None:
    root = Path(settings.ROOT)
    templates = [
        file
        for folder in ("platform/rankloop", "annotation", "training")
        for file in (root / folder).rglob("templates/**/*.html")
    ]
    assert len(templates) > 20
    forbidden = re.compile(r"<style|\sstyle=|\son\w+=|hx-on|javascript:|<script(?![^>]*\ssrc=)")
    assert [str(file) for file in templates if forbidden.search(file.read_text())] == []
