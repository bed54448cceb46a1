"""Fixtures of the training tests."""

import pytest
from django.test import Client

from annotation.models import Round
from tests.cast import Cast, add_prompts, assemble
from tests.training.stage import PLAN, PROMPTS, add_base, draft
from training.models import Checkpoint


@pytest.fixture
def stored(settings, tmp_path):
    """An empty artifact store and an empty folder of runs."""
    settings.ARTIFACTS_URL = str(tmp_path / "artifacts")
    settings.RUNS_FOLDER = tmp_path / "runs"
    return tmp_path / "artifacts"


@pytest.fixture
def cast(db) -> Cast:
    return assemble()


@pytest.fixture
def base(cast, stored, tmp_path) -> Checkpoint:
    """A base checkpoint that is only files."""
    return add_base(cast, tmp_path / "base")


@pytest.fixture
def round(cast, base) -> Round:
    """A draft with prompts to work on and both methods in its plan."""
    add_prompts(cast, PROMPTS)
    return draft(cast, base, training_plan=PLAN)


@pytest.fixture
def site(client: Client, cast: Cast) -> Client:
    """A browser in which the researcher is signed in."""
    client.force_login(cast.researcher)
    return client
