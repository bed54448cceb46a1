"""`manage.py rehearse`: who it lets in, and a whole rehearsal against the real site."""

import re
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django.live_server_helper import LiveServer

from annotation.management.commands import rehearse
from annotation.models import Judgment, Membership, Slot
from annotation.rehearsal.client import Counts, RehearsalError
from rankloop.accounts.models import User
from tests import cast


class Driven:
    """Stands in for the drive over HTTP and keeps what it was called with."""

    def __init__(self) -> None:
        self.credentials: list[tuple[str, str]] = []
        self.options: dict[str, Any] = {}

    def __call__(
        self, base_url: str, slug: str, credentials: list[tuple[str, str]], **options: Any
    ) -> Counts:
        self.credentials, self.options = credentials, options
        return {"judgments": 4, "ties": 1, "all_bad": 0, "skipped": 2, "errors": 0}


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> Driven:
    driven = Driven()
    monkeypatch.setattr(rehearse, "drive", driven)
    return driven


@pytest.mark.django_db
def test_simulated_annotators_are_made_marked_and_given_new_passwords_each_run(driven: Driven) -> None:
    project = cast.assemble().project
    call_command("rehearse", "tea", annotators=3)
    first = dict(driven.credentials)
    call_command("rehearse", "tea", annotators=3)
    second = dict(driven.credentials)
    assert list(first) == list(second) == ["rehearsal-1", "rehearsal-2", "rehearsal-3"]
    for name, password in second.items():
        user = User.objects.get(username=name)
        assert user.is_simulated
        assert user.check_password(password)
        assert password != first[name]
        assert Membership.objects.get(project=project, user=user).role == Membership.Role.ANNOTATOR


@pytest.mark.django_db
def test_the_options_reach_the_annotators(driven: Driven) -> None:
    cast.assemble()
    call_command("rehearse", "tea", "--noise", "0.7", "--position-bias", "0", "--limit", "9", "--seed", "5")
    assert driven.options["habits"].noise == 0.7
    assert driven.options["habits"].position_bias == 0
    assert driven.options["max_judgments"] == 9
    assert driven.options["seed"] == 5


@pytest.mark.django_db
def test_the_summary_calls_the_judgments_simulated(
    driven: Driven, capsys: pytest.CaptureFixture[str]
) -> None:
    cast.assemble()
    call_command("rehearse", "tea")
    assert "4 simulated judgments (1 with a tie, 0 all bad), 2 skipped, 0 errors." in capsys.readouterr().out


@pytest.mark.django_db
def test_a_person_of_that_name_never_becomes_a_simulated_annotator(driven: Driven) -> None:
    cast.assemble()
    person = User.objects.create_user("rehearsal-1", password=cast.PASSWORD)
    with pytest.raises(CommandError, match="belongs to a person"):
        call_command("rehearse", "tea")
    person.refresh_from_db()
    assert person.check_password(cast.PASSWORD)
    assert not person.is_simulated
    assert driven.credentials == []


@pytest.mark.django_db
def test_a_project_that_is_not_there_names_those_that_are(driven: Driven) -> None:
    cast.assemble()
    with pytest.raises(CommandError, match="Known are: tea"):
        call_command("rehearse", "coffee")


@pytest.mark.parametrize(
    "option", ["--annotators=0", "--noise=-1", "--limit=0", "--idle-seconds=-1", "--noise=nan"]
)
def test_an_option_out_of_range_is_refused(option: str) -> None:
    with pytest.raises(CommandError, match=re.escape(option.split("=")[0])):
        call_command("rehearse", "tea", option)


@pytest.mark.django_db
def test_a_rehearsal_that_cannot_go_on_ends_the_command_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cast.assemble()

    def out_of_reach(*args: Any, **options: Any) -> Counts:
        raise RehearsalError("The site can't be reached.")

    monkeypatch.setattr(rehearse, "drive", out_of_reach)
    with pytest.raises(CommandError, match="can't be reached"):
        call_command("rehearse", "tea")


@pytest.mark.django_db(transaction=True)
def test_a_rehearsal_of_the_real_site_fills_every_slot_with_marked_judgments(live_server: LiveServer) -> None:
    them = cast.assemble()
    rehearsal = cast.open_ranking(them, comparisons=5, overlap=2, audience="rehearsal")
    people = cast.open_ranking(them, comparisons=2, overlap=2, audience="people")
    call_command("rehearse", "tea", annotators=3, base_url=live_server.url, idle_seconds=0.5)
    judgments = Judgment.objects.filter(comparison__round=rehearsal)
    skipped = rehearsal.comparisons.filter(assignments__state="skipped").count()
    assert judgments.count() >= 10 - skipped
    assert set(judgments.values_list("source", flat=True)) == {Judgment.Source.REHEARSAL}
    open_slots = Slot.objects.filter(comparison__round=rehearsal).exclude(state=Slot.State.FILLED)
    assert open_slots.count() <= skipped
    assert not Judgment.objects.filter(comparison__round=people).exists()
