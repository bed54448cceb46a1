"""Reading runs: their curves, and the folder of what they said."""

from math import isfinite
from typing import Any

from training import supervisor
from training.models import TrainingRun
from training.models.work import Work
from training.worker import attempt_folder


def metrics_after(run: TrainingRun, *, after: int) -> dict[str, Any]:
    """Measurements with an id above `after`, in the order they came: `{"rows": [[name, step, value]], "last": id}`.

    Of a resumed run the same step may come twice; the later row holds. A value that is no finite number is None: JSON
    has none.
    """
    rows = list(run.metrics.filter(pk__gt=after).order_by("pk").values_list("pk", "name", "step", "value"))
    told = [(name, step, value if isfinite(value) else None) for _, name, step, value in rows]
    return {"rows": told, "last": rows[-1][0] if rows else after, "over": run.is_over}


def log_tail(work: Work, *, lines: int = 60) -> str:
    """The last lines of the latest attempt; empty when it has said nothing, or on another host."""
    return supervisor.read_log(attempt_folder(work), lines=lines)
