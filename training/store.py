"""The artifact store: content-addressed folders and texts, in a local folder or wherever fsspec reaches.

A folder's name is the SHA-256 of its manifest, and the manifest, written last, is the publication: what has none is
not there, on a file system as on s3. Every load checks every file against it, so a damaged checkpoint is never served.
Nothing here opens a transaction; callers publish first and write their rows after.
"""

import hashlib
import json
import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
from django.conf import settings

MANIFEST = "manifest.json"
_BLOCK = 1 << 20


class DamagedArtifact(Exception):
    """A stored file is missing, truncated or changed. The message names it."""


class ErasedText(Exception):
    """A text of a dataset was erased: its tombstone is there, its content is not."""


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(value: Any) -> bytes:
    """The one JSON form of a value: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _root() -> tuple[fsspec.AbstractFileSystem, str]:
    return fsspec.core.url_to_fs(settings.ARTIFACTS_URL)


def _is_local(fs: fsspec.AbstractFileSystem) -> bool:
    return "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def publish(folder: Path, *, about: dict[str, Any] | None = None) -> str:
    """Put a folder's files into the store and return the digest that names it. A second time is a look.

    `about` is kept in the manifest. Raises OSError when the store can't be written (a full disk): nothing is
    published then, and what was there stays good.
    """
    files = {}
    for name in _names_in(folder):
        files[name] = {"sha256": file_digest(folder / name), "size": (folder / name).stat().st_size}
    manifest = canonical({"files": files, "about": about or {}})
    digest = hashlib.sha256(manifest).hexdigest()

    fs, root = _root()
    target = f"{root}/{digest[:2]}/{digest}"
    if fs.exists(f"{target}/{MANIFEST}"):
        return digest
    if _is_local(fs):
        _publish_local(folder, files, manifest, Path(target))
        return digest
    for name in files:
        fs.put_file(str(folder / name), f"{target}/{name}")
    fs.pipe_file(f"{target}/{MANIFEST}", manifest)
    return digest


def _publish_local(folder: Path, files: dict[str, Any], manifest: bytes, target: Path) -> None:
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        for name in files:
            copy = unfinished / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(folder / name, copy)
        with (unfinished / MANIFEST).open("wb") as file:
            file.write(manifest)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(target)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not (target / MANIFEST).is_file():  # else another process published the same in between
            raise


def _link_or_copy(source: Path, copy: Path) -> None:
    """A hard link costs no disk; should its other name be written to, the next load sees the damage and refuses."""
    source = (
        source.resolve()
    )  # of a symbolic link the file behind it, or the copy would point out of the store
    try:
        os.link(source, copy)
    except OSError:
        shutil.copyfile(source, copy)


def fetch(digest: str) -> Path:
    """A local folder with the artifact's files, each checked. Raises DamagedArtifact naming what is wrong."""
    fs, root = _root()
    target = f"{root}/{digest[:2]}/{digest}"
    if _is_local(fs):
        folder = Path(target)
    else:
        folder = Path(settings.HOME) / "cache" / digest
        if not folder.is_dir():
            _download(fs, target, folder)
    verify(folder, digest)
    return folder


def _download(fs: fsspec.AbstractFileSystem, target: str, folder: Path) -> None:
    """Copy an artifact to this host. It gets its name when it is whole: a worker may be killed in the middle."""
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        unfinished.mkdir(parents=True)
        fs.get(f"{target}/", f"{unfinished}/", recursive=True)
        with suppress(OSError):  # another process was faster
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _names_in(folder: Path) -> list[str]:
    """Every file below a folder but the manifest itself, by its path from there."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return sorted(name for name in found if name.rpartition("/")[2] != MANIFEST)


def read_manifest(digest: str) -> dict[str, Any]:
    """What an artifact holds, `{"files": {name: {"sha256", "size"}}, "about"}`; the files themselves are not checked.

    Raises DamagedArtifact.
    """
    return _manifest(read_head(digest, MANIFEST), digest)


def _manifest(raw: bytes, digest: str) -> dict[str, Any]:
    """The content of a manifest that its artifact is named by. Raises DamagedArtifact for another."""
    if hashlib.sha256(raw).hexdigest() != digest:
        raise DamagedArtifact(f"The manifest of artifact {digest[:12]} was changed after publication.")
    return json.loads(raw)


def read_head(digest: str, name: str, size: int | None = None) -> bytes:
    """The first bytes of one file (all without `size`), unchecked: for a page that tells about it, never to load from.

    Raises DamagedArtifact when it is not there.
    """
    fs, root = _root()
    try:
        return fs.cat_file(f"{root}/{digest[:2]}/{digest}/{name}", end=size)
    except FileNotFoundError:
        what = "was never published whole" if name == MANIFEST else f"has lost {name}"
        raise DamagedArtifact(f"Artifact {digest[:12]} is not in the store, or {what}.") from None


def verify(folder: Path, digest: str) -> dict[str, Any]:
    """The manifest of a stored folder, once every file has been checked against it. Raises DamagedArtifact."""
    try:
        raw = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise DamagedArtifact(
            f"Artifact {digest[:12]} is not in the store, or was never published whole."
        ) from None
    manifest = _manifest(raw, digest)
    added = sorted(set(_names_in(folder)) - set(manifest["files"]))
    if added:
        raise DamagedArtifact(
            f"Artifact {digest[:12]}: {', '.join(added[:5])} was added after publication. Delete it."
        )
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise DamagedArtifact(f"Artifact {digest[:12]}: {name} is missing.")
        if path.stat().st_size != expected["size"]:
            raise DamagedArtifact(
                f"Artifact {digest[:12]}: {name} has {path.stat().st_size} bytes instead of {expected['size']}."
            )
        if file_digest(path) != expected["sha256"]:
            raise DamagedArtifact(f"Artifact {digest[:12]}: {name} does not match its digest.")
    return manifest


def _text_path(root: str, digest: str) -> str:
    return f"{root}/texts/{digest[:2]}/{digest}"


def put_text(text: str) -> str:
    """Keep a text under its SHA-256 (hex) and return that. An erased text stays erased."""
    content = text.encode()
    digest = hashlib.sha256(content).hexdigest()
    fs, root = _root()
    path = _text_path(root, digest)
    if not fs.exists(path) and not fs.exists(path + ".erased"):
        if _is_local(fs):
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_name(f".{digest}.{uuid.uuid4().hex}")
            unfinished.write_bytes(content)
            unfinished.rename(target)
        else:
            fs.pipe_file(path, content)
    return digest


def get_text(digest: str) -> str:
    """The text of that digest. Raises ErasedText for a tombstone, DamagedArtifact for a missing or changed one."""
    fs, root = _root()
    try:
        content = fs.cat_file(_text_path(root, digest))
    except FileNotFoundError:
        if fs.exists(_text_path(root, digest) + ".erased"):
            raise ErasedText(
                f"Text {digest[:12]} was erased. Datasets that hold it can be looked at and no longer trained on."
            ) from None
        raise DamagedArtifact(f"Text {digest[:12]} is not in the store.") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise DamagedArtifact(f"Text {digest[:12]} does not match its digest.")
    return content.decode()


def erase_text(digest: str) -> None:
    """Put a tombstone in a text's place: the names of datasets that hold it stay valid."""
    fs, root = _root()
    path = _text_path(root, digest)
    fs.pipe_file(path + ".erased", b"")
    if fs.exists(path):
        fs.rm_file(path)
