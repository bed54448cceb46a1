"""The state folder of one installation (RANKLOOP_HOME): its places, lock, secret key and environment."""

import contextlib
import fcntl
import hashlib
import os
import secrets
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.local.processes import ROOT, StackError

SOCKET_NAME = ".s.PGSQL.5432"
SOCKET_PATH_LIMIT = 107  # bytes the kernel takes for the path of a Unix socket (man 7 unix)


@dataclass(frozen=True)
class Home:
    """Where everything of one installation lives."""

    path: Path

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.path / "postgres" / "data"

    @property
    def sockets(self) -> Path:
        """Folder of the server's socket, under /tmp when the home's own path is too long for one.

        A function of the home alone, so that every command finds a running server.
        """
        folder = self.path / "sockets"
        if len(os.fsencode(folder / SOCKET_NAME)) <= SOCKET_PATH_LIMIT:
            return folder
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        return Path(f"/tmp/rankloop-{os.geteuid()}-{digest}")

    @property
    def default_model(self) -> Path:
        return self.path / "models" / "smollm2-135m-instruct"

    def prepare(self) -> None:
        """Make the folders that are missing, private to this user; those that exist keep their modes."""
        names = ["postgres", "sockets", "artifacts", "runs", "models", "logs", "demo", "beat", "static"]
        names += ["broker", "broker/messages", "broker/control"]  # as settings.py names them for celery
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in names:
                (self.path / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StackError(
                f"The state folder {self.path} can't be used: {error.strerror or error}.\n"
                "Choose another one with --home FOLDER or RANKLOOP_HOME."
            ) from error
        make_private(self.sockets)

    @contextlib.contextmanager
    def locked(self, command: str) -> Iterator[None]:
        """Hold this home for `command`. Raises HomeInUse when another process holds it.

        The kernel lets go of the lock when its holder ends, however it ends.
        """
        with (self.path / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                pid, _, holder = file.read().strip().partition(" ")
                raise HomeInUse(self.path, pid or "unknown", holder or "another command") from None
            file.truncate(0)
            file.write(f"{os.getpid()} {command}\n")
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    def secret_key(self) -> str:
        """This installation's secret key, made at first use, readable by its owner only."""
        file = self.path / "secret_key"
        if not file.exists():
            with tempfile.NamedTemporaryFile("w", dir=self.path) as fresh:  # mode 0600
                fresh.write(secrets.token_urlsafe(64))
                fresh.flush()
                os.fsync(fresh.fileno())
                # A link appears whole or not at all, and never replaces what another process was faster with.
                with contextlib.suppress(FileExistsError):
                    os.link(fresh.name, file)
        return file.read_text().strip()

    def environment(self, environ: Mapping[str, str], database_url: str, port: int) -> dict[str, str]:
        """What every process of the stack sees. Values the user has set for the product are kept.

        Not kept are PYTHONPATH and its like, and libpq's variables when the server is the embedded one.
        """
        foreign = ("PYTHON",) if environ.get("DATABASE_URL") else ("PYTHON", "PG")
        kept = {name: value for name, value in environ.items() if not name.startswith(foreign)}
        hosts = [host for host in kept.get("ALLOWED_HOSTS", "").split(",") if host]
        return {
            "RANKLOOP_DEFAULT_MODEL": str(self.default_model),
            "RANKLOOP_ARTIFACTS_URL": str(self.path / "artifacts"),
            # A BLAS thread pool in each of the web's and the workers' threads would fight over the cores.
            "OPENBLAS_NUM_THREADS": "1",
            **kept,
            "SECRET_KEY": kept.get("SECRET_KEY") or self.secret_key(),
            "RANKLOOP_LOCAL": "1",
            "RANKLOOP_HOME": str(self.path),
            "RANKLOOP_PORT": str(port),
            "ALLOWED_HOSTS": ",".join(dict.fromkeys([*hosts, "127.0.0.1", "localhost"])),
            "DATABASE_URL": database_url,
            "DJANGO_SETTINGS_MODULE": "rankloop.settings",
            "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}",
            "PYTHONNOUSERSITE": "1",
            "PYTHONUNBUFFERED": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
        }


class HomeInUse(StackError):
    """Another process holds the lock of this home."""

    def __init__(self, path: Path, pid: str, holder: str) -> None:
        self.pid, self.holder = pid, holder
        super().__init__(
            f"{path} is in use by process {pid} ({holder}).\n"
            f"Stop that one first (Ctrl-C in its terminal, or: kill {pid}), or give this one a home of its own:\n"
            f"    python3 deploy/dev.py --home {shlex.quote(str(path) + '-2')} ..."
        )


def make_private(folder: Path) -> None:
    """Make a folder that only this user may enter, or make sure that it is one; never change one that exists.

    Raises StackError when it is open to others: whoever reaches the socket in it owns the database.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.lstat()
    if folder.is_symlink() or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        raise StackError(
            f"{folder} must be a folder of this user with mode 0700, since PostgreSQL's socket goes there.\n"
            f"Look at it and remove it or correct it: ls -ld {folder}"
        )
