"""What a run takes of the machine: memory that ran out, and room on the disk. Knows files and numbers, no rows."""

import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

from django.conf import settings

from training.recipes.estimates import estimate_disk, parameters_in, read_shape
from training.recipes.options import METHODS, computed_together, parse_options
from training.recipes.run_dir import RecipeError

# How often the micro-batch of one run is halved before it is left to a person.
HALVINGS = 1


class NoRoom(Exception):
    """The disk has too little room. The message says what to do."""


# --- memory ---


def oom_kills() -> int:
    """How many processes the kernel has ended for want of memory, as far as this one can see."""
    counters = [Path("/proc/vmstat")]
    try:
        group = Path("/proc/self/cgroup").read_text().partition("0::/")[2].partition("\n")[0]
        counters += [Path("/sys/fs/cgroup", group, "memory.events"), Path("/sys/fs/cgroup/memory.events")]
    except OSError:
        pass
    counted = 0
    for file in counters:
        try:
            lines = [line.split() for line in file.read_text().splitlines()]
        except OSError:
            continue
        counted += sum(int(count) for name, count in lines if name == "oom_kill")
    return counted


def rows_together(method: str, options: dict[str, Any], halvings: int) -> int:
    """How many rows each process of a worker computes together, after so many halvings of what it would by the options:
    never less than the method can do with.
    """
    smallest = next(f for f in fields(METHODS[method].options) if f.name == "micro_batch_size").metadata[
        "low"
    ]
    rows = computed_together(method, options, settings.TRAINING_PROCESSES)
    return rows if halvings == 0 else max(smallest, rows >> halvings)


def can_halve(method: str, options: dict[str, Any], halvings: int) -> bool:
    """Whether a run out of memory may be tried with half its micro-batch, and the method takes that."""
    now, then = (rows_together(method, options, halvings + more) for more in (0, 1))
    try:
        parse_options(method, options | {"micro_batch_size": then})
    except RecipeError:
        return False
    return halvings < HALVINGS and then < now


# --- disk ---


def disk_needed(method: str, base: Path, options: dict[str, Any], parent: str | None = None) -> int:
    """Bytes a training run writes at most at one time, as its look-over estimated; 0 where that can't be told."""
    if method not in METHODS:
        return 0
    try:
        return estimate_disk(method, options, read_shape(base), parent=parameters_in(parent))["total"]
    except RecipeError:
        return 0


def refuse_full_disk(folder: Path, needed: int) -> None:
    """Raise NoRoom unless `needed` bytes fit on the disk of `folder` and the reserve stays free."""
    free = shutil.disk_usage(folder).free
    if free < needed + settings.DISK_RESERVE:
        raise NoRoom(
            f"The disk of {folder} has {_mb(free)} free. This run writes up to {_mb(needed)}, and "
            f"{_mb(settings.DISK_RESERVE)} must stay free (RANKLOOP_DISK_RESERVE_MB). Free some space, then retry."
        )


def is_short_of_disk(folder: Path) -> bool:
    """Whether the reserve is being used up: time to save a last checkpoint and stop."""
    return shutil.disk_usage(folder).free < settings.DISK_RESERVE


def disk_ran_short(folder: Path) -> str:
    """What is said of a run that was stopped for it."""
    return (
        f"The disk of {folder} is nearly full: less than the reserve of {_mb(settings.DISK_RESERVE)} is free "
        "(RANKLOOP_DISK_RESERVE_MB). It was asked to save a checkpoint and stop. Free some space, then retry: it goes "
        "on from its last checkpoint."
    )


def _mb(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
