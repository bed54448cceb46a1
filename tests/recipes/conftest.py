"""Fixtures of the recipes' tests."""

from pathlib import Path

import pytest

from tests.recipes.runs import make_training_run, run_here


@pytest.fixture(scope="session")
def reward_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model, trained for a few steps on the tiny model."""
    folder = make_training_run(tmp_path_factory.mktemp("judge") / "run", "reward", tiny_model)
    run_here(folder)
    return folder / "output"
