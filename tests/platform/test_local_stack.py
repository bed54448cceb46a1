"""The embedded server and the stack around it: what survives a kill, and that nothing survives its supervisor."""

import gzip
import hashlib
import http.client
import json
import os
import posixpath
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from deploy.local import postgres
from deploy.local.home import SOCKET_NAME, SOCKET_PATH_LIMIT, Home, HomeInUse
from deploy.local.postgres import THROWAWAY_SETTINGS, Server, throwaway
from deploy.local.processes import StackError, is_running
from deploy.local.stack import Stack
from tests.processes import arguments_of, processes

ROOT = Path(__file__).resolve().parents[2]
# What the test run sets for itself; a stack of its own starts without it.
OF_THE_TEST_RUN = (
    "DATABASE_URL",
    "CELERY_BROKER_URL",
    "RANKLOOP_ARTIFACTS_URL",
    "RANKLOOP_HOME",
    "SECRET_KEY",
)
# What collecting puts into the name of a static file.
HASHED = re.compile(r"\.[0-9a-f]{12}\.")
CLEAN = {name: value for name, value in os.environ.items() if name not in OF_THE_TEST_RUN}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    one = new_server(tmp_path / "one")
    yield one
    one.stop()


def new_server(folder: Path) -> Server:
    folder.mkdir(mode=0o700)
    # fsync on would only make this slower: a killed process loses nothing that was written.
    return Server(folder / "postgres" / "data", folder / "sockets", folder / "log", THROWAWAY_SETTINGS)


def write_row(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (at timestamptz DEFAULT now())")
        # synchronous_commit is off in these tests; on for the rows that a kill must not lose
        connection.execute("SET synchronous_commit = on")
        connection.execute("INSERT INTO kept DEFAULT VALUES")


def count_rows(url: str) -> int:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT count(*) FROM kept").fetchone()[0]


def started_for(home: Path) -> list[int]:
    """Running processes of a stack on that home, whoever their parent is by now."""
    mark = f"\0RANKLOOP_HOME={home}\0".encode()

    def belongs(pid: int) -> bool:
        if os.readlink(f"/proc/{pid}/cwd") == str(home / "postgres" / "data"):
            return True
        return mark in b"\0" + Path(f"/proc/{pid}/environ").read_bytes() + b"\0"

    return processes(belongs)


def eventually(condition: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


# --- the embedded server ---


def test_a_killed_server_starts_again_with_every_committed_row(server: Server) -> None:
    server.start()
    write_row(server.url)
    # Never reaped before the new start: its number in postmaster.pid is then that of a zombie.
    server.process.kill()
    server.start()
    write_row(server.url)
    assert count_rows(server.url) == 2


def test_a_pid_file_that_names_a_foreign_process_is_no_obstacle(server: Server) -> None:
    server.start()
    server.stop()
    (server.data / "postmaster.pid").write_text(f"{os.getpid()}\n{server.data}\n1\n5432\n")
    (server.sockets / f"{SOCKET_NAME}.lock").write_text(f"{os.getpid()}\n")
    server.start()
    assert server.answers()


def test_the_server_shuts_down_when_its_supervisor_is_killed(server: Server) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom deploy.local.postgres import Server\n"
        "data, sockets, log = map(Path, sys.argv[1:])\nserver = Server(data, sockets, log)\nserver.start()\n"
        "print(server.process.pid, flush=True)\ntime.sleep(600)\n"
    )
    command = [sys.executable, "-c", program, str(server.data), str(server.sockets), str(server.log)]
    supervisor = subprocess.Popen(
        command, cwd=ROOT, env=CLEAN | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )
    pid = int(supervisor.stdout.readline())
    write_row(server.url)
    supervisor.kill()
    supervisor.communicate()
    # Started at once: it waits for the old server's last process, which is still writing.
    server.start()
    assert not is_running(pid)
    assert count_rows(server.url) == 1
    assert "database system was shut down" in server.log.read_text()
    assert "not properly shut down" not in server.log.read_text()


def test_an_interrupted_first_start_is_repeated(server: Server) -> None:
    unfinished = server.data.with_name("data.new")
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    server.start()
    assert server.answers()
    assert not unfinished.exists()


def test_two_servers_run_side_by_side(server: Server, tmp_path: Path) -> None:
    other = new_server(tmp_path / "other")
    try:
        server.start()
        other.start()
        write_row(server.url)
        write_row(server.url)
        write_row(other.url)
        assert (count_rows(server.url), count_rows(other.url)) == (2, 1)
    finally:
        other.stop()


def test_a_home_that_only_its_owner_may_enter_works_and_no_folder_above_changes(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    above = [closed, *closed.parents]
    before = [(folder.stat().st_mode, folder.stat().st_uid) for folder in above]
    server = new_server(closed / "home")
    try:
        server.start()
        assert server.answers()
        assert server.data.stat().st_mode & 0o077 == 0
    finally:
        server.stop()
    assert [(folder.stat().st_mode, folder.stat().st_uid) for folder in above] == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_root_without_user_namespaces_runs_the_server_as_nobody(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_namespaces_are_allowed", lambda: False)
    server.start()
    assert Path(f"/proc/{server.process.pid}").stat().st_uid == 65534
    assert server.data.stat().st_uid == 65534
    assert server.data.parent.stat().st_uid == 0
    write_row(server.url)
    server.stop()
    # The data keeps its owner, so the same way is taken where namespaces are allowed.
    monkeypatch.undo()
    server.start()
    assert count_rows(server.url) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's data is its own already")
def test_root_takes_data_made_in_a_user_namespace_to_where_there_are_none(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    write_row(server.url)
    server.stop()
    monkeypatch.setattr(postgres, "_namespaces_are_allowed", lambda: False)
    server.start()
    assert count_rows(server.url) == 1


def test_data_of_another_major_version_is_refused_with_what_to_do(server: Server) -> None:
    server.start()
    server.stop()
    (server.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(StackError, match=r"(?s)written by PostgreSQL 9.*pg_dumpall"):
        server.start()


def test_a_folder_that_is_no_data_directory_is_left_alone(server: Server) -> None:
    server.data.mkdir(parents=True)
    (server.data / "notes.txt").write_text("mine")
    with pytest.raises(StackError, match="not a PostgreSQL data directory"):
        server.start()
    assert (server.data / "notes.txt").read_text() == "mine"


def test_a_server_that_cannot_start_shows_the_end_of_its_log(server: Server) -> None:
    server.start()
    server.stop()
    with (server.data / "postgresql.conf").open("a") as file:
        file.write("no_such_setting_at_all = 1\n")
    with pytest.raises(StackError, match="no_such_setting_at_all"):
        server.start()


def test_a_throwaway_server_leaves_neither_files_nor_processes() -> None:
    with throwaway() as url:
        folder = Path(url.partition("host=")[2].partition("/sockets")[0])
        data = str(folder / "data")
        assert folder.is_dir()
        assert processes(lambda pid: os.readlink(f"/proc/{pid}/cwd") == data)
    assert not folder.exists()
    assert not processes(lambda pid: os.readlink(f"/proc/{pid}/cwd") == data)


# --- the home ---


def test_the_socket_of_a_deep_home_moves_to_a_short_private_path(tmp_path: Path) -> None:
    home = Home(tmp_path / ("deep" * 30))
    home.prepare()
    assert len(str(home.sockets / SOCKET_NAME)) <= SOCKET_PATH_LIMIT
    assert home.sockets == Home(tmp_path / ("deep" * 30)).sockets
    assert home.sockets != Home(tmp_path / ("deep" * 31)).sockets
    assert home.sockets.stat().st_mode & 0o777 == 0o700
    home.sockets.rmdir()


def test_a_socket_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sockets").mkdir(mode=0o700)
    (tmp_path / "sockets").chmod(0o755)
    with pytest.raises(StackError, match="mode 0700"):
        Home(tmp_path).prepare()
    assert (tmp_path / "sockets").stat().st_mode & 0o777 == 0o755


def test_a_home_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="--home"):
        Home(tmp_path / "file" / "home").prepare()


def test_the_secret_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = home.secret_key()
    assert len(first) >= 50
    assert Home(tmp_path).secret_key() == first
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in tmp_path.iterdir()) == ["secret_key"]


def test_a_home_has_one_holder_at_a_time(tmp_path: Path) -> None:
    home, again = Home(tmp_path), Home(tmp_path)
    in_use = pytest.raises(HomeInUse, match=rf"process {os.getpid()} \(run\)")
    with home.locked("run"), in_use, again.locked("demo"):
        pytest.fail("two holders")
    with again.locked("demo"):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()} demo\n"


# --- the whole stack ---


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("stack") / "home"
    with Stack(home, environ=CLEAN, parts=("web", "worker-short")) as running:
        yield running
        running.hurry()  # there is no work to finish
    assert started_for(home) == []


def status_of(stack: Stack) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=20)
    try:
        connection.request("GET", "/sign-in/")
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_site_answers(stack: Stack) -> None:
    assert status_of(stack) < 500


def fetch(stack: Stack, path: str, **headers: str) -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=20)
    try:
        connection.request("GET", path, headers={"Accept-Encoding": "gzip", **headers})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    assert answer.status == 200, (path, answer.status)
    return answer, (
        gzip.decompress(body) if answer.getheader("Content-Encoding") == "gzip" else body
    ).decode()


def test_pages_are_compressed_and_name_static_files_by_their_content(stack: Stack) -> None:
    answer, page = fetch(stack, "/sign-in/")
    assert answer.getheader("Content-Encoding") == "gzip"
    assert "Accept-Encoding" in answer.getheader("Vary")
    addresses = re.findall(r'"(/static/[^"]+\.css)"', page)
    assert len(addresses) >= 2
    for address in addresses:
        assert HASHED.search(address), address
        answer, style = fetch(stack, address)
        assert answer.getheader("Content-Encoding") == "gzip"
        assert {"immutable", "public"} <= set(answer.getheader("Cache-Control").split(", "))
        assert f".{hashlib.md5(style.encode()).hexdigest()[:12]}." in address


def test_the_cookie_of_a_form_stays_out_of_reach_of_guessing_by_length(stack: Stack) -> None:
    """BREACH: the token in a compressed page never repeats, though it stands for one secret."""
    cookie = fetch(stack, "/sign-in/")[0].getheader("Set-Cookie").partition(";")[0]
    pages = [fetch(stack, "/sign-in/", Cookie=cookie)[1] for _ in range(3)]
    tokens = {re.search(r'name="csrfmiddlewaretoken" value="(\w{64})"', page)[1] for page in pages}
    assert len(tokens) == 3
    assert all(cookie.partition("=")[2] not in page for page in pages)


def test_modules_import_modules_by_their_content(stack: Stack) -> None:
    """Or a browser would run a new module with old ones after an upgrade."""
    manifest = json.loads((stack.home.path / "static" / "staticfiles.json").read_text())["paths"]
    waiting, seen = [manifest["annotation/ranking.js"]], set()
    while waiting:
        name = waiting.pop()
        assert HASHED.search(name), name
        seen.add(name)
        answer, source = fetch(stack, f"/static/{name}")
        assert "immutable" in answer.getheader("Cache-Control")
        imported = [
            posixpath.normpath(posixpath.join(posixpath.dirname(name), url)) for url in imports(source)
        ]
        waiting += [url for url in imported if url not in seen]
    modules = (ROOT / "annotation/static/annotation/ranking").glob("*.js")
    assert {f"annotation/ranking/{module.name}" for module in modules} <= {
        HASHED.sub(".", name) for name in seen
    }


def imports(source: str) -> list[str]:
    """Addresses a module imports or exports from, however its author spaced it."""
    return re.findall(r"""(?:\bfrom|^import)\s*["'](\.{0,2}/[^"']+)["']""", source, flags=re.MULTILINE)


def test_a_second_stack_on_the_same_home_is_refused(stack: Stack) -> None:
    with pytest.raises(HomeInUse, match=rf"process {os.getpid()} \(stack\)"):
        Stack(stack.home.path, environ=CLEAN).start()
    assert status_of(stack) < 500


def test_a_port_of_another_stack_or_program_is_refused_with_a_free_one(stack: Stack, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        for taken in (stack.port, foreign.getsockname()[1]):
            with pytest.raises(StackError, match=rf"Port {taken} .* is taken .*\n.*--port \d+"):
                Stack(tmp_path / "home", taken, environ=CLEAN).start()
    assert started_for(tmp_path / "home") == []


def test_an_unreachable_database_is_refused_without_telling_its_password(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"postgres://rankloop:hunter2@127.0.0.1:{unused.getsockname()[1]}/rankloop"
        with pytest.raises(StackError, match="DATABASE_URL") as told:
            Stack(tmp_path / "home", environ=CLEAN | {"DATABASE_URL": url}).start()
    assert "hunter2" not in str(told.value)


def test_killed_processes_are_started_again(stack: Stack) -> None:
    before = dict(stack.pids)
    write_row(stack.database_url)
    children = processes(lambda pid: f"\nPPid:\t{before['web']}\n" in Path(f"/proc/{pid}/status").read_text())
    assert children, "granian has workers"
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    def renewed() -> bool:
        return stack.pids.keys() == before.keys() and not set(stack.pids.values()) & set(before.values())

    assert eventually(renewed)
    stack.check()
    assert eventually(lambda: not any(map(is_running, children))), "nobody else would end these"
    assert eventually(
        lambda: postgres.Server(stack.home.data, stack.home.sockets, Path(os.devnull)).answers()
    )
    assert count_rows(stack.database_url) == 1

    def answers() -> bool:
        try:
            return status_of(stack) < 500
        except OSError:
            return False

    assert eventually(answers)


def test_a_part_that_keeps_ending_stops_the_stack_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.local.stack.BACKOFF_SECONDS", 0.01)
    broken = Stack(tmp_path / "home", environ=CLEAN | {"RANKLOOP_WEB_WORKERS": "none"}, parts=("web",))
    with pytest.raises(StackError, match=r"(?s)web ended 5 times.*'none' is not a valid integer"):
        broken.start()
    assert started_for(tmp_path / "home") == []


# --- the commands ---


def command(home: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "deploy.local.commands", "--home", str(home), *arguments]


def environ() -> dict[str, str]:
    return CLEAN | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`dev.py run` in a process of its own, once it serves."""
    arguments = ["--port", "0", "run"]
    running = subprocess.Popen(
        command(tmp_path / "home", *arguments), env=environ(), stdout=subprocess.PIPE, text=True
    )
    try:
        for line in running.stdout:
            if "Ctrl-C" in line:
                break
        yield running
    finally:
        running.kill()
        running.communicate()


@pytest.mark.slow
def test_nothing_outlives_a_killed_command_and_a_stack_beside_it_goes_on(
    stack: Stack, served: subprocess.Popen[str], tmp_path: Path
) -> None:
    lines = [" ".join(arguments_of(pid)) for pid in started_for(tmp_path / "home")]
    for part in ("granian", "rankloop.celery beat", "--queues short", "--queues training", "bin/postgres"):
        assert any(part in line for line in lines), (part, lines)
    served.kill()
    assert eventually(lambda: started_for(tmp_path / "home") == [])
    stack.check()
    assert status_of(stack) < 500


@pytest.mark.slow
def test_sigterm_stops_everything_in_order(served: subprocess.Popen[str], tmp_path: Path) -> None:
    served.terminate()
    assert served.wait(60) == 0
    assert started_for(tmp_path / "home") == []
    assert "database system is shut down" in (tmp_path / "home" / "logs" / "postgres.log").read_text()


def test_a_management_command_runs_beside_a_stack_and_without_one(stack: Stack, tmp_path: Path) -> None:
    program = "from django.db import connection; connection.ensure_connection(); import sys; sys.exit(7)"
    for home in (stack.home.path, tmp_path / "home"):
        done = subprocess.run(
            command(home, "manage", "shell", "-v", "0", "-c", program),
            env=environ(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 7, done.stderr
    assert started_for(tmp_path / "home") == []
    assert status_of(stack) < 500
