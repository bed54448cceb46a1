"""Several runs beside each other: in what they differ."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.measurements import JUDGED_BY
from training.models import TrainingRun
from training.recipes.options import METHODS, describe_options

FEWEST, MOST = 2, 6
# Of a result; the others are counts and copies of what is shown elsewhere.
_RESULTS_LEFT_OUT = ("steps", "first_loss", "resumed_from")


@dataclass(frozen=True)
class Row:
    """One thing, and what it is in each run; None where a run has no such thing."""

    section: str  # run, inputs, options or results
    name: str
    help: str
    values: list[Any]

    @property
    def differs(self) -> bool:
        return any(value != self.values[0] for value in self.values)


def rows_of(runs: Sequence[TrainingRun]) -> list[Row]:
    """What the runs are, read, were told and reached, row by row."""
    return [
        *_section("run", [_facts(run) for run in runs]),
        *_section("inputs", [_inputs(run) for run in runs]),
        *_section("options", [dict(run.recipe.get("options", {})) for run in runs], _help_of(runs)),
        *_section("results", [_results(run) for run in runs]),
    ]


def _section(
    title: str, columns: Sequence[Mapping[str, Any]], help_of: Mapping[str, str] | None = None
) -> list[Row]:
    """One row for each name that any of the columns has, in the order in which they come."""
    names = dict.fromkeys([*(help_of or {}), *(name for column in columns for name in column)])
    return [
        Row(title, name, (help_of or {}).get(name, ""), [column.get(name) for column in columns])
        for name in names
        if any(name in column for column in columns)
    ]


def _facts(run: TrainingRun) -> dict[str, Any]:
    return {
        "method": METHODS[run.method].title if run.method in METHODS else run.method,
        "state": run.get_status_display(),
        "round": run.round.number if run.round else None,
        "seed": run.seed,
        "threads": run.recipe.get("threads"),
        "code": run.code_version,
        "micro-batch halved": run.halvings,
        "seconds": None if run.seconds is None else round(run.seconds),
    }


def _inputs(run: TrainingRun) -> dict[str, str]:
    found = run.inputs.select_related("checkpoint", "dataset").order_by("pk")
    return {
        item.get_role_display().lower(): item.checkpoint.name
        if item.checkpoint
        else f"dataset {item.dataset.digest[:12]}"
        for item in found
    }


def _help_of(runs: Sequence[TrainingRun]) -> dict[str, str]:
    """Every option that a method of these runs describes, and its help; the first method's words for a shared one."""
    found: dict[str, str] = {}
    for run in runs:
        for option in describe_options(run.method) if run.method in METHODS else []:
            found.setdefault(option["name"], option["help"])
    return found


def _results(run: TrainingRun) -> dict[str, Any]:
    metrics = run.result.get("metrics")
    found = dict(_flat(metrics)) if isinstance(metrics, dict) else {}
    # The database keeps no order of its own: what a run is judged by first, then by name.
    return {name: found[name] for name in sorted(found, key=lambda name: (name not in JUDGED_BY, name))}


def _flat(metrics: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Nested figures as `outer.inner`; lists as they are."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        elif name not in _RESULTS_LEFT_OUT:
            yield before + name, value
