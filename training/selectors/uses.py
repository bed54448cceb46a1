"""What judgments were used for: the datasets that took them in, and every checkpoint that learned from those."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db.models import F, Window
from django.db.models.functions import RowNumber

from annotation.models import Judgment
from training.models import Checkpoint, DatasetMember, PreferenceDataset, RunInput

_KINDS = {"base": "base model", "policy": "policy", "reward": "reward model"}


@dataclass(frozen=True)
class Use:
    """One dataset a judgment is in.

    Checkpoints come with a `title` such as "policy 7": their names are names of contestants, and annotators are blind.
    """

    dataset: PreferenceDataset
    trained: list[Checkpoint]  # by runs that read the dataset
    further: list[Checkpoint]  # by runs that went on from those, at any distance

    @property
    def trained_titles(self) -> list[str]:
        return [checkpoint.title for checkpoint in self.trained]

    @property
    def further_titles(self) -> list[str]:
        return [checkpoint.title for checkpoint in self.further]


def uses_of(judgments: Iterable[Judgment]) -> dict[int, list[Use]]:
    """The uses of each judgment (by id), the first dataset first. A few queries, however many judgments."""
    members = list(
        DatasetMember.objects.filter(judgment__in=[judgment.pk for judgment in judgments])
        .select_related("dataset")
        .order_by("dataset_id")
    )
    trained = _edges(
        RunInput.objects.learnt_from().filter(dataset__in={member.dataset_id for member in members}),
        "dataset_id",
    )
    children: dict[int, list[int]] = {}
    frontier = {pk for found in trained.values() for pk in found}
    while frontier:
        found = _edges(RunInput.objects.learnt_from().filter(checkpoint__in=frontier), "checkpoint_id")
        children |= {pk: found.get(pk, []) for pk in frontier}
        frontier = {pk for others in found.values() for pk in others} - children.keys()
    titled = _titled(children)
    uses: dict[int, list[Use]] = {}
    known: dict[int, Use] = {}
    for member in members:
        if member.dataset_id not in known:
            direct = trained.get(member.dataset_id, [])
            known[member.dataset_id] = Use(
                dataset=member.dataset,
                trained=[titled[pk] for pk in sorted(direct)],
                further=[titled[pk] for pk in sorted(_reached(direct, children) - set(direct))],
            )
        uses.setdefault(member.judgment_id, []).append(known[member.dataset_id])
    return uses


def _edges(inputs, source: str) -> dict[int, list[int]]:
    """From each dataset or checkpoint to the checkpoints of the runs that read it."""
    edges: dict[int, set[int]] = {}
    rows = inputs.filter(run__checkpoint__isnull=False).values_list(source, "run__checkpoint")
    for start, end in rows:
        edges.setdefault(start, set()).add(end)
    return {start: sorted(ends) for start, ends in edges.items()}


def _reached(start: Sequence[int], children: dict[int, list[int]]) -> set[int]:
    waiting, reached = list(start), set(start)
    while waiting:
        new = set(children[waiting.pop()]) - reached
        reached |= new
        waiting += new
    return reached


def _titled(wanted: Iterable[int]) -> dict[int, Checkpoint]:
    """The checkpoints by id, each with its `title`: its kind, and its number among those of its kind in the project."""
    wanted = set(wanted)
    if not wanted:
        return {}
    projects = Checkpoint.objects.filter(pk__in=wanted).values("project")
    number = Window(RowNumber(), partition_by=[F("project"), F("kind")], order_by="pk")
    found = {}
    for checkpoint in Checkpoint.objects.filter(project__in=projects).annotate(number=number):
        if checkpoint.pk in wanted:
            checkpoint.title = f"{_KINDS[checkpoint.kind]} {checkpoint.number}"
            found[checkpoint.pk] = checkpoint
    return found
