"""When memory or the disk runs out: half the micro-batch, a refusal, or a stop that saves."""

import json
import shutil

import pytest

from tests.training.working.stage import TRAIN, folder_of, wait_for_the_worker, work
from training import resources, store
from training.models import Checkpoint, TrainingRun, WorkStatus
from training.supervisor import read_log

pytestmark = pytest.mark.django_db(transaction=True)

OUT_OF_MEMORY = "result(ok=False, error='Out of memory.', kind='memory'); sys.exit(2)"


def test_out_of_memory_is_tried_once_more_with_half_the_micro_batch_and_the_recipe_stays(run, recipe):
    recipe(OUT_OF_MEMORY)
    asked = {**run.recipe["options"], "batch_size": 24, "micro_batch_size": 12}
    TrainingRun.objects.filter(pk=run.pk).update(attempt_limit=1, recipe=run.recipe | {"options": asked})
    assert work(run).status == WorkStatus.QUEUED
    assert (run.halvings, run.attempt_limit) == (1, 2)
    assert "Memory ran out with 12 rows computed together. It is tried once more with 6" in run.error
    assert "tried once more with 6" in read_log(folder_of(run, 1))
    assert work(run).status == WorkStatus.FAILED
    assert run.error.startswith("Out of memory. It was tried with 6 rows computed together.")
    sizes = [
        json.loads((folder_of(run, attempt) / "config.json").read_text())["options"]["micro_batch_size"]
        for attempt in (1, 2)
    ]
    assert sizes == [12, 6]
    assert run.recipe["options"] == asked
    assert not Checkpoint.objects.filter(run=run).exists()


def test_the_second_try_after_out_of_memory_may_succeed(run, recipe):
    recipe(
        f"if config['options']['micro_batch_size'] == {run.recipe['options']['micro_batch_size']}:\n"
        + f"    {OUT_OF_MEMORY}\n".replace("; ", "\n    ")
        + TRAIN
    )
    assert [work(run).status for _ in range(2)] == [WorkStatus.QUEUED, WorkStatus.SUCCEEDED]
    assert (run.halvings, run.error) == (1, "")


def test_a_micro_batch_of_one_cannot_be_halved(run, recipe):
    recipe(OUT_OF_MEMORY)
    options = {**run.recipe["options"], "micro_batch_size": 1}
    TrainingRun.objects.filter(pk=run.pk).update(recipe=run.recipe | {"options": options})
    assert (work(run).status, run.halvings) == (WorkStatus.FAILED, 0)


@pytest.mark.parametrize(
    ("method", "sizes", "halved"),
    [
        ("dpo", {"batch_size": 24, "micro_batch_size": 12}, 6),
        ("dpo", {"batch_size": 4, "micro_batch_size": 12}, 2),  # 12 was never in use
        ("dpo", {"batch_size": 9, "micro_batch_size": 1}, None),
        ("dpo", {"batch_size": 14, "micro_batch_size": 6}, 1),  # of 14 rows, 2 fit together, not 6
        ("rloo", {"batch_size": 14, "micro_batch_size": 6, "group_size": 2, "reward": "length"}, 1),
        ("ppo", {"batch_size": 14, "micro_batch_size": 6, "reward": "length"}, 3),  # in sixes and a rest
        ("kto", {"batch_size": 24, "micro_batch_size": 12}, 6),
        ("kto", {"batch_size": 4, "micro_batch_size": 2}, None),  # TRL computes no fewer
        ("kto", {"batch_size": 5, "micro_batch_size": 5}, None),  # five can't be parted
    ],
)
def test_half_a_micro_batch_is_what_the_method_can_do_with(method, sizes, halved):
    assert resources.can_halve(method, sizes, 0) == (halved is not None)
    assert not resources.can_halve(method, sizes, 1)
    if halved is not None:
        assert resources.rows_together(method, sizes, 1) == halved


def test_what_several_processes_compute_together_is_halved_from_the_share_of_each(settings):
    settings.TRAINING_PROCESSES = 8
    sizes = {"batch_size": 48, "micro_batch_size": 24}  # six rows each
    assert [resources.rows_together("dpo", sizes, halvings) for halvings in (0, 1)] == [6, 3]


def test_a_recipe_that_the_kernel_ended_for_want_of_memory_is_told_from_one_that_was_killed(
    run, recipe, monkeypatch
):
    recipe("os.kill(os.getpid(), signal.SIGKILL)")
    counted = iter([3, 4, 4, 4])
    monkeypatch.setattr(resources, "oom_kills", lambda: next(counted))
    assert (work(run).status, run.halvings) == (WorkStatus.QUEUED, 1)
    assert "Memory ran out" in run.error
    assert (work(run).status, run.halvings) == (WorkStatus.QUEUED, 1)
    assert "was killed by signal 9" in run.error


def test_without_room_on_the_disk_nothing_is_started_and_the_remedy_is_told(run, recipe, settings):
    recipe("write('started', '')")
    settings.DISK_RESERVE = 10**18
    assert (work(run).status, run.attempt) == (WorkStatus.FAILED, 1)
    assert "Free some space, then retry" in run.error
    assert not (folder_of(run) / "started").exists()


def test_what_a_run_will_write_is_asked_of_the_disk_beside_the_reserve(tiny_model, settings, tmp_path):
    needed = resources.disk_needed("dpo", tiny_model, {"lora_rank": 16})
    assert 100_000 < needed < resources.disk_needed("ppo", tiny_model, {"lora_rank": 16})
    assert resources.disk_needed("sampling", tiny_model, {}) == 0
    free = shutil.disk_usage(tmp_path).free
    settings.DISK_RESERVE = free // 2
    resources.refuse_full_disk(tmp_path, free // 4)
    with pytest.raises(resources.NoRoom, match="must stay free"):
        resources.refuse_full_disk(tmp_path, free)


def test_a_disk_that_runs_short_makes_a_run_save_and_stop(working, settings):
    settings.DISK_RESERVE = 10**18
    wait_for_the_worker(working)
    working.refresh_from_db()
    assert working.status == WorkStatus.FAILED
    assert "nearly full" in working.error
    assert json.loads((folder_of(working) / "result.json").read_text())["kind"] == "interrupted"


def test_a_full_disk_at_publication_fails_the_run_and_registers_nothing(run, recipe, monkeypatch):
    recipe(TRAIN)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_publish_local", full)
    assert work(run).status == WorkStatus.FAILED
    assert "No space left" in run.error
    assert not Checkpoint.objects.filter(run=run).exists()
