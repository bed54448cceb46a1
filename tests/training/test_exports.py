"""Giving checkpoints out: what their page tells of the files, the archive, the model card, and the command."""

import io
import json
import re
import tarfile
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from rankloop.errors import Refused
from tests.api import Caller
from tests.pages import text_of
from tests.training.stage import base_folder
from training import store
from training.exporting import prepare_export, tar_of
from training.model_card import CardFacts, Data, Measured, model_card
from training.models import Checkpoint, PreferenceDataset, RunInput, TrainingRun, WorkStatus
from training.selectors.cards import card_of
from training.selectors.weights import weights_of
from training.services.checkpoints import check_model_folder, register_base

pytestmark = pytest.mark.django_db

LORA = {
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": (16, 64),
    "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": (64, 16),
}
CONFIG = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 16,
    "lora_alpha": 32,
    "target_modules": ["v_proj", "q_proj"],
}
METRICS = {
    "accuracy": 0.71,
    "interval": [0.58, 0.83],
    "pairs": 38,
    "human_ceiling": {"agreement": 0.8, "interval": [0.7, 0.9], "accuracy": 0.75},
    "at_start": {"accuracy": 0.47},
}


def safetensors(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """A file of float32 zeros in these shapes, with the head that the format has."""
    header, end = {}, 0
    for name, (rows, columns) in shapes.items():
        size = 4 * rows * columns
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


@pytest.fixture
def output(tmp_path) -> Path:
    """The folder of an adapter, as a recipe leaves it."""
    folder = tmp_path / "output"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(safetensors(LORA))
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    (folder / "recipe.json").write_text(json.dumps({"method": "dpo"}))
    return folder


@pytest.fixture
def policy(cast, base, output) -> Checkpoint:
    """A policy with its run, its dataset and the adapter it went on from."""
    dataset = PreferenceDataset.objects.create(
        project=cast.project, digest="d" * 64, counts={"judgments": 40, "train_pairs": 52, "ties": 0}
    )
    parent = Checkpoint.objects.create(
        project=cast.project, name="before", kind="policy", digest="e" * 64, base=base
    )
    run = TrainingRun.objects.create(
        project=cast.project,
        step="dpo",
        method="dpo",
        status=WorkStatus.SUCCEEDED,
        seed=7,
        code_version="0.1.0",
        recipe={"options": {"steps": 32, "beta": 0.1, "loss": "sigmoid"}, "threads": 2},
    )
    RunInput.objects.create(run=run, role="base", checkpoint=base)
    RunInput.objects.create(run=run, role="parent", checkpoint=parent)
    RunInput.objects.create(run=run, role="data", dataset=dataset)
    return Checkpoint.objects.create(
        project=cast.project,
        name="round-1-dpo",
        kind="policy",
        digest=store.publish(output, about={"method": "dpo"}),
        base=base,
        run=run,
        metrics=METRICS,
    )


def file_of(checkpoint: Checkpoint, name: str) -> Path:
    return Path(settings.ARTIFACTS_URL) / checkpoint.digest[:2] / checkpoint.digest / name


# --- what the files are ---


def test_the_page_of_an_adapter_tells_its_rank_targets_parent_and_size(site, policy):
    weights = weights_of(policy)
    assert (weights.rank, weights.alpha, weights.targets) == (16, 32, ["q_proj", "v_proj"])
    assert (weights.parameters, weights.dtypes) == (2 * 16 * 64, ["F32"])
    assert weights.size == sum(
        json.loads(file_of(policy, "manifest.json").read_text())["files"][name]["size"]
        for name in ("adapter_model.safetensors", "adapter_config.json", "recipe.json")
    )
    page = text_of(site.get(f"/p/tea/checkpoints/{policy.pk}/"))
    assert "LoRA rank 16, alpha 32" in page and "q_proj, v_proj" in page and "2,048" in page
    assert "Goes on frombefore" in page


def test_a_base_model_has_parameters_and_a_size_but_no_rank(cast, stored, tmp_path, site):
    folder = base_folder(tmp_path / "whole")
    (folder / "model.safetensors").write_bytes(safetensors({"a": (3, 5), "b": (2, 2)}))
    base = register_base(project=cast.project, folder=folder, name="whole")
    weights = weights_of(base)
    assert (weights.parameters, weights.is_adapter, weights.parent) == (19, False, None)
    page = text_of(site.get(f"/p/tea/checkpoints/{base.pk}/"))
    assert "LoRA rank" not in page and "Download" not in page


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b"no header"),
        lambda file: file.write_bytes((5).to_bytes(8, "little") + b"[1,2]"),
        lambda file: file.write_bytes((10**12).to_bytes(8, "little")),
    ],
)
def test_files_that_can_not_be_read_are_named_and_the_page_stays(site, policy, damage):
    damage(file_of(policy, "adapter_model.safetensors"))
    with pytest.raises(store.DamagedArtifact, match=r"adapter_model\.safetensors"):
        weights_of(policy)
    page = site.get(f"/p/tea/checkpoints/{policy.pk}/")
    assert page.status_code == 200 and "adapter_model.safetensors" in text_of(page)


def test_a_configuration_that_is_none_is_named(policy):
    file_of(policy, "adapter_config.json").write_text("[]")
    with pytest.raises(store.DamagedArtifact, match=r"adapter_config\.json can't be read"):
        weights_of(policy)


# --- the archive ---


def archive_of(answer) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(answer.streaming_content))) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive.getmembers()}


def test_the_archive_holds_weights_configuration_recipe_and_card(site, policy, output):
    answer = site.get(f"/p/tea/checkpoints/{policy.pk}/export.tar", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Disposition"] == 'attachment; filename="round-1-dpo.tar"'
    assert answer.headers["Content-Encoding"] == "identity"
    files = archive_of(answer)
    assert set(files) == {
        f"round-1-dpo/{name}"
        for name in ("README.md", "adapter_model.safetensors", "adapter_config.json", "recipe.json")
    }
    for name in ("adapter_model.safetensors", "adapter_config.json", "recipe.json"):
        assert files[f"round-1-dpo/{name}"] == (output / name).read_bytes()
    card = files["round-1-dpo/README.md"].decode()
    for said in (
        policy.digest,
        "d" * 64,
        "DPO",
        "71.0% [58.0%, 83.0%]",
        "Human ceiling",
        "52 train pairs",
        "Licence",
    ):
        assert said in card
    assert "0 ties" not in card


def test_two_exports_are_equal_and_as_long_as_they_said(policy):
    first, second = (b"".join(tar_of(prepare_export(policy))) for _ in range(2))
    assert first == second
    assert prepare_export(policy).size == len(first)


def test_a_damaged_checkpoint_is_never_given_out(site, policy, cast):
    file = file_of(policy, "adapter_model.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)
    page = site.get(f"/p/tea/checkpoints/{policy.pk}/export.tar", follow=True)
    assert "does not match its digest" in text_of(page)
    api = Caller(cast.researcher).get(f"/api/v1/projects/tea/checkpoints/{policy.pk}/export")
    assert api.status_code == 409 and "does not match its digest" in api.json()["detail"]


def test_a_base_model_is_not_given_out(site, base, cast):
    assert "came from outside" in text_of(site.get(f"/p/tea/checkpoints/{base.pk}/export.tar", follow=True))
    with pytest.raises(Refused):
        prepare_export(base)
    assert (
        Caller(cast.researcher).get(f"/api/v1/projects/tea/checkpoints/{base.pk}/export").status_code == 400
    )


@pytest.mark.parametrize("by", ["token", "session"])
def test_the_archive_and_the_files_are_told_by_api(cast, policy, by, output):
    caller = Caller(cast.researcher, by=by)
    answer = caller.get(f"/api/v1/projects/tea/checkpoints/{policy.pk}/export")
    assert answer.headers["Content-Type"] == "application/x-tar"
    assert archive_of(answer)["round-1-dpo/recipe.json"] == (output / "recipe.json").read_bytes()
    weights = caller.get(f"/api/v1/projects/tea/checkpoints/{policy.pk}").json()["weights"]
    assert (weights["rank"], weights["targets"], weights["parameters"]) == (16, ["q_proj", "v_proj"], 2048)
    assert weights["parent"] == policy.run.inputs.get(role="parent").checkpoint_id
    file_of(policy, "manifest.json").unlink()
    assert caller.get(f"/api/v1/projects/tea/checkpoints/{policy.pk}").json()["weights"] is None


@pytest.mark.parametrize("who", ["anna", "reviewer", "stranger"])
def test_only_researchers_take_weights_out(client, cast, policy, who):
    client.force_login(getattr(cast, who))
    assert client.get(f"/p/tea/checkpoints/{policy.pk}/export.tar").status_code == 404
    caller = Caller(getattr(cast, who))
    assert caller.get(f"/api/v1/projects/tea/checkpoints/{policy.pk}/export").status_code == 404


def test_the_page_leads_on_and_tells_the_command(site, policy):
    content = site.get(f"/p/tea/checkpoints/{policy.pk}/").content.decode()
    onward = f"/p/tea/runs/new/?parent={policy.pk}"
    assert f'href="{onward}"' in content
    assert site.get(onward).context["form"]["parent"].value() == policy.pk
    assert f'href="/p/tea/checkpoints/{policy.pk}/export.tar"' in content
    assert "manage.py export_checkpoint tea round-1-dpo --out FOLDER --merge" in content


# --- the card ---


def facts(**changes) -> CardFacts:
    values = {
        "name": "round-1-dpo",
        "digest": "a" * 64,
        "kind": "policy",
        "is_adapter": True,
        "base_name": "smollm2",
        "base_digest": "b" * 64,
        "project": "Tea",
        "method": "DPO",
        "options": {"steps": 32},
        "seed": 7,
        "threads": None,
        "code_version": "0.1.0",
        "rank": 16,
        "alpha": 32,
        "targets": ["q_proj"],
        "parameters": 2048,
    }
    return CardFacts(**values | changes)


def test_the_card_says_what_it_is_and_what_is_not_known():
    card = model_card(facts())
    assert 'base_model: "smollm2"' in card and "library_name: peft" in card and "lora]" in card
    assert (
        "of use only together with it" in card
        and "Nothing was measured." in card
        and "No dataset is known." in card
    )
    merged = model_card(facts(), merged=True)
    assert (
        "library_name: transformers" in merged
        and "is merged into its base" in merged
        and "lora]" not in merged
    )
    whole = model_card(facts(is_adapter=False, rank=None))
    assert "whole weights that began as smollm2" in whole and "LoRA rank" not in whole
    assert "text-classification" in model_card(facts(kind="reward"))


def test_the_card_tells_what_is_no_share_too(policy):
    """A run of SFT is judged by its loss alone."""
    policy.metrics = {"loss": 1.5, "interval": [1.25, 1.75], "perplexity": 4.4817}
    card = model_card(card_of(policy))
    assert "| Held-out loss | 1.5 [1.25, 1.75] |" in card and "| Held-out perplexity | 4.482 |" in card


def test_nothing_that_a_person_named_becomes_markup_of_the_card():
    evil = "# x\n---\nlicense: mit\n<script>|`$(x)` [a](javascript:b) **c** \u202e"
    card = model_card(
        facts(
            name=evil,
            project=evil,
            base_name=evil,
            targets=[evil],
            options={evil: evil},
            lineage=[evil, evil],
            data=[Data("d" * 64, {evil: 3})],
            judgments={evil: 2},
            measured=[Measured(evil, 0.5)],
        )
    )
    assert card.split("\n").count("---") == 2
    assert "\u202e" not in card
    for line in card.split("---\n")[2].split("\n"):
        bare = re.sub(r"\\.", "", line)
        assert "<" not in bare and "](" not in bare and "**" not in bare
        assert bare.count("|") in (0, 3)  # a table's row has two cells, whatever stands in them
        assert not re.match(r"(# |\d+\. )#", line)


# --- the command ---


def test_the_command_writes_a_folder_with_the_card(policy, output, tmp_path, capsys):
    out = tmp_path / "given" / "out"
    call_command("export_checkpoint", "tea", "round-1-dpo", "--out", str(out))
    assert {file.name for file in out.iterdir()} == {
        *("README.md", "adapter_model.safetensors", "adapter_config.json", "recipe.json"),
    }
    assert (out / "adapter_model.safetensors").read_bytes() == (
        output / "adapter_model.safetensors"
    ).read_bytes()
    assert str(out) in capsys.readouterr().out
    assert [file.name for file in out.parent.iterdir()] == ["out"]


def test_the_command_says_what_is_wrong_and_leaves_nothing_behind(policy, base, tmp_path):
    def export(name: str, out: Path, *more: str, slug: str = "tea") -> None:
        call_command("export_checkpoint", slug, name, "--out", str(out), *more)

    (tmp_path / "there").mkdir()
    with pytest.raises(CommandError, match="is there already"):
        export("round-1-dpo", tmp_path / "there")
    with pytest.raises(CommandError, match="no project 'coffee'"):
        export("round-1-dpo", tmp_path / "out", slug="coffee")
    with pytest.raises(CommandError, match="no checkpoint 'best'"):
        export("best", tmp_path / "out")
    with pytest.raises(CommandError, match="came from outside"):
        export("tiny", tmp_path / "out")
    with pytest.raises(CommandError, match="whole weights already"):
        export("tiny", tmp_path / "out", "--merge")
    with pytest.raises(CommandError, match="Merging failed"):
        export("round-1-dpo", tmp_path / "out", "--merge")  # the base is no model that could be opened
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob(".out*")) == []


@pytest.mark.slow
def test_a_merged_model_can_be_registered_as_a_base_of_its_own(cast, stored, tiny_model, tmp_path):
    """Train two steps for real, then merge by the command."""
    from tests.recipes.runs import make_training_run, result_of, start

    base = register_base(project=cast.project, folder=tiny_model, name="tiny")
    run_dir = make_training_run(tmp_path / "run", "dpo", tiny_model, options={"steps": 2})
    assert start(run_dir).wait(120) == 0, result_of(run_dir)
    run = TrainingRun.objects.create(project=cast.project, step="dpo", method="dpo", status="succeeded")
    RunInput.objects.create(run=run, role="base", checkpoint=base)
    Checkpoint.objects.create(
        project=cast.project,
        name="dpo",
        kind="policy",
        digest=store.publish(run_dir / "output"),
        base=base,
        run=run,
    )
    out = tmp_path / "merged"
    call_command("export_checkpoint", "tea", "dpo", "--out", str(out), "--merge")
    check_model_folder(out)
    assert "is merged into its base" in (out / "README.md").read_text()
    merged = register_base(project=cast.project, folder=out, name="merged")
    assert weights_of(merged).parameters == weights_of(base).parameters
    assert merged.digest != base.digest
