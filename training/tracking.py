"""Where else a run's measurements go: TensorBoard's event files always, and one experiment tracker by a setting.

Copies for people who look at many runs with tools of their own. The rows stay the truth, and a copy that can't be
written holds up no run.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings

from training.event_files import write_events
from training.models import TrainingRun


def name_of(run: TrainingRun) -> str:
    """What a run is called there, which is what its checkpoint will be called here."""
    return f"round-{run.round.number}-{run.step}" if run.round else f"{run.step}-{str(run.pk)[:8]}"


def event_folder(run: TrainingRun) -> Path:
    """Folder of a run's event files: `tensorboard --logdir` on the one above shows a project's runs by name."""
    return settings.TENSORBOARD_FOLDER / run.project.slug / name_of(run).replace("/", "-")


def write_tensorboard(run: TrainingRun, lines: Sequence[dict[str, Any]]) -> None:
    """Add lines of metrics.jsonl to the event file of the run's present attempt."""
    rows = [(line["at"], line["step"], {line["name"]: line["value"]}) for line in lines]
    begins_at = min(line["step"] for line in lines) if run.attempt > 1 else None
    try:
        write_events(event_folder(run), run.attempt, rows, begins_at=begins_at)
    except OSError as error:
        print(f"TensorBoard's files of {run} can't be written: {error}", file=sys.stderr)


def tracker_of(run: TrainingRun) -> dict[str, str] | None:
    """What config.json says of the tracker, for recipes/tracker.py; None when the installation has none."""
    if not settings.TRACKER:
        return None
    return {
        "to": settings.TRACKER,
        "project": run.project.slug,
        "run": name_of(run),
        "id": str(run.pk),
        "folder": str(settings.HOME / "tracking"),
    }
