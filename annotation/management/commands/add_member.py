"""`manage.py add_member PROJECT USERNAME ROLE`: let a person in, with a new account where there is none."""

import secrets
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from annotation.management.projects import project_called
from annotation.models import Membership
from annotation.services.members import add_member
from rankloop.accounts.models import User
from rankloop.errors import Refused


class Command(BaseCommand):
    help = "Give a person a role in a project. A new account's first password is printed, once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="the project's slug")
        parser.add_argument("username")
        parser.add_argument("role", choices=Membership.Role.values)

    @transaction.atomic
    def handle(self, *, project: str, username: str, role: str, **options: Any) -> None:
        row = project_called(project)
        user = User.objects.filter(username=username).first()
        password = "" if user else secrets.token_urlsafe(12)
        user = user or User.objects.create_user(username, password=password)
        try:
            add_member(project=row, user=user, role=role)
        except Refused as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"{username} is now {role} of {row}.")
        if password:
            self.stdout.write(f"New account. First password, to be changed after signing in: {password}")
