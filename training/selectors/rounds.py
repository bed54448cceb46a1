"""How far a round is: every phase in figures."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q

from annotation.models import Judgment, Project, Round, Slot
from annotation.selectors.review import waiting_in
from training.models import Evaluation, GenerationJob, PreferenceDataset, TrainingRun

_WAY = (
    Round.Status.DRAFT,
    Round.Status.GENERATING,
    Round.Status.RANKING,
    Round.Status.TRAINING,
    Round.Status.EVALUATING,
    Round.Status.CLOSED,
)

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
    answers_waiting: int  # written answers that nobody has reviewed
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
        answers_waiting=waiting_in([round]),
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


def _steps(round: Round) -> list[Step]:
    """The way with the present station marked; a cancelled round's ends where nothing tells how far it was."""
    at = _WAY.index(Round.Status(round.status)) if round.status in _WAY else -1
    return [
        Step(label=str(status.label), is_done=index < at or at == len(_WAY) - 1, is_current=index == at)
        for index, status in enumerate(_WAY)
    ]


def rounds_of(project: Project) -> list[Round]:
    """The project's rounds, newest first, each with `slots_all`, `slots_done` and `trained` (checkpoints)."""
    done = Count("slots", filter=Q(slots__state=Slot.State.FILLED), distinct=True)
    return list(
        project.rounds.order_by("-number").annotate(
            slots_all=Count("slots", distinct=True),
            slots_done=done,
            trained=Count("runs__checkpoint", distinct=True),
        )
    )
