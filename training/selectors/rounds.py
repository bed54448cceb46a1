"""How far a round is: every phase in figures."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q, QuerySet

from annotation.models import Completion, Judgment, Project, Round, Slot
from training.models import Evaluation, GenerationJob, PreferenceDataset, TrainingRun

_WAY = (
    Round.Status.DRAFT,
    Round.Status.GENERATING,
    Round.Status.RANKING,
    Round.Status.TRAINING,
    Round.Status.EVALUATING,
    Round.Status.CLOSED,
)
# Nothing is generated, trained or measured: the driver only passes through those.
_WAY_OF_DEMONSTRATIONS = (Round.Status.DRAFT, Round.Status.RANKING, Round.Status.CLOSED)

MOST_DATASETS = 5  # a round has one by itself, and others when it is frozen by hand


@dataclass(frozen=True)
class Step:
    """One station on a round's way."""

    label: str
    is_done: bool
    is_current: bool


@dataclass(frozen=True)
class RoundState:
    """What a round's page tells. Slots are counted by state; `completions_wanted` is an upper bound."""

    steps: list[Step]
    prompts: dict[str, int]
    jobs: list[GenerationJob]
    completions_made: int
    completions_wanted: int
    comparisons: int
    slots: dict[str, int]
    judgments: dict[str, int]
    annotators: int
    written: dict[str, int]  # answers of people, by where their review stands
    datasets: list[PreferenceDataset]  # the newest first
    runs: list[TrainingRun]
    win_rates: list[Evaluation]
    reward_accuracies: list[Evaluation]

    @property
    def slots_total(self) -> int:
        return sum(self.slots.values())


def round_state(round: Round) -> RoundState:
    """Everything about one round, in about ten small queries."""
    prompts = dict(round.prompts.values_list("split").annotate(number=Count("pk")))
    counted = Judgment.objects.filter(comparison__round=round, supersedes=None)
    evaluations = list(round.evaluations.select_related("contestant", "checkpoint").order_by("pk"))
    sums = counted.aggregate(
        all=Count("pk"),
        surplus=Count("pk", filter=Q(slot=None)),
        all_bad=Count("pk", filter=Q(outcome=Judgment.Outcome.ALL_BAD)),
        cannot_judge=Count("pk", filter=Q(outcome=Judgment.Outcome.CANNOT_JUDGE)),
        annotators=Count("annotator", distinct=True),
    )
    return RoundState(
        steps=_steps(round),
        prompts={"train": prompts.get("train", 0), "held_out": prompts.get("held_out", 0)},
        jobs=list(round.generation_jobs.select_related("base").order_by("created_at")),
        completions_made=_completions_made(round),
        completions_wanted=sum(prompts.values()) * round.contestants.count() * round.samples_per_contestant,
        comparisons=round.comparisons.count(),
        slots={str(state): 0 for state in Slot.State}
        | dict(round.slots.values_list("state").annotate(number=Count("pk"))),
        judgments=sums,
        annotators=sums.pop("annotators"),
        written=_written(round),
        datasets=list(round.datasets.order_by("-pk")[:MOST_DATASETS]),
        runs=list(round.runs.select_related("checkpoint").order_by("created_at")),
        win_rates=[row for row in evaluations if row.contestant_id is not None],
        reward_accuracies=[row for row in evaluations if row.checkpoint_id is not None],
    )


def _completions_made(round: Round) -> int:
    if round.first_sample is None:
        return 0
    samples = range(round.first_sample, round.first_sample + round.samples_per_contestant)
    made: Any = round.contestants.filter(
        completions__prompt__rounds=round, completions__sample_index__in=samples
    ).aggregate(number=Count("completions"))
    return made["number"]


def _written(round: Round) -> dict[str, int]:
    """Answers that annotators wrote in the round and did not take back."""
    standing = Completion.objects.filter(
        judgment__comparison__round=round, judgment__superseded_by=None, judgment__slot__isnull=False
    )
    counted = dict(standing.values_list("review").annotate(number=Count("pk")))
    states = [Completion.Review.WAITING, Completion.Review.APPROVED, Completion.Review.DECLINED]
    return {str(state): counted.get(state, 0) for state in states}


def _steps(round: Round) -> list[Step]:
    """The way with the present station marked; a cancelled round's ends where nothing tells how far it was."""
    way = _WAY_OF_DEMONSTRATIONS if round.is_demonstration else _WAY
    at = way.index(Round.Status(round.status)) if round.status in way else -1
    labels = ["writing" if round.is_demonstration and stage == "ranking" else stage.label for stage in way]
    return [
        Step(label=str(label), is_done=index < at or at == len(way) - 1, is_current=index == at)
        for index, label in enumerate(labels)
    ]


def rounds_of(project: Project) -> QuerySet[Round]:
    """The project's rounds, newest first, each with `slots_all`, `slots_done` and `trained` (checkpoints)."""
    done = Count("slots", filter=Q(slots__state=Slot.State.FILLED), distinct=True)
    return project.rounds.order_by("-number").annotate(
        slots_all=Count("slots", distinct=True),
        slots_done=done,
        trained=Count("runs__checkpoint", distinct=True),
    )
