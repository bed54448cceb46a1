"""`manage.py rehearse PROJECT`: simulated annotators judge a project's rehearsal rounds over HTTP."""

import secrets
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.management.projects import project_called
from annotation.models import Membership, Project
from annotation.rehearsal.annotator import Habits
from annotation.rehearsal.client import Counts, RehearsalError, drive
from annotation.services.members import add_member
from rankloop.accounts.services import open_simulated_user
from rankloop.errors import Refused

PROGRESS_EVERY = 25  # judgments


def at_least_zero(text: str) -> float:
    value = float(text)
    if not value >= 0:
        raise ArgumentTypeError("must be 0 or more")
    return value


def at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ArgumentTypeError("must be 1 or more")
    return value


class Command(BaseCommand):
    help = (
        "Let simulated annotators (rehearsal-1, rehearsal-2, ...) sign in to a running site and judge the "
        "rehearsal rounds of a project, over the same HTTP endpoints as a browser. Their judgments are "
        "marked as simulated. One rehearsal of a site at a time: each run gives them new passwords."
    )

    _next_told = PROGRESS_EVERY

    def add_arguments(self, parser: ArgumentParser) -> None:
        habits = Habits()
        parser.formatter_class = ArgumentDefaultsHelpFormatter
        parser.add_argument("project", help="the project's slug")
        parser.add_argument("--annotators", type=at_least_one, default=6, help="how many")
        parser.add_argument("--base-url", default="http://127.0.0.1:8000", help="where the site runs")
        parser.add_argument("--seed", type=int, default=0, help="of the annotators' noise")
        parser.add_argument("--noise", type=at_least_zero, default=habits.noise, help="scale of the noise")
        parser.add_argument(
            "--position-bias", type=at_least_zero, default=habits.position_bias, help="bonus of the first"
        )
        parser.add_argument("--limit", type=at_least_one, help="at most so many judgments in all")
        parser.add_argument(
            "--idle-seconds", type=at_least_zero, default=5.0, help="end after so long with nothing to judge"
        )

    def handle(self, *, project: str, **options: Any) -> None:
        row = project_called(project)
        try:
            credentials = [self._open(row, number) for number in range(1, options["annotators"] + 1)]
            self.stdout.write(f"{len(credentials)} simulated annotators go to {options['base_url']}.")
            counts = drive(
                options["base_url"],
                project,
                credentials,
                seed=options["seed"],
                max_judgments=options["limit"],
                idle_seconds=options["idle_seconds"],
                habits=Habits(noise=options["noise"], position_bias=options["position_bias"]),
                on_progress=self._progress,
            )
        except (RehearsalError, Refused) as error:
            raise CommandError(str(error)) from None
        self.stdout.write(
            "{judgments} simulated judgments ({ties} with a tie, {all_bad} all bad), {skipped} skipped, "
            "{errors} errors.".format(**counts)
        )

    def _open(self, project: Project, number: int) -> tuple[str, str]:
        """Name and password of a simulated annotator of the project. The password is new with every run."""
        username, password = f"rehearsal-{number}", secrets.token_urlsafe(24)
        user = open_simulated_user(username=username, password=password)
        add_member(project=project, user=user, role=Membership.Role.ANNOTATOR)
        return username, password

    def _progress(self, counts: Counts) -> None:
        if counts["judgments"] >= self._next_told:
            self._next_told += PROGRESS_EVERY
            self.stdout.write(f"{counts['judgments']} simulated judgments so far")
