"""Fixtures of the tests of launching by hand."""

import pytest

from annotation.models import Round
from tests.cast import Cast, add_prompts
from tests.training.launching.stage import drafted
from tests.training.stage import draft, rank, to_ranking
from training.models import Checkpoint, PreferenceDataset, TrainingRun
from training.services.snapshots import snapshot_rounds


@pytest.fixture
def ranked(cast: Cast, base: Checkpoint) -> Round:
    """A round that is ranked to the end."""
    add_prompts(cast, 16)
    round = draft(cast, base, overlap=2)
    to_ranking(round)
    rank(cast, [cast.anna, cast.ben])
    return round


@pytest.fixture
def dataset(cast: Cast, ranked: Round) -> PreferenceDataset:
    return snapshot_rounds(project=cast.project, rounds=[ranked])


@pytest.fixture
def judge(cast: Cast, base: Checkpoint) -> Checkpoint:
    """A reward model on the base."""
    return Checkpoint.objects.create(
        project=cast.project, name="judge", kind="reward", digest="r" * 64, base=base
    )


@pytest.fixture
def run(cast: Cast, dataset: PreferenceDataset, base: Checkpoint) -> TrainingRun:
    return drafted(cast, dataset, base)
