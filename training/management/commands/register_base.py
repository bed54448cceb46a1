"""Let a project train on another base model: manage.py register_base SLUG FOLDER [--name NAME]."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotation.management.projects import project_called
from rankloop.errors import Refused
from training.services.checkpoints import register_base, register_policy


class Command(BaseCommand):
    help = "Register a folder with a chat model (safetensors, tokenizer.json) as a base, and as a contestant."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", help="the project")
        parser.add_argument(
            "folder", type=Path, help="as save_pretrained() or export_checkpoint --merge writes it"
        )
        parser.add_argument("--name", help="of the checkpoint; by default the folder's")

    def handle(self, *args: Any, slug: str, folder: Path, name: str | None, **options: Any) -> None:
        folder = folder.resolve()
        try:
            base = register_base(project=project_called(slug), folder=folder, name=name or folder.name)
            register_policy(checkpoint=base)
        except Refused as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"{base} is registered. Rounds can have it write, and runs can start from it.")
