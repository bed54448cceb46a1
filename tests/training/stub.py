"""A recipe without torch: a few lines of Python in the place of `python -m training.recipes.<method>`."""

import sys
import textwrap
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest

NUMBERS = count()
PRELUDE = """\
#!{python}
import json, os, signal, subprocess, sys, time
from pathlib import Path
run_dir = Path(sys.argv[3])
config = json.loads((run_dir / "config.json").read_text())
def write(name, text):
    (run_dir / name).write_text(text)
def result(**values):
    write("result.json", json.dumps(values))
"""


def write_stub(folder: Path, code: str) -> Path:
    """An executable that takes the arguments of `python -m ...` and does `code`, with run_dir and config at hand.

    Each is a file of its own: the process that an earlier one was started as may not have read it yet.
    """
    file = folder / f"python-{next(NUMBERS)}"
    file.write_text(PRELUDE.format(python=sys.executable) + textwrap.dedent(code))
    file.chmod(0o755)
    return file


def in_place_of_recipes(
    supervising: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Puts the code it is called with in the place of every recipe that the module starts, and lets it look often."""
    monkeypatch.setattr(supervising, "POLL_SECONDS", 0.02)

    def be(code: str) -> None:
        monkeypatch.setattr(sys, "executable", str(write_stub(folder, code)))

    return be


def wait_until(happened: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Return once it has happened; fail after a time in which it must have."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"waited {seconds} seconds for {what}"
        time.sleep(0.01)
