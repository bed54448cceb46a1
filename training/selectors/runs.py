"""Reading runs: the queue they wait in, how long they still take, their curves, options, and what they said."""

from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any

from django.db.models import Min, QuerySet
from django.utils import timezone

from annotation.models import Project
from training import supervisor
from training.models import TrainingRun, WorkStatus
from training.models.work import Work
from training.recipes.options import METHODS, describe_options
from training.worker import attempt_folder

AT_WORK = (WorkStatus.RUNNING, WorkStatus.CANCELLING)
METRICS_PER_PAGE = 20_000  # about 600 kB


# --- the queue ---


@dataclass(frozen=True)
class Running:
    """A run at work. `remaining` is in seconds, None while nothing tells."""

    run: TrainingRun
    remaining: float | None


@dataclass(frozen=True)
class Waiting:
    """A run that waits. `raised` and `lowered` are priorities that bring it past its neighbour; None at the ends."""

    run: TrainingRun
    position: int  # from 1, among the runs of all projects
    raised: int | None
    lowered: int | None


@dataclass(frozen=True)
class Queue:
    """What of a project runs and waits. `elsewhere` counts other projects' runs at work: workers are shared."""

    running: list[Running]
    waiting: list[Waiting]
    elsewhere: int


def waiting() -> QuerySet[TrainingRun]:
    """The runs of every project that wait for a worker, in the order in which they are claimed."""
    return TrainingRun.objects.filter(status=WorkStatus.QUEUED).order_by(*TrainingRun.claimed_in_order_of)


def queue_of(project: Project) -> Queue:
    """The project's part of the queue."""
    held = TrainingRun.objects.filter(status__in=AT_WORK).order_by("started_at")
    mine = list(held.filter(project=project).select_related("round", "checkpoint"))
    everything = list(waiting().select_related("round", "checkpoint"))
    return Queue(
        running=[Running(run, remaining_seconds(run, now=timezone.now())) for run in mine],
        waiting=[
            _waiting(everything, index)
            for index, run in enumerate(everything)
            if run.project_id == project.pk
        ],
        elsewhere=held.exclude(project=project).count(),
    )


def _waiting(everything: list[TrainingRun], index: int) -> Waiting:
    run = everything[index]
    before = everything[index - 1] if index > 0 else None
    after = everything[index + 1] if index + 1 < len(everything) else None
    return Waiting(
        run=run,
        position=index + 1,
        # Of equal priorities the older run is first.
        raised=None if before is None else before.priority + (run.created_at >= before.created_at),
        lowered=None if after is None else after.priority - (run.created_at <= after.created_at),
    )


def remaining_seconds(run: TrainingRun, *, now: datetime) -> float | None:
    """How long a run still takes at the pace of its present attempt; None while that has made no step."""
    step, of = run.progress.get("step"), run.progress.get("of")
    if (
        run.status not in AT_WORK
        or run.started_at is None
        or not isinstance(step, int)
        or not isinstance(of, int)
    ):
        return None
    first = run.metrics.filter(attempt=run.attempt, step__gt=0).aggregate(first=Min("step"))["first"]
    if first is None or step < first:
        return None
    made = step - first + 1  # a resumed attempt begins after its checkpoint
    return max(0.0, (now - run.started_at).total_seconds() * (of - step) / made)


# --- one run ---


@dataclass(frozen=True)
class Option:
    """One option as a run had it, beside the recipe's own description of it; that is empty for one no longer known."""

    name: str
    value: Any
    default: Any = None
    help: str = ""
    source: str = ""

    @property
    def is_changed(self) -> bool:
        return bool(self.help) and self.value != self.default


def options_of(run: TrainingRun) -> list[Option]:
    """The options a run was launched with, in the order in which its method describes them."""
    given: dict[str, Any] = dict(run.recipe.get("options", {}))
    described = describe_options(run.method) if run.method in METHODS else []
    known = [
        Option(each["name"], given.pop(each["name"]), each["default"], each["help"], each["source"])
        for each in described
        if each["name"] in given
    ]
    return known + [Option(name, value) for name, value in sorted(given.items())]


def metrics_after(run: TrainingRun, *, after: int) -> dict[str, Any]:
    """A page of the measurements with an id above `after`, in the order they came: `{"rows": [[name, step, value]],
    "last": id, "more": whether others are there already, "over": whether no other will ever come}`.

    Of a resumed run the same step may come twice; the later row holds. A value that is no finite number is None: JSON
    has none.
    """
    found = run.metrics.filter(pk__gt=after).order_by("pk").values_list("pk", "name", "step", "value")
    rows = list(found[: METRICS_PER_PAGE + 1])
    more, rows = len(rows) > METRICS_PER_PAGE, rows[:METRICS_PER_PAGE]
    told = [(name, step, value if isfinite(value) else None) for _, name, step, value in rows]
    return {
        "rows": told,
        "last": rows[-1][0] if rows else after,
        "more": more,
        "over": run.is_over and not more,
    }


def log_tail(work: Work, *, lines: int = 60) -> str:
    """The last lines of the latest attempt; empty when it has said nothing, or on another host."""
    return supervisor.read_log(attempt_folder(work), lines=lines)
