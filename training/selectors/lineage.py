"""What stands behind a checkpoint: its run, the runs before it, their datasets, and every judgment in those."""

from dataclasses import dataclass

from django.db.models import Count, QuerySet

from annotation.models import Judgment
from training.models import Checkpoint, PreferenceDataset, RunInput, TrainingRun

_AUTHORS = {
    Judgment.Source.PERSON: "people",
    Judgment.Source.REHEARSAL: "simulated annotators",
    Judgment.Source.IMPORTED: "import",
    Judgment.Source.MODEL_JUDGE: "model judges",
}


@dataclass(frozen=True)
class Lineage:
    """The runs that led to a checkpoint, the latest first, and the datasets they read."""

    runs: list[TrainingRun]
    datasets: list[PreferenceDataset]


def lineage_of(checkpoint: Checkpoint) -> Lineage:
    """Every run and dataset a checkpoint comes from, through all its parents and the reward models it learned from."""
    runs: list[TrainingRun] = []
    datasets: dict[int, PreferenceDataset] = {}
    waiting, seen = [checkpoint], {checkpoint.pk}
    while waiting:
        run = waiting.pop(0).run
        if run is None:
            continue
        runs.append(run)
        for item in run.inputs.learnt_from().select_related("checkpoint__run", "dataset").order_by("pk"):
            if item.role == RunInput.Role.DATA:
                datasets.setdefault(item.dataset.pk, item.dataset)
            elif item.checkpoint_id not in seen:
                seen.add(item.checkpoint_id)
                waiting.append(item.checkpoint)
    return Lineage(runs=runs, datasets=list(datasets.values()))


def judgments_behind(datasets: list[PreferenceDataset]) -> QuerySet[Judgment]:
    """Every judgment in any of these datasets, once, in the order they were made."""
    return (
        Judgment.objects.filter(dataset_members__dataset__in=datasets)
        .select_related("comparison__prompt", "comparison__round", "annotator")
        .distinct()
        .order_by("pk")
    )


def numbers_by_source(judgments: QuerySet[Judgment]) -> dict[str, int]:
    """How many of the judgments came from each source."""
    counted = judgments.order_by().values_list("source").annotate(number=Count("pk", distinct=True))
    return dict(counted)


def count_by_source(judgments: QuerySet[Judgment]) -> list[tuple[str, int]]:
    """How many judgments came from people, from simulated annotators, and so on: `[(whom, number)]`."""
    return [(_AUTHORS[Judgment.Source(source)], n) for source, n in numbers_by_source(judgments).items()]
