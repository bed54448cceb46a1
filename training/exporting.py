"""Giving a checkpoint out: its files as they were published, with a model card; merged into its base when asked for.

Files and processes only; what the card tells comes from rows.
"""

import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils.text import get_valid_filename

from rankloop.errors import Refused
from training import store
from training.model_card import model_card
from training.models import Checkpoint
from training.selectors.cards import card_of
from training.supervisor import Recipe, read_log

CARD = "README.md"
_PIECE = 1 << 20  # bytes read at a time
_END = b"\0" * 2 * tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Export:
    """A trained checkpoint, verified and ready to be given out: its folder in the store, its card, a name for files."""

    name: str
    folder: Path
    card: bytes
    modified: int  # seconds since 1970: the time it was published, so that two exports are equal

    @property
    def files(self) -> list[tuple[str, int]]:
        """Every file but the store's own manifest, and its size."""
        found = sorted(
            path for path in self.folder.rglob("*") if path.is_file() and path.name != store.MANIFEST
        )
        return [(path.relative_to(self.folder).as_posix(), path.stat().st_size) for path in found]

    @property
    def size(self) -> int:
        """Bytes of the archive."""
        whole = [(CARD, len(self.card)), *self.files]
        return sum(len(_entry(self, *file)) + file[1] + len(_padding(file[1])) for file in whole) + len(_END)


def prepare_export(checkpoint: Checkpoint) -> Export:
    """Check every file of a checkpoint and write its card. Raises Refused for a base model, DamagedArtifact."""
    if checkpoint.kind == Checkpoint.Kind.BASE:
        raise Refused(
            f"{checkpoint} is a base model that came from outside. Take it from where it came from."
        )
    return Export(
        name=get_valid_filename(checkpoint.name),
        folder=store.fetch(checkpoint.digest),
        card=model_card(card_of(checkpoint)).encode(),
        modified=int(checkpoint.created_at.timestamp()),
    )


def tar_of(export: Export) -> Iterator[bytes]:
    """The export as a tar archive, piece by piece, however large it is."""
    yield _entry(export, CARD, len(export.card))
    yield export.card + _padding(len(export.card))
    for name, size in export.files:
        yield _entry(export, name, size)
        with (export.folder / name).open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece
        yield _padding(size)
    yield _END


def _entry(export: Export, name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(f"{export.name}/{name}")
    entry.size, entry.mtime, entry.mode = size, export.modified, 0o644
    return entry.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    """What fills a file's last block."""
    return b"\0" * (-size % tarfile.BLOCKSIZE)


def write_export(checkpoint: Checkpoint, out: Path) -> None:
    """Write the files and the card into a new folder. Raises Refused when there is something, and DamagedArtifact."""
    export = prepare_export(checkpoint)
    with _scratch_for(out) as scratch:
        for name, _ in export.files:
            copy = scratch / "output" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(export.folder / name, copy)
        (scratch / "output" / CARD).write_bytes(export.card)


def write_merged(checkpoint: Checkpoint, out: Path) -> dict[str, Any]:
    """Merge an adapter into its base and write the whole model with tokenizer and card; what the recipe measured.

    Raises Refused when there is something at `out` already, or the recipe says what is wrong; DamagedArtifact.
    """
    facts = card_of(checkpoint) if checkpoint.base else None
    if facts is None or not facts.is_adapter:
        raise Refused(f"{checkpoint} holds whole weights already. Export it without merging.")
    config = {
        "method": "merge",
        "base": str(store.fetch(facts.base_digest)),
        "adapter": str(store.fetch(facts.digest)),
        "threads": settings.TRAINING_THREADS or None,
    }
    with _scratch_for(out) as scratch:
        (scratch / "config.json").write_text(json.dumps(config))
        measured = _merge(scratch)
        (scratch / "output" / CARD).write_text(model_card(facts, merged=True))
    return measured


def _merge(run_dir: Path) -> dict[str, Any]:
    """Run the recipe in a process of its own, as a worker does; its metrics."""
    recipe = Recipe("merge", run_dir)
    recipe.start()
    try:
        while recipe.wait(1.0) is None:
            pass
    finally:
        recipe.close()
    result = recipe.read_json("result.json")
    if not result.get("ok"):
        raise Refused(f"Merging failed. {result.get('error') or read_log(run_dir, lines=5)}")
    return result["metrics"]


@contextmanager
def _scratch_for(out: Path) -> Iterator[Path]:
    """A folder beside `out` to work in. Its output/ becomes `out` in the end; after an error, nothing does."""
    if out.exists():
        raise Refused(f"{out} is there already. Name a folder that is not.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        yield Path(scratch)
        (Path(scratch) / "output").rename(out)
