"""What a member does not want to see."""

import json
import re

import pytest
from django.test import Client

from annotation.models import Assignment, Membership, Prompt, Slot
from annotation.services.claims import claim_comparison
from annotation.services.members import set_opt_outs
from annotation.services.projects import change_settings
from rankloop.errors import Refused
from tests.cast import Cast, assemble, open_ranking

pytestmark = pytest.mark.django_db

PAGE, API = "/p/tea/preferences/", "/api/v1/projects/tea/preferences"


@pytest.fixture
def cast() -> Cast:
    return assemble()


def opted_out(cast: Cast, name: str = "anna") -> list[str]:
    return Membership.objects.get(project=cast.project, user=getattr(cast, name)).opted_out


@pytest.mark.parametrize("who", ["anna", "reviewer", "researcher", "admin"])
def test_every_member_opts_out_for_themselves_alone(client: Client, cast: Cast, who: str) -> None:
    client.force_login(getattr(cast, who))
    page = client.get(PAGE).content.decode()
    assert "Skipping is never punished, and nobody is shown what you opted out of." in page
    assert client.post(PAGE, {"categories": ["violence", "hate"]}).url == PAGE
    assert opted_out(cast, who) == ["hate", "violence"]
    assert Membership.objects.exclude(opted_out=[]).count() == 1
    assert client.get(PAGE).content.decode().count("checked") == 2
    client.post(PAGE, {})
    assert opted_out(cast, who) == []


def test_a_stranger_and_a_visitor_have_no_preferences_here(client: Client, cast: Cast) -> None:
    assert client.get(PAGE).url.startswith("/sign-in/")
    client.force_login(cast.stranger)
    assert client.get(PAGE).status_code == 404
    assert client.get(API).status_code == 404
    assert client.put(API, "{}", content_type="application/json").status_code == 404


def test_an_unknown_category_is_refused_with_those_there_are(client: Client, cast: Cast) -> None:
    client.force_login(cast.anna)
    assert client.post(PAGE, {"categories": ["tea"]}).status_code == 400
    with pytest.raises(Refused, match=r"“tea”.*There are violence, sexual, self-harm, hate"):
        set_opt_outs(project=cast.project, user=cast.anna, categories=["violence", "tea"])
    assert opted_out(cast) == []


def test_what_i_hold_of_a_category_goes_back_and_the_rest_stays_mine(cast: Cast) -> None:
    open_ranking(cast, comparisons=2, overlap=1)
    held = [claim_comparison(project=cast.project, annotator=cast.anna)]
    held.append(
        claim_comparison(project=cast.project, annotator=cast.anna, holding=held[0].pk, prefetch=True)
    )
    Prompt.objects.filter(pk=held[1].comparison.prompt_id).update(tags=["tea", "violence"])
    set_opt_outs(project=cast.project, user=cast.anna, categories=["violence"])
    states = [Assignment.objects.get(pk=assignment.pk).state for assignment in held]
    assert states == [Assignment.State.OPEN, Assignment.State.EXPIRED]
    assert Slot.objects.get(comparison=held[1].comparison).state == Slot.State.OPEN


def test_a_category_the_project_dropped_can_be_kept_or_given_up(client: Client, cast: Cast) -> None:
    set_opt_outs(project=cast.project, user=cast.anna, categories=["violence"])
    change_settings(project=cast.project, user=cast.admin, sensitive_categories=["hate"])
    client.force_login(cast.anna)
    client.post(PAGE, {"categories": ["violence", "hate"]})
    assert opted_out(cast) == ["hate", "violence"]
    client.post(PAGE, {"categories": ["hate"]})
    assert "violence" not in client.get(PAGE).content.decode()


def test_a_project_without_categories_says_so(client: Client, cast: Cast) -> None:
    change_settings(project=cast.project, user=cast.admin, sensitive_categories=[])
    client.force_login(cast.anna)
    assert "lists no sensitive categories" in client.get(PAGE).content.decode()


def test_categories_are_shown_as_text(client: Client, cast: Cast) -> None:
    change_settings(project=cast.project, user=cast.admin, sensitive_categories=['"><script>x</script>'])
    client.force_login(cast.anna)
    assert "<script>x" not in client.get(PAGE).content.decode()


def test_the_api_reads_and_writes_them(client: Client, cast: Cast) -> None:
    client.force_login(cast.anna)
    assert client.get(API).json() == {
        "categories": ["violence", "sexual", "self-harm", "hate"],
        "opted_out": [],
    }
    put = {"opted_out": ["hate", "hate"]}
    answer = client.put(API, json.dumps(put), content_type="application/json")
    assert answer.json()["opted_out"] == ["hate"]
    refused = client.put(API, json.dumps({"opted_out": ["tea"]}), content_type="application/json")
    assert refused.status_code == 400
    assert "tea" in refused.json()["detail"]
    assert opted_out(cast) == ["hate"]


def test_nobody_is_shown_what_others_opted_out_of(client: Client, cast: Cast) -> None:
    set_opt_outs(project=cast.project, user=cast.anna, categories=["self-harm"])
    client.force_login(cast.admin)
    for address in ("/p/tea/people/", "/api/v1/projects/tea/members", "/p/tea/"):
        assert not re.search("self-harm|opted", client.get(address).content.decode())
