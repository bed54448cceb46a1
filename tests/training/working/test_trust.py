"""What is not to be trusted is neither trained on nor published."""

import pytest

from tests.training.weights import write_adapter
from tests.training.working.stage import TRAIN, folder_of, work
from training import looking_over, store
from training.models import Checkpoint, RunInput, WorkStatus
from training.services.launching import open_draft

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("write_adapter(run_dir / 'output', auto_mapping={'base_model_class': 'x'})", "auto_mapping"),
        ("write('output/optimizer.pt', '')", "pickle files"),
        ("write('output/adapter_model.safetensors', '')", "not whole safetensors"),
    ],
)
def test_an_output_that_is_not_to_be_trusted_is_never_published(run, recipe, stored, spoil, said):
    recipe(TRAIN.replace("result(", f"{spoil}\nresult("))
    before = sorted(stored.rglob("*"))
    assert work(run).status == WorkStatus.FAILED
    assert said in run.error
    assert sorted(stored.rglob("*")) == before
    assert not Checkpoint.objects.filter(run=run).exists()


@pytest.fixture
def untrusted(run, tmp_path) -> Checkpoint:
    """A policy whose configuration asks for what is not on the list."""
    base = run.inputs.get(role="base").checkpoint
    digest = store.publish(write_adapter(tmp_path / "untrusted", bias="all"))
    return Checkpoint.objects.create(
        project=run.project, name="untrusted", kind="policy", digest=digest, base=base
    )


def test_a_run_on_a_parent_that_is_not_to_be_trusted_is_refused_before_it_starts(run, recipe, untrusted):
    recipe("write('started', '')")
    RunInput.objects.create(run=run, role=RunInput.Role.PARENT, checkpoint=untrusted)
    assert (work(run).status, run.attempt) == (WorkStatus.FAILED, 1)
    assert "has bias = 'all', which is not on the list" in run.error
    assert not (folder_of(run) / "started").exists()


def test_a_draft_on_such_a_parent_is_told_so_before_it_is_launched(run, recipe, untrusted):
    recipe("write('started', '')")
    dataset = run.inputs.get(role="data").dataset
    drafted = open_draft(
        project=run.project,
        user=run.created_by,
        method="dpo",
        options={},
        dataset=dataset,
        parent=untrusted,
    )
    looking_over.check_run(drafted.pk)
    drafted.refresh_from_db()
    assert drafted.status == WorkStatus.DRAFT
    assert "has bias = 'all', which is not on the list" in drafted.findings["problems"][0]["what"]


def test_a_damaged_base_is_never_trained_on(run, recipe, tmp_path):
    recipe("write('started', '')")
    base = store.fetch(run.inputs.get(role="base").checkpoint.digest)
    (base / "model.safetensors").write_bytes(b"other")
    assert work(run).status == WorkStatus.FAILED
    assert "model.safetensors" in run.error
    assert not (folder_of(run) / "started").exists()
