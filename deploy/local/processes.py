"""Start, watch and end child processes that never outlive this one (Linux)."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("child.py")


class StackError(Exception):
    """Something the person at the keyboard can act on; its text says what happened and what to do."""


def spawn(
    program: Sequence[str | Path],
    *,
    death_signal: signal.Signals,
    environ: Mapping[str, str] | None = None,
    log: Path | None = None,
    cwd: Path | None = None,
    identity: Sequence[str] = (),
    new_session: bool = True,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start `program`, which gets `death_signal` when the calling thread ends, by whatever cause.

    Output is appended to `log`, or goes where ours goes. In a session of its own (the default) it hears no
    Ctrl-C and leads a process group by which its descendants can be ended. `identity` is passed to child.py.
    `pass_fds` are descriptors it inherits.
    """
    command = [sys.executable, "-I", "-S", str(CHILD), "--death-signal", str(int(death_signal))]
    command += ["--parent", str(os.getpid()), *identity, "--", *map(str, program)]
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("ab")) if log else None
        return subprocess.Popen(
            command,
            env=environ,
            cwd=cwd,
            start_new_session=new_session,
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL if log else None,
            stdout=output,
            stderr=subprocess.STDOUT if log else None,
        )


def has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Whether the child has ended; what it left in a group that it led is then killed before it is reaped.

    Until it is reaped its number, which is also the group's, can't belong to anybody else.
    """
    if child.returncode is not None:
        return True
    if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        return False
    _kill_group(child)
    child.wait()
    return True


def send(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a child unless it has ended. (Popen's own way may reap it, and forget what is left of its group.)"""
    if not has_ended(child):
        os.kill(child.pid, number)


def end(child: subprocess.Popen[bytes], *steps: tuple[signal.Signals, float]) -> None:
    """Send each step's signal and wait up to its seconds; at last kill the child and the group it leads."""
    for number, seconds in steps:
        send(child, number)
        if wait_until(lambda: has_ended(child), seconds):
            return
    send(child, signal.SIGKILL)
    wait_until(lambda: has_ended(child), 5)


def wait_until(condition: Callable[[], bool], seconds: float, interval: float = 0.02) -> bool:
    """Ask `condition` until it holds or `seconds` have passed; the last answer."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return condition()
        time.sleep(interval)
    return True


def is_running(pid: int) -> bool:
    """Whether a process of that number exists and is not a zombie (one that has ended but was not reaped)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    # The name stands in parentheses and may hold any character; the state is the first field after it.
    return status.rpartition(")")[2].split()[0] not in "ZX"


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log file, indented for an error message; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64_000))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the group of a child not yet reaped; nothing when it never led one."""
    if os.getpgid(child.pid) == child.pid:
        os.killpg(child.pid, signal.SIGKILL)
