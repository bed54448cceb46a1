"""What a worker does with a draft: write its data as the run would find them, run the recipe `preview`, keep the
findings.

Safe to run twice: the second finds the draft taken or looked over. The lease is the fencing token: a draft that was
changed, put away or is to be looked over again has lost it, and then the recipe is ended and nothing is written.
Disk and the recipe's own time lie outside transactions. Each look-over has a folder of its own, which it takes away.
"""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from rankloop.errors import Refused
from training import store
from training.models import Checkpoint, PreferenceDataset, RunInput, TrainingRun, WorkStatus
from training.recipes.run_dir import RecipeError
from training.recipes.training_options import FEWEST
from training.selectors.datasets import rows_of
from training.selectors.lineage import lineage_of
from training.services.launching import fingerprint, write_findings
from training.services.work import LeaseLost
from training.supervisor import Recipe, read_log
from training.worker import POLL_SECONDS, training_config

log = logging.getLogger(__name__)

# What one look-over may take: others wait for it. Nobody renews the lease while its data are written, so the first
# lasts as long.
MOST_SECONDS = 600.0
LEARNT_BEFORE = "learnt_before.jsonl"


def check_run(run_id: Any) -> None:
    """Look a draft over, when nobody else does and it was not."""
    free = Q(lease_until=None) | Q(lease_until__lt=timezone.now())
    drafts = TrainingRun.objects.filter(pk=run_id, status=WorkStatus.DRAFT, findings={})
    until, end = timezone.now() + timedelta(seconds=MOST_SECONDS), time.monotonic() + MOST_SECONDS
    if drafts.filter(free).update(lease_until=until) != 1:
        return
    run = TrainingRun.objects.select_related("project").get(pk=run_id)
    run.lease_until = until
    of = fingerprint(run)
    home = settings.RUNS_FOLDER / str(run.pk)
    home.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="check-", dir=home))
    try:
        findings = _look_over(run, folder, end=end)
    except LeaseLost:
        return
    except (store.DamagedArtifact, store.ErasedText) as error:
        findings = _unseen(
            str(error), "Choose another checkpoint or dataset, or restore the artifact from a backup."
        )
    except (
        RecipeError,
        Refused,
    ) as error:  # a checkpoint that is not to be trusted, or does not fit the base
        findings = _unseen(str(error), "")
    except OSError as error:
        findings = _unseen(
            f"The data could not be written: {error}", "Free some disk, and look it over again."
        )
    except Exception as error:
        # Left without findings, a draft would be looked over again and again, and never say why.
        log.exception("run %s could not be looked over", run.pk)
        findings = _unseen(
            f"The run could not be looked over: {type(error).__name__}: {error}",
            "Look it over again; if it stays so, tell an admin.",
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    write_findings(run=run, of=of, findings=findings)


def _look_over(run: TrainingRun, folder: Path, *, end: float) -> dict[str, Any]:
    """What the recipe finds until the monotonic time `end`. Raises LeaseLost once the draft has moved on."""
    config = training_config(run, folder)
    config |= {"method": "preview", "of": run.method, "fewest": FEWEST, "measured": measured_speed(run)}
    config |= {
        "accelerate": None,  # however many processes train the run, one looks it over
        "processes": settings.TRAINING_PROCESSES,
        "is_sharded": settings.TRAINING_IS_SHARDED,
        "imported": bool(run.inputs.get(role=RunInput.Role.DATA).dataset.imported_from),
        "learnt_before": LEARNT_BEFORE,
    }
    write_learnt_before(run, folder / LEARNT_BEFORE)
    (folder / "config.json").write_text(json.dumps(config))
    recipe = Recipe("preview", folder)
    recipe.start()
    try:
        while recipe.wait(POLL_SECONDS) is None:
            _tell(run, recipe.read_json("progress.json"))
            if time.monotonic() > end:
                return _unseen(
                    f"Looking it over took longer than {MOST_SECONDS / 60:g} minutes, and was ended.",
                    "Choose a smaller dataset. If a small one takes as long, the chat template of the base may never "
                    "come to an end: choose another base.",
                )
    finally:
        recipe.close()
    result = recipe.read_json("result.json")
    if result.get("ok"):
        return result["metrics"]
    if result.get("kind") == "recipe":
        return _unseen(result["error"], "")
    said = result.get("error") or read_log(folder, lines=3) or "it said nothing"
    return _unseen(
        f"The run could not be looked over: {said}", "Look it over again; if it stays so, tell an admin."
    )


def write_learnt_before(run: TrainingRun, file: Path) -> None:
    """Write what parent and reward model have learnt from, one prompt a line as {"prompt": messages, "where": text}.

    A prompt whose text was erased is left out: nobody can be asked it again.
    """
    behind: dict[PreferenceDataset, Checkpoint] = {}  # each once: parent and reward model often share them
    for item in run.inputs.filter(checkpoint__run__isnull=False).select_related("checkpoint"):
        for dataset in lineage_of(item.checkpoint).datasets:
            behind.setdefault(dataset, item.checkpoint)
    with file.open("w", encoding="utf-8") as lines:
        for dataset, checkpoint in behind.items():
            where = f"a prompt of {dataset}, which is behind {checkpoint}"
            for messages in _train_prompts(dataset):
                lines.write(json.dumps({"prompt": messages, "where": where}, ensure_ascii=False) + "\n")


def _train_prompts(dataset: PreferenceDataset) -> Iterator[list[dict[str, str]]]:
    seen = set()
    for row in rows_of(dataset):
        if row["split"] == "train" and row["prompt"] not in seen:
            seen.add(row["prompt"])
            with suppress(store.ErasedText):
                yield [
                    {"role": part["role"], "content": store.get_text(part["text"])}
                    for part in row["messages"]
                ]


def _unseen(what: str, remedy: str) -> dict[str, Any]:
    """Findings of a draft that could not be looked over to the end."""
    return {"problems": [{"what": what, "remedy": remedy, "rows": 0, "first": ""}], "cut_share": 0.0}


def _tell(run: TrainingRun, progress: dict[str, Any]) -> None:
    """Show how far it is, and that somebody is at it. Raises LeaseLost when the lease is not ours any more."""
    until = timezone.now() + timedelta(seconds=settings.WORK_LEASE_SECONDS)
    drafts = TrainingRun.objects.filter(pk=run.pk, status=WorkStatus.DRAFT, findings={})
    if drafts.filter(lease_until=run.lease_until).update(progress=progress, lease_until=until) != 1:
        raise LeaseLost(f"the draft {run} has moved on")
    run.lease_until = until


def measured_speed(run: TrainingRun) -> dict[str, Any] | None:
    """How fast the latest run of the same method on the same base was: `{"by", "seconds_per_row", "tokens_per_row"}`.

    A row is one of `batch_size`. The tokens are None of a run that was not looked over. A run that trained an adapter
    tells nothing of one that trains all weights.
    """
    base = run.inputs.get(role=RunInput.Role.BASE).checkpoint
    others = TrainingRun.objects.filter(
        project=run.project_id, method=run.method, status=WorkStatus.SUCCEEDED, inputs__role=RunInput.Role.BASE,
        inputs__checkpoint__digest=base.digest,
    ).order_by("-ended_at")  # fmt: skip
    for other in others[:5]:
        if other.trains_all_weights != run.trains_all_weights:
            continue
        loop = other.result.get("seconds", {}).get("loop", 0)
        steps = other.result.get("metrics", {}).get("steps") or 0
        # A resumed run's loop is that of its last attempt alone.
        if loop and steps and not other.result["metrics"].get("resumed_from"):
            rows = steps * other.recipe["options"]["batch_size"]
            tokens = other.findings.get("tokens_per_row")
            return {"by": str(other), "seconds_per_row": loop / rows, "tokens_per_row": tokens}
    return None
