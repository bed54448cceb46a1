"""Fixtures of the recipes' tests."""

import shutil
from pathlib import Path

import pytest

from tests.recipes.runs import make_training_run, run_here


@pytest.fixture(scope="session")
def reward_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model, trained for a few steps on the tiny model."""
    folder = make_training_run(tmp_path_factory.mktemp("judge") / "run", "reward", tiny_model)
    run_here(folder)
    return folder / "output"


@pytest.fixture(scope="session")
def half_model(tiny_model, tmp_path_factory) -> Path:
    """The tiny model stored as bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("half") / "half")
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(folder)
    return folder
