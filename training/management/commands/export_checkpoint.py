"""Give a checkpoint out as a folder: manage.py export_checkpoint SLUG NAME --out FOLDER [--merge]."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotation.management.projects import project_called
from rankloop.errors import Refused
from training.exporting import write_export, write_merged
from training.store import DamagedArtifact


class Command(BaseCommand):
    help = "Write a checkpoint with its model card into a new folder; with --merge as a whole model."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", help="the project")
        parser.add_argument("name", help="the checkpoint's name")
        parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
        parser.add_argument("--merge", action="store_true", help="merge the adapter into its base model")

    def handle(self, *args: Any, slug: str, name: str, out: Path, merge: bool, **options: Any) -> None:
        checkpoint = (
            project_called(slug).checkpoints.select_related("base", "run__round").filter(name=name).first()
        )
        if checkpoint is None:
            raise CommandError(
                f"The project {slug} has no checkpoint {name!r}. Look on its page of checkpoints."
            )
        try:
            if merge:
                checked = write_merged(checkpoint, out.resolve())
                self.stdout.write(
                    f"Merged, in {checked['dtype']}. On {checked['probe_tokens']} probe tokens its answers moved by "
                    f"{checked['moved']:.2g} of their spread."
                )
            else:
                write_export(checkpoint, out.resolve())
        except (Refused, DamagedArtifact) as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"{checkpoint} is in {out.resolve()}")
