"""A pytest plugin (`-p tests.environment` in pyproject.toml): the environment that settings are read from.

It is loaded before Django is set up, which a conftest.py is not. Each xdist worker gets its own server and home.
"""

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_resources = ExitStack()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Start a throw-away PostgreSQL, make a home, and point the settings at both."""
    from deploy.local.postgres import throwaway

    home = Path(tempfile.mkdtemp(prefix="rankloop-test-"))
    _resources.callback(shutil.rmtree, home, ignore_errors=True)
    # The model stays where the checkout has it: its path is fixed before the home moves.
    usual_home = Path(os.environ.get("RANKLOOP_HOME", ROOT / "var"))
    os.environ.setdefault("RANKLOOP_DEFAULT_MODEL", str(usual_home / "models" / "smollm2-135m-instruct"))
    os.environ.update(
        RANKLOOP_HOME=str(home),
        RANKLOOP_LOCAL="1",
        SECRET_KEY="only-for-tests-0123456789-abcdefghijklmnop",
        CELERY_BROKER_URL="memory://",
        RANKLOOP_ARTIFACTS_URL=str(home / "artifacts"),
        OMP_NUM_THREADS="1",
        DATABASE_URL=_resources.enter_context(throwaway()),
    )


def pytest_unconfigure() -> None:
    """Nothing is left running, and nothing on disk."""
    _resources.close()
