"""The artifact store: what is published is whole, and what is damaged is never served."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.together import together
from training import store
from training.store import DamagedArtifact, ErasedText

pytestmark = pytest.mark.usefixtures("stored")


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    (made / "adapter.safetensors").write_bytes(bytes(range(256)) * 20)
    (made / "deep" / "config.json").write_text('{"rank": 16}')
    return made


def everything_in(store_folder: Path) -> list[Path]:
    return [path for path in store_folder.rglob("*") if path.is_file()]


def test_what_was_published_is_fetched_as_it_was(folder, stored):
    digest = store.publish(folder, about={"kind": "policy"})
    fetched = store.fetch(digest)
    assert (fetched / "adapter.safetensors").read_bytes() == (folder / "adapter.safetensors").read_bytes()
    assert (fetched / "deep" / "config.json").read_text() == '{"rank": 16}'
    manifest = store.verify(fetched, digest)
    assert manifest["about"] == {"kind": "policy"}
    assert set(manifest["files"]) == {"adapter.safetensors", "deep/config.json"}


def test_the_name_is_a_function_of_content_alone(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    digest = store.publish(folder)
    assert store.publish(copy) == digest
    assert store.publish(folder, about={"kind": "policy"}) != digest
    (copy / "deep" / "config.json").write_text('{"rank": 17}')
    assert store.publish(copy) != digest
    shutil.move(folder / "deep" / "config.json", folder / "config.json")
    assert store.publish(folder) != digest


def test_publishing_again_is_only_a_look(folder, stored):
    digest = store.publish(folder)
    before = {path: path.stat().st_mtime_ns for path in everything_in(stored)}
    assert store.publish(folder) == digest
    assert {path: path.stat().st_mtime_ns for path in everything_in(stored)} == before


def test_many_who_publish_the_same_at_once_publish_it_once(folder, stored):
    assert len(set(together(8, lambda _: store.publish(folder)))) == 1
    assert len(everything_in(stored)) == 3
    store.fetch(store.publish(folder))


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    replace(file, bytes(content))


def replace(file: Path, content: bytes) -> None:
    file.unlink()  # it may be a hard link to the source
    file.write_bytes(content)


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    replace(one, second)
    replace(other, first)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda f: flip_a_bit(f / "adapter.safetensors"), "adapter.safetensors does not match"),
        (lambda f: flip_a_bit(f / "deep" / "config.json"), "deep/config.json does not match"),
        (lambda f: replace(f / "adapter.safetensors", b"short"), "5 bytes instead of 5120"),
        (lambda f: (f / "deep" / "config.json").unlink(), "deep/config.json is missing"),
        (
            lambda f: swap(f / "adapter.safetensors", f / "deep" / "config.json"),
            "adapter.safetensors has 12 bytes",
        ),
        (lambda f: (f / "deep" / "weights.bin").write_bytes(b""), "deep/weights.bin was added"),
        (lambda f: (f / "link").symlink_to("/etc/passwd"), "link was added"),
        (lambda f: flip_a_bit(f / "manifest.json"), "manifest .* was changed"),
        (lambda f: replace(f / "manifest.json", b""), "manifest .* was changed"),
        (lambda f: (f / "manifest.json").unlink(), "never published whole"),
        (shutil.rmtree, "not in the store"),
    ],
)
def test_what_was_damaged_is_refused_and_the_damage_named(folder, harm, said):
    digest = store.publish(folder)
    harm(store.fetch(digest))
    with pytest.raises(DamagedArtifact, match=said):
        store.fetch(digest)


def test_writing_through_the_source_of_a_hard_link_is_seen_as_damage(folder):
    digest = store.publish(folder)
    with (folder / "adapter.safetensors").open("r+b") as file:
        file.write(b"changed in place")
    with pytest.raises(DamagedArtifact, match="does not match"):
        store.fetch(digest)


def test_two_files_of_equal_size_that_changed_places_are_refused(tmp_path):
    made = tmp_path / "equal"
    made.mkdir()
    for name in ("one", "two"):
        (made / name).write_text(f"this is {name}")
    digest = store.publish(made)
    folder = store.fetch(digest)
    swap(folder / "one", folder / "two")
    with pytest.raises(DamagedArtifact, match="one does not match its digest"):
        store.fetch(digest)


def test_a_file_behind_a_symbolic_link_is_kept_and_not_the_link(folder, tmp_path):
    (tmp_path / "blob").write_text("far away")
    (folder / "linked.json").symlink_to(tmp_path / "blob")
    kept = store.fetch(store.publish(folder)) / "linked.json"
    assert not kept.is_symlink()
    assert kept.read_text() == "far away"


def test_a_manifest_of_a_checkpoint_folder_is_not_taken_for_content(folder):
    digest = store.publish(folder)
    (folder / "manifest.json").write_text("of the recipe's own")
    assert store.publish(folder) == digest


@pytest.fixture
def full_disk(monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill(*names: str) -> None:
        for name in names:
            module, function = name.split(".")
            monkeypatch.setattr({"os": os, "shutil": shutil}[module], function, full)

    return fill


@pytest.mark.parametrize("at", [["os.link", "shutil.copyfile"], ["os.fsync"]])
def test_a_full_disk_publishes_nothing_and_harms_nothing(
    folder, stored, full_disk, monkeypatch, at, tmp_path
):
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("published before")
    kept = store.publish(other)
    before = everything_in(stored)
    full_disk(*at)
    with pytest.raises(OSError, match="No space left"):
        store.publish(folder)
    monkeypatch.undo()
    assert everything_in(stored) == before
    store.fetch(kept)
    store.fetch(store.publish(folder))


def test_without_hard_links_files_are_copied(folder, full_disk, monkeypatch):
    full_disk("os.link")
    digest = store.publish(folder)
    assert not (store.fetch(digest) / "adapter.safetensors").samefile(folder / "adapter.safetensors")


def test_a_store_behind_another_file_system_publishes_the_manifest_last(
    folder, settings, tmp_path, monkeypatch
):
    import fsspec

    settings.ARTIFACTS_URL = "memory://artifacts"
    settings.HOME = tmp_path / "home"
    memory = fsspec.filesystem("memory")
    written: list[str] = []
    put, pipe = memory.put_file, memory.pipe_file
    monkeypatch.setattr(type(memory), "put_file", lambda self, a, b: (written.append(b), put(a, b)))
    monkeypatch.setattr(type(memory), "pipe_file", lambda self, a, b: (written.append(a), pipe(a, b)))
    digest = store.publish(folder)
    assert [path.rsplit("/", 1)[-1] for path in written] == [
        "adapter.safetensors",
        "config.json",
        "manifest.json",
    ]
    fetched = store.fetch(digest)
    assert (fetched / "deep" / "config.json").read_text() == '{"rank": 16}'
    flip_a_bit(fetched / "adapter.safetensors")
    with pytest.raises(DamagedArtifact):
        store.fetch(digest)

    shutil.rmtree(fetched)
    get = type(memory).get

    def killed_half_way(self, source, target, **_):
        Path(target, "manifest.json").write_bytes(b"{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(type(memory), "get", killed_half_way)
    with pytest.raises(KeyboardInterrupt):
        store.fetch(digest)
    monkeypatch.setattr(type(memory), "get", get)
    assert (store.fetch(digest) / "deep" / "config.json").read_text() == '{"rank": 16}'
    text = store.put_text("Green tea.")
    assert store.get_text(text) == "Green tea."
    memory.rm("/artifacts", recursive=True)


# --- texts ---


def test_a_text_is_kept_under_its_digest_once(stored):
    digest = store.put_text("Grüner Tee, 80 °C.\r\n")
    assert store.put_text("Grüner Tee, 80 °C.\r\n") == digest
    assert store.get_text(digest) == "Grüner Tee, 80 °C.\r\n"
    assert [path.name for path in everything_in(stored)] == [digest]
    assert store.put_text("Black tea.") != digest


def test_a_changed_or_missing_text_is_refused(stored):
    digest = store.put_text("Green tea.")
    (file,) = everything_in(stored)
    file.write_text("Black tea.")
    with pytest.raises(DamagedArtifact, match="does not match"):
        store.get_text(digest)
    file.unlink()
    with pytest.raises(DamagedArtifact, match="not in the store"):
        store.get_text(digest)


def test_an_erased_text_leaves_a_tombstone_that_says_so(stored):
    digest = store.put_text("My name is Anna.")
    store.erase_text(digest)
    store.erase_text(digest)
    with pytest.raises(ErasedText, match="was erased"):
        store.get_text(digest)
    assert all(path.read_bytes() == b"" for path in everything_in(stored))


def test_the_canonical_form_does_not_depend_on_the_order_of_keys():
    assert (
        store.canonical({"b": 1, "a": "ü"})
        == store.canonical({"a": "ü", "b": 1})
        == '{"a":"ü","b":1}'.encode()
    )
    assert json.loads(store.canonical({"a": [1, None]})) == {"a": [1, None]}


def test_an_erased_text_stays_erased_when_it_is_put_again():
    digest = store.put_text("Steep it for three minutes.")
    store.erase_text(digest)
    assert store.put_text("Steep it for three minutes.") == digest
    with pytest.raises(store.ErasedText):
        store.get_text(digest)
