"""Registering checkpoints and the contestants they become."""

import os
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models import ProtectedError

from rankloop.errors import Refused
from tests.cast import add_contestants
from tests.training.stage import base_folder
from training import store
from training.models import Checkpoint
from training.services.checkpoints import (
    DEFAULT_DECODING,
    checkpoint_of,
    register_base,
    register_policy,
)


def put(file: Path) -> None:
    """A file of pickle's."""
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"\x80\x04N.")


def register(cast, folder, name="other") -> Checkpoint:
    return register_base(project=cast.project, folder=folder, name=name)


def test_a_base_is_published_and_registered_once(cast, base, tmp_path):
    assert base.kind == "base"
    kept = (store.fetch(base.digest) / "model.safetensors").read_bytes()
    assert kept == (tmp_path / "base" / "model.safetensors").read_bytes()
    assert register(cast, base_folder(tmp_path / "again"), name="tiny") == base
    assert Checkpoint.objects.count() == 1


def test_the_command_registers_a_base_that_can_write_at_once(cast, stored, tmp_path, capsys):
    call_command("register_base", "tea", str(base_folder(tmp_path / "llama")))
    call_command("register_base", "tea", str(tmp_path / "llama"), "--name", "llama")
    base = Checkpoint.objects.get()
    assert (base.name, base.kind, base.contestants.get().name) == ("llama", "base", "llama")
    assert "llama is registered" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("slug", "folder", "said"),
    [("tea", "nowhere", "is not a folder"), ("coffee", "llama", "coffee")],
)
def test_the_command_says_what_is_wrong(cast, stored, tmp_path, slug, folder, said):
    base_folder(tmp_path / "llama")
    with pytest.raises(CommandError, match=said):
        call_command("register_base", slug, str(tmp_path / folder))
    assert not Checkpoint.objects.exists()


def test_names_are_permanent(cast, base, tmp_path):
    with pytest.raises(Refused, match="names are permanent"):
        register(cast, base_folder(tmp_path / "new", weights=b"other weights"), name="tiny")
    assert Checkpoint.objects.get().digest == base.digest


def test_the_same_weights_may_have_two_names(cast, base, tmp_path):
    second = register(cast, base_folder(tmp_path / "again"), name="reproduction")
    assert (second.digest, second.pk != base.pk) == (base.digest, True)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "model.safetensors").unlink(), r"no \*.safetensors weights"),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            "pickle files.*pytorch_model.bin",
        ),
        (lambda f: put(f / "old" / "pytorch_model.PT"), "pickle files.*old/pytorch_model.PT"),
        (lambda f: put(f / "modeling_own.py"), "code of its own: modeling_own.py"),
        (lambda f: put(f / "model.safetensors"), "not whole safetensors"),
        (lambda f: os.truncate(f / "model.safetensors", 100), "not whole safetensors"),
        (lambda f: (f / "config.json").write_text('{"quantization_config": {"bits": 4}}'), "quantised"),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "not JSON"),
        (lambda f: (f / "config.json").write_text('{"auto_map": {"AutoModel": "x.Y"}}'), "auto_map"),
    ],
)
def test_a_folder_that_is_no_safetensors_model_is_refused_with_what_to_do(
    cast, stored, tmp_path, spoil, said
):
    folder = base_folder(tmp_path / "model")
    spoil(folder)
    with pytest.raises(Refused, match=said):
        register(cast, folder)
    assert not Checkpoint.objects.exists()
    assert not stored.exists()


def test_a_folder_that_is_not_there_is_refused(cast, stored, tmp_path):
    with pytest.raises(Refused, match="not a folder"):
        register(cast, tmp_path / "nowhere")
    with pytest.raises(Refused, match="not a folder"):
        register(cast, base_folder(tmp_path / "model") / "config.json")


def test_a_policy_becomes_one_contestant_for_each_way_of_asking_it(base):
    plain = register_policy(checkpoint=base)
    assert register_policy(checkpoint=base) == plain
    assert (plain.name, plain.decoding) == ("tiny", DEFAULT_DECODING)
    brief = register_policy(checkpoint=base, name="brief", system_prompt="Be brief.")
    short = register_policy(checkpoint=base, name="short", decoding={"max_new_tokens": 8})
    assert len({plain.pk, brief.pk, short.pk}) == 3
    assert set(base.contestants.all()) == {plain, brief, short}
    assert {checkpoint_of(contestant) for contestant in (plain, brief, short)} == {base}


def adapter(base, kind: str, name: str = "adapter") -> Checkpoint:
    return Checkpoint.objects.create(project=base.project, name=name, kind=kind, digest="d" * 64, base=base)


def test_a_reward_model_writes_nothing(base):
    with pytest.raises(Refused, match="reward model: it judges and does not write"):
        register_policy(checkpoint=adapter(base, "reward"))


def test_a_contestant_without_a_checkpoint_cannot_generate(cast):
    with pytest.raises(Refused, match="has no checkpoint"):
        checkpoint_of(add_contestants(cast, "a person")[0])


def test_what_a_checkpoint_stands_on_cannot_be_deleted(base):
    register_policy(checkpoint=base)
    policy = adapter(base, "policy")
    with pytest.raises(ProtectedError):
        base.delete()
    policy.delete()
    with pytest.raises(ProtectedError):
        base.delete()


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("kind = 'policy' WHERE base_id IS NULL", "an_adapter_has_a_base"),
        ("base_id = NULL WHERE kind = 'policy'", "an_adapter_has_a_base"),
        ("name = 'tiny'", "one_checkpoint_per_name"),
    ],
)
def test_each_constraint_on_checkpoints_holds(base, change, constraint):
    adapter(base, "policy")
    with pytest.raises(DatabaseError, match=constraint), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE training_checkpoint SET {change}")


def test_two_checkpoints_never_share_a_name_within_a_project(base):
    with pytest.raises(IntegrityError, match="one_checkpoint_per_name"), transaction.atomic():
        adapter(base, "policy", name="tiny")
