"""`manage.py add_member` lets people in."""

import pytest
from django.core.management import CommandError, call_command

from annotation.models import Membership
from rankloop.accounts.models import User
from tests.cast import add_simulated, assemble

pytestmark = pytest.mark.django_db


def test_a_new_person_gets_an_account_whose_password_is_printed_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cast = assemble()
    call_command("add_member", "tea", "carla", "annotator")
    password = capsys.readouterr().out.strip().rsplit(" ", 1)[-1]
    carla = User.objects.get(username="carla")
    assert carla.check_password(password)
    assert Membership.objects.get(project=cast.project, user=carla).role == "annotator"


def test_a_member_changes_role_and_keeps_the_password(capsys: pytest.CaptureFixture[str]) -> None:
    cast = assemble()
    call_command("add_member", "tea", "anna", "reviewer")
    assert "password" not in capsys.readouterr().out
    assert Membership.objects.get(project=cast.project, user=cast.anna).role == "reviewer"


def test_an_unknown_project_is_named_and_a_simulated_annotator_stays_one() -> None:
    cast = assemble()
    [simulated] = add_simulated(cast, 1)
    with pytest.raises(CommandError, match=r"coffee.*tea"):
        call_command("add_member", "coffee", "anna", "annotator")
    with pytest.raises(CommandError, match="simulated"):
        call_command("add_member", "tea", simulated.username, "admin")
