"""`manage.py import_prompts PROJECT FILE`: JSONL or CSV, all or nothing, repeatable."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.importing import ImportErrors
from annotation.management.projects import project_called
from annotation.services.prompts import import_prompts


class Command(BaseCommand):
    help = "Import prompts from a JSONL or CSV file: string or message-list prompts, tags, source."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="the project's slug")
        parser.add_argument("file", type=Path)

    def handle(self, *, project: str, file: Path, **options: Any) -> None:
        row = project_called(project)
        try:
            content = file.read_bytes()
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}. Nothing was imported.") from None
        try:
            result = import_prompts(project=row, content=content, file=file.name)
        except ImportErrors as error:
            raise CommandError(str(error)) from None
        self.stdout.write(
            f"{result.rows} rows, {result.added} new, {result.rows - result.added} there already."
        )
