"""Fixtures of the tests of the runs page."""

import pytest
from django.utils import timezone

from tests.api import Caller
from tests.cast import Cast
from tests.training.steering.stage import whole_run
from training.models import PreferenceDataset, TrainingRun, WorkStatus


@pytest.fixture
def dataset(cast: Cast) -> PreferenceDataset:
    return PreferenceDataset.objects.create(project=cast.project, digest="d" * 64, counts={"judgments": 40})


@pytest.fixture
def two(cast, base, dataset) -> tuple[TrainingRun, TrainingRun]:
    """DPO and PPO on the same data, both over."""
    done = {"status": WorkStatus.SUCCEEDED, "created_at": timezone.now()}
    metrics = {"accuracy": 0.7, "interval": [0.6, 0.8]}
    dpo = whole_run(cast, base, dataset, options={"beta": 0.2}, result={"metrics": metrics}, **done)
    ppo = whole_run(
        cast, base, dataset, "ppo", result={"metrics": {"kl": 3.0, "at_start": {"kl": 0.0}}}, **done
    )
    return dpo, ppo


@pytest.fixture(params=["token", "session"])
def caller(request, cast) -> Caller:
    return Caller(cast.researcher, by=request.param)
