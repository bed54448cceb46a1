"""Fixtures that tests of several places share. The environment is made in tests/environment.py."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from django.conf import settings
from django.test import override_settings

from tests.environment import ROOT

# No test asserts how long something takes.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def default_model() -> Path:
    """The real small model. `deploy/dev.py test` fetches it; by bare pytest it may be missing."""
    folder = Path(os.environ["RANKLOOP_DEFAULT_MODEL"])
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"no model at {folder}: run `python3 deploy/dev.py test`, which fetches it")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random chat model, made in another process: this one stays without torch."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    subprocess.run([sys.executable, "-m", "training.recipes.tiny", str(folder)], check=True, cwd=ROOT)
    return folder


@pytest.fixture(autouse=True)
def quick_passwords(settings: Any) -> None:
    """Hashing a password slowly, as production must, would take most of the tests' time."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(scope="session", autouse=True)
def static_files_as_they_lie() -> Iterator[None]:
    """Pages name static files as they are called in the checkout, which the live server finds: nothing is collected."""
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    with override_settings(STORAGES={**settings.STORAGES, "staticfiles": plain}):
        yield
