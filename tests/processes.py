"""Running processes, as /proc tells of them."""

from collections.abc import Callable
from pathlib import Path

from deploy.local.processes import is_running


def processes(accept: Callable[[int], bool]) -> list[int]:
    """Ids of the running processes that `accept` accepts; one that ends while it looks, or is foreign, is left out."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and accept(int(entry.name)) and is_running(int(entry.name)):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def arguments_of(pid: int) -> list[str]:
    """What a process was started with, or nothing if it has ended since."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []
