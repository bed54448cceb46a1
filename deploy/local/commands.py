"""What `dev.py demo`, `dev.py run` and `dev.py manage` do once the packages are installed."""

import argparse
import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

import psycopg

from deploy.local.home import Home, HomeInUse
from deploy.local.postgres import Server, binary, check_database
from deploy.local.processes import ROOT, StackError, end, has_ended, spawn
from deploy.local.stack import Stack

MANAGE = [sys.executable, str(ROOT / "manage.py")]


class Interrupted(Exception):
    """Ctrl-C, SIGTERM or the terminal's end: stop in order."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def main(arguments: Sequence[str]) -> int:
    """Run one command; the exit code."""
    parser = argparse.ArgumentParser(prog="deploy/dev.py")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--port", type=int)
    parser.add_argument("command", choices=("demo", "run", "manage"))
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    stack = Stack(options.home, options.port, command=options.command, say=say)
    try:
        if options.command == "manage":
            return manage(stack.home, options.arguments)
        _stop_on_signals(stack)
        return demo(stack, options.arguments) if options.command == "demo" else run(stack)
    except StackError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        return 128 + interrupted.number
    finally:
        stack.stop()  # again, in case the signal came while it was stopping


def run(stack: Stack) -> int:
    """Serve until told to stop."""
    with stack:
        if not _has_users(stack.database_url):
            home = shlex.quote(str(stack.home.path))
            say("There is no user yet. Make the first administrator, in another terminal, with:")
            say(f"    python3 deploy/dev.py --home {home} manage createsuperuser")
        return _serve(stack)


def demo(stack: Stack, arguments: Sequence[str]) -> int:
    """Run the whole loop once, then serve its result, or with --no-serve exit with the loop's code."""
    with stack:
        program = [*MANAGE, "demo", "--base-url", stack.url, *arguments]
        child = spawn(program, death_signal=signal.SIGKILL, environ=stack.environ, new_session=False)
        try:
            while not has_ended(child):
                stack.check()
                time.sleep(0.1)
        finally:
            end(child, (signal.SIGTERM, 5))
        if child.returncode != 0:
            say(f"The demo did not succeed (code {child.returncode}). The logs are in {stack.home.logs}")
            return _exit_code(child.returncode)
        return 0 if "--no-serve" in arguments else _serve(stack)


def manage(home: Home, arguments: Sequence[str]) -> int:
    """Run a manage.py command against the running stack's database, or against one started just for it."""
    home.prepare()
    # The command itself hears Ctrl-C and decides; a shell, for one, goes on.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with _database(home, shlex.join(["manage", *arguments])) as database_url:
        environ = home.environment(os.environ, database_url, port=0)
        if not os.environ.get("DATABASE_URL"):  # for `manage dbshell`, which runs psql
            environ["PATH"] += f"{os.pathsep}{binary('psql').parent}"
            environ |= {"PGHOST": str(home.sockets), "PGPORT": "5432"}
        child = spawn([*MANAGE, *arguments], death_signal=signal.SIGTERM, environ=environ, new_session=False)
        try:
            return _exit_code(child.wait())
        finally:
            end(child, (signal.SIGTERM, 5))


def say(text: str) -> None:
    """Tell the person at the keyboard, at once even through a pipe."""
    print(text, flush=True)


@contextlib.contextmanager
def _database(home: Home, command: str) -> Iterator[str]:
    if external := os.environ.get("DATABASE_URL"):
        check_database(external)
        yield external
        return
    server = Server(home.data, home.sockets, home.logs / "postgres.log")
    with contextlib.ExitStack() as held:
        told = False
        while True:
            try:
                held.enter_context(home.locked(command))
            except HomeInUse as in_use:
                # A stack's server serves us too. That of another such command ends with it: wait for our turn.
                if not in_use.holder.startswith("manage") and server.answers():
                    break
                if not told:
                    say(f"Waiting for process {in_use.pid} ({in_use.holder}), which holds {home.path}")
                    told = True
                time.sleep(0.2)
            else:
                held.callback(server.stop)
                server.start()
                break
        yield server.url


def _serve(stack: Stack) -> int:
    try:
        say(f"\nRankloop is at {stack.url}    state: {stack.home.path}    Ctrl-C stops it")
        while True:
            stack.check()
            time.sleep(0.2)
    except Interrupted:
        say("\nStopping; once more Ctrl-C to be quick about it")
        return 0


def _has_users(database_url: str) -> bool:
    with psycopg.connect(database_url) as connection:
        return connection.execute("SELECT 1 FROM accounts_user LIMIT 1").fetchone() is not None


def _stop_on_signals(stack: Stack) -> None:
    """The first signal interrupts the main thread, which then stops the stack; the next one hurries that."""
    received = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            raise Interrupted(number)
        stack.hurry()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Under nohup the terminal's end is ignored, and stays so.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handle)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


def _exit_code(returncode: int) -> int:
    return returncode if returncode >= 0 else 128 - returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
