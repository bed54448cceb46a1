"""Fixtures of the tests of a worker: its recipe is a stub."""

import pytest

from tests.cast import add_prompts, assemble
from tests.training.stage import PLAN, add_base, draft, generate, rank
from tests.training.stub import in_place_of_recipes
from tests.training.working.stage import WAIT, at_work
from training import worker
from training.models import TrainingRun
from training.services.rounds import advance_round, launch_round


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Put the given code in the place of every recipe."""
    return in_place_of_recipes(worker, tmp_path, monkeypatch)


@pytest.fixture
def round(stored, tmp_path):
    """A round whose generation job waits for a worker."""
    cast = assemble()
    add_prompts(cast, 12)
    round = draft(cast, add_base(cast, tmp_path / "base"), training_plan=PLAN)
    launch_round(round=round, user=cast.researcher)
    advance_round(round_id=round.pk)
    round.cast = cast
    return round


@pytest.fixture
def run(round) -> TrainingRun:
    """A training run that waits for a worker."""
    generate(round)
    advance_round(round_id=round.pk)
    rank(round.cast, [round.cast.anna, round.cast.ben])
    advance_round(round_id=round.pk)
    return TrainingRun.objects.get(step="reward")


@pytest.fixture
def working(run, recipe, settings):
    """A run that a worker, in a thread, is busy with: its recipe waits."""
    settings.WORK_LEASE_SECONDS = 0.6  # a heartbeat every 0.2 seconds
    recipe(WAIT)
    yield from at_work(run)


@pytest.fixture
def deaf(run, recipe, settings):
    """The same with a recipe that does not stop when it is asked to, which it may not do for long."""
    settings.WORK_LEASE_SECONDS, settings.STOP_SECONDS = 0.6, 0.1
    recipe("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAIT.split("\n", 2)[2])
    yield from at_work(run)
