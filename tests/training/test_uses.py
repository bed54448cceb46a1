"""What judgments were used for agrees with what stands behind a checkpoint: both directions of the same lineage."""

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation.models import Judgment
from tests.cast import open_ranking
from tests.training.stage import rank
from training.models import Checkpoint, DatasetMember, PreferenceDataset, RunInput, TrainingRun
from training.selectors.lineage import lineage_of
from training.selectors.uses import uses_of

pytestmark = pytest.mark.django_db


def add_dataset(cast, number: int, judgments: list[Judgment]) -> PreferenceDataset:
    dataset = PreferenceDataset.objects.create(project=cast.project, digest=f"{number:064x}")
    DatasetMember.objects.bulk_create(DatasetMember(dataset=dataset, judgment=row) for row in judgments)
    return dataset


def add_checkpoint(cast, base, kind: str, *, method: str = "ppo", **inputs) -> Checkpoint:
    """A checkpoint of a run that read `data`, and went on from `parent` or learned from `reward_model`."""
    run = TrainingRun.objects.create(project=cast.project, step=kind, method=method)
    RunInput.objects.create(run=run, role="base", checkpoint=base)
    for role, source in inputs.items():
        if source is not None:
            RunInput.objects.create(
                run=run, role=role, **{"dataset" if role == "data" else "checkpoint": source}
            )
    name = f"{kind} {Checkpoint.objects.count()}"
    return Checkpoint.objects.create(
        project=cast.project, name=name, kind=kind, digest="d" * 64, base=base, run=run
    )


@pytest.fixture
def judged(cast, stored) -> list[Judgment]:
    open_ranking(cast, comparisons=4, overlap=1)
    rank(cast, [cast.anna])
    return list(Judgment.objects.order_by("pk"))


def test_a_reward_model_that_only_measured_did_not_teach(cast, base, judged):
    first, second = add_dataset(cast, 1, judged[:2]), add_dataset(cast, 2, judged[2:])
    reward = add_checkpoint(cast, base, "reward", method="reward", data=first)
    measured = add_checkpoint(cast, base, "policy", method="dpo", data=second, reward_model=reward)
    taught = add_checkpoint(cast, base, "policy", method="rloo", data=second, reward_model=reward)
    assert lineage_of(measured).datasets == [second]
    assert set(lineage_of(taught).datasets) == {first, second}
    (use,) = uses_of(judged[:1])[judged[0].pk]
    assert use.further == [taught]


def test_a_judgment_is_followed_through_datasets_and_every_run(cast, base, judged):
    used, unused, both, _ = judged
    first = add_dataset(cast, 1, [used, both])
    second = add_dataset(cast, 2, [both])
    reward = add_checkpoint(cast, base, "reward", data=first)
    policy = add_checkpoint(cast, base, "policy", data=first)
    later = add_checkpoint(cast, base, "policy", data=second, parent=policy, reward_model=reward)
    add_checkpoint(cast, base, "policy", parent=later)
    add_checkpoint(cast, base, "reward", data=add_dataset(cast, 3, []))  # of others' work
    uses = uses_of(judged)
    assert set(uses) == {used.pk, both.pk}
    (use,) = uses[used.pk]
    assert (use.dataset, use.trained_titles, use.further_titles) == (
        first,
        ["reward model 1", "policy 1"],
        ["policy 2", "policy 3"],
    )
    assert [(use.dataset, use.trained_titles, use.further_titles) for use in uses[both.pk]] == [
        (first, ["reward model 1", "policy 1"], ["policy 2", "policy 3"]),
        (second, ["policy 2"], ["policy 3"]),
    ]
    assert uses_of([unused]) == {}


def test_a_run_without_a_checkpoint_is_no_use(cast, base, judged):
    dataset = add_dataset(cast, 1, judged)
    run = TrainingRun.objects.create(project=cast.project, step="dpo", method="dpo", status="failed")
    RunInput.objects.create(run=run, role="data", dataset=dataset)
    (use,) = uses_of(judged[:1])[judged[0].pk]
    assert (use.trained, use.further) == ([], [])


def test_many_judgments_take_no_more_queries_than_one(cast, base, judged, django_assert_num_queries):
    dataset = add_dataset(cast, 1, judged)
    policy = add_checkpoint(cast, base, "policy", data=dataset)
    add_checkpoint(cast, base, "policy", parent=policy)
    for some in (judged[:1], judged):
        with django_assert_num_queries(5):  # members, what read them, what read those, the end, the titles
            assert len(uses_of(some)) == len(some)


KINDS = st.sampled_from(["policy", "reward"])
METHODS = st.sampled_from(["dpo", "ppo"])  # one is only measured by a reward model


@st.composite
def graphs(draw) -> tuple[list[list[int]], list[tuple]]:
    """Datasets as lists of judgments, and runs as (kind, method, dataset, parent, reward model)."""
    datasets = draw(st.lists(st.lists(st.integers(0, 3), unique=True, max_size=4), min_size=1, max_size=3))
    runs = []
    for number in range(draw(st.integers(0, 6))):
        earlier = st.one_of(st.none(), st.integers(0, number - 1)) if number else st.none()
        data = st.one_of(st.none(), st.integers(0, len(datasets) - 1))
        runs.append((draw(KINDS), draw(METHODS), draw(data), draw(earlier), draw(earlier)))
    return datasets, runs


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(graphs())
def test_both_directions_of_the_lineage_agree(cast, base, judged, graph):
    """From a judgment forwards and from a checkpoint backwards: the same pairs, whatever the runs."""
    with transaction.atomic():
        datasets = [
            add_dataset(cast, n, [judged[at] for at in members]) for n, members in enumerate(graph[0])
        ]
        made: list[Checkpoint] = []
        for kind, method, data, parent, reward_model in graph[1]:
            inputs = {
                "data": None if data is None else datasets[data],
                "parent": None if parent is None else made[parent],
                "reward_model": None if reward_model is None else made[reward_model],
            }
            made.append(add_checkpoint(cast, base, kind, method=method, **inputs))
        forwards = {
            (judgment, use.dataset.pk, checkpoint.pk)
            for judgment, uses in uses_of(judged).items()
            for use in uses
            for checkpoint in [*use.trained, *use.further]
        }
        backwards = {
            (judgment, dataset.pk, checkpoint.pk)
            for checkpoint in made
            for dataset in lineage_of(checkpoint).datasets
            for judgment in dataset.members.values_list("judgment_id", flat=True)
        }
        assert forwards == backwards
        transaction.set_rollback(True)
