"""How a project comes along: counts, work left, agreement, position bias. People and simulated annotators apart."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
from django.db.models import (
    Aggregate,
    Count,
    Exists,
    F,
    FloatField,
    Func,
    IntegerField,
    Max,
    OuterRef,
    Q,
    QuerySet,
    Sum,
)
from django.db.models.functions import TruncDate
from django.utils import timezone

from annotation.agreement import Agreement, Shared, agreement, preferences
from annotation.forecast import Forecast, forecast
from annotation.models import Assignment, Comparison, Judgment, Project, RankedCompletion, Round, Slot
from annotation.statistics import Observation, WinRate, earlier_preferred, win_rate

Source = Judgment.Source
AUDIENCES = {Source.PERSON: Round.Audience.PEOPLE, Source.REHEARSAL: Round.Audience.REHEARSAL}

DAYS_SHOWN = 30
# Agreement, ties and positions come from so many of the newest rankings: more would keep the page waiting, and the
# intervals of so many are narrow.
MOST_COMPARED = 8_000
MOST_REASONS = 12  # of skips; they are free text
# The ends wobble by about 3 % of the interval; a win rate takes 2000 resamples, and four times as long.
SIDE_RESAMPLES = 500


@dataclass(frozen=True)
class Day:
    """One day in UTC. Counted judgments fill a slot; surplus ones came when theirs was taken."""

    day: date
    counted: int = 0
    surplus: int = 0
    active_seconds: float = 0.0
    annotators: int = 0


@dataclass(frozen=True)
class RoundLeft:
    """The slots of a round: `left` are those still to be filled, `closed` those its ranking ended without."""

    number: int
    name: str
    status: str
    filled: int
    left: int
    closed: int


@dataclass(frozen=True)
class AnnotatorFigures:
    """What one annotator has done. Skips are not here: skipping is never held against anybody."""

    annotator: str
    judgments: int
    surplus: int  # of the judgments
    today: int
    active_seconds: float
    median_seconds: float | None
    ties: float | None  # share of the pairs of completions they ranked
    all_bad: float | None  # share of the judgments on completions
    cannot_judge: int
    shared_pairs: int
    agreement: float | None  # share of the shared pairs of which another annotator said the same
    last_judgment: datetime


@dataclass(frozen=True)
class SkipCount:
    """How often comparisons were skipped for one reason, by anybody."""

    reason: str
    times: int


@dataclass(frozen=True)
class Rankings:
    """Counted rankings in columns; rank matrices are (judgments, most completions), nan behind the last."""

    comparisons: np.ndarray
    prompts: np.ndarray
    annotators: np.ndarray
    by_completion: np.ndarray  # the same completion in the same column for all judgments of a comparison
    by_position: np.ndarray  # as it was shown


@dataclass(frozen=True)
class Progress:
    """Everything the progress page and the statistics API tell, of judgments from one source."""

    source: str
    has_rehearsal: bool
    judgments: int
    counted: int
    surplus: int
    today: int
    ranked: int
    all_bad: int
    cannot_judge: int
    demonstrated: int
    active_seconds: float
    days: list[Day]
    rounds: list[RoundLeft]
    forecast: Forecast
    annotators: list[AnnotatorFigures]
    compared: int  # rankings that agreement, ties and positions come from
    agreement: Agreement
    earlier_preferred: WinRate
    skips: list[SkipCount]


def progress_of_project(project: Project, *, source: str = Source.PERSON) -> Progress:
    """The figures of one source, in a fixed number of queries."""
    today = timezone.now().astimezone(UTC).date()
    newest = (
        Judgment.objects.filter(comparison__round__project=project, source=source)
        # Not `superseded_by=None`: PostgreSQL takes that outer join for one row and plans nested loops over all.
        .exclude(Exists(Judgment.objects.filter(supersedes=OuterRef("pk"))))
        .exclude(outcome=Judgment.Outcome.WITHDRAWN)
        .order_by()
    )
    by_day = {row.day: row for row in _days(newest)}
    rounds = _rounds(project, source)
    rankings = _rankings(newest)
    agreed = agreement(
        comparisons=rankings.comparisons, annotators=rankings.annotators, ranks=rankings.by_completion
    )
    ties = _ties(rankings)
    people = list(_by_annotator(newest, today))
    return Progress(
        source=source,
        has_rehearsal=Judgment.objects.filter(
            comparison__round__project=project, source=Source.REHEARSAL
        ).exists(),
        judgments=sum(row["judgments"] for row in people),
        counted=sum(day.counted for day in by_day.values()),
        surplus=sum(day.surplus for day in by_day.values()),
        today=sum(row["today"] for row in people),
        ranked=sum(row["ranked"] for row in people),
        all_bad=sum(row["all_bad"] for row in people),
        cannot_judge=sum(row["cannot_judge"] for row in people),
        demonstrated=sum(row["demonstrated"] for row in people),
        active_seconds=sum(row["seconds"] for row in people),
        days=[
            by_day.get(day, Day(day))
            for day in (today - timedelta(days=back) for back in reversed(range(DAYS_SHOWN)))
        ],
        rounds=rounds,
        forecast=_forecast(project, rounds, by_day.values(), today),
        annotators=[_figures(row, ties, agreed.by_annotator) for row in people],
        compared=len(rankings.comparisons),
        agreement=agreed,
        earlier_preferred=_earlier_preferred(rankings),
        skips=_skips(project, source),
    )


class _Median(Aggregate):
    """The median of a number, by PostgreSQL."""

    function = "percentile_cont"
    template = "%(function)s(0.5) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = FloatField()


def _days(newest: QuerySet[Judgment]) -> Iterable[Day]:
    """Every day that has a judgment."""
    rows = newest.values(day=TruncDate("created_at", tzinfo=UTC)).annotate(
        counted=Count("pk", filter=Q(slot__isnull=False)),
        surplus=Count("pk", filter=Q(slot=None)),
        active_seconds=Sum("active_seconds"),
        annotators=Count("annotator", distinct=True),
    )
    return (Day(**row) for row in rows)


def _by_annotator(newest: QuerySet[Judgment], today: date) -> QuerySet[Judgment, dict]:
    def outcome(name: str) -> Count:
        return Count("pk", filter=Q(outcome=name))

    midnight = datetime(today.year, today.month, today.day, tzinfo=UTC)
    return (
        newest.values("annotator_id", name=F("annotator__username"))
        .annotate(
            judgments=Count("pk"),
            surplus=Count("pk", filter=Q(slot=None)),
            today=Count("pk", filter=Q(created_at__gte=midnight)),
            seconds=Sum("active_seconds"),
            # 0 is a client that took no time.
            median_seconds=_Median("active_seconds", filter=Q(active_seconds__gt=0)),
            ranked=outcome(Judgment.Outcome.RANKED),
            all_bad=outcome(Judgment.Outcome.ALL_BAD),
            cannot_judge=outcome(Judgment.Outcome.CANNOT_JUDGE),
            demonstrated=outcome(Judgment.Outcome.DEMONSTRATED),
            last_judgment=Max("created_at"),
        )
        .order_by("-judgments", "name")
    )


def _figures(row: dict, ties: dict[int, float], shared: dict[int, Shared]) -> AnnotatorFigures:
    of_completions = row["judgments"] - row["demonstrated"]
    mine = shared.get(row["annotator_id"], Shared(0, 0))
    return AnnotatorFigures(
        annotator=row["name"],
        judgments=row["judgments"],
        surplus=row["surplus"],
        today=row["today"],
        active_seconds=row["seconds"],
        median_seconds=row["median_seconds"],
        ties=ties.get(row["annotator_id"]),
        all_bad=row["all_bad"] / of_completions if of_completions else None,
        cannot_judge=row["cannot_judge"],
        shared_pairs=mine.pairs,
        agreement=mine.share,
        last_judgment=row["last_judgment"],
    )


def _rounds(project: Project, source: str) -> list[RoundLeft]:
    """Rounds that have slots, the newest first. What is open or held is left while the round is ranked."""

    def slots(*states: str) -> Count:
        return Count("slots", filter=Q(slots__state__in=states))

    rounds = (
        project.rounds.filter(audience=AUDIENCES[source])
        .annotate(
            filled=slots(Slot.State.FILLED),
            left=slots(Slot.State.OPEN, Slot.State.HELD),
            closed=slots(Slot.State.CLOSED),
        )
        .filter(Q(filled__gt=0) | Q(left__gt=0) | Q(closed__gt=0))
        .order_by("-number")
    )
    return [
        RoundLeft(
            number=round.number,
            name=round.name,
            status=round.status,
            filled=round.filled,
            left=round.left if round.status == Round.Status.RANKING else 0,
            closed=round.closed,
        )
        for round in rounds
    ]


def _forecast(project: Project, rounds: list[RoundLeft], days: Iterable[Day], today: date) -> Forecast:
    remaining = sum(round.left for round in rounds)
    if project.is_paused and remaining:
        return Forecast(remaining=remaining, why_not="No forecast: the project is paused.")
    return forecast(remaining=remaining, per_day={day.day: day.counted for day in days}, today=today)


def _rankings(newest: QuerySet[Judgment]) -> Rankings:
    """The newest counted rankings of regular comparisons.

    Gold, repeated and adjudicated comparisons are chosen by hand and would bend the figures.
    """
    compared = newest.filter(
        slot__isnull=False, outcome=Judgment.Outcome.RANKED, comparison__kind=Comparison.Kind.REGULAR
    ).order_by("-pk")[:MOST_COMPARED]
    shown_at = Func(
        "judgment__assignment__shown_order",
        "completion_id",
        function="array_position",
        output_field=IntegerField(),
    )
    # Numbers alone, straight into an array: thousands of small objects would keep the garbage collector busy.
    rows = (
        RankedCompletion.objects.filter(judgment__in=compared.values("pk"))
        .order_by("judgment_id", "completion_id")
        .values_list(
            "judgment_id",
            "comparison_id",
            "judgment__comparison__prompt_id",
            "judgment__annotator_id",
            shown_at,
            "rank",
        )
    )
    table = np.array(list(rows), dtype=np.int64).reshape(-1, 6)
    judgment, comparison, prompt, annotator, position, rank = table.T
    _, starts, row, sizes = np.unique(judgment, return_index=True, return_inverse=True, return_counts=True)
    by_completion = np.full((len(starts), max(sizes, default=0)), np.nan)
    by_position = by_completion.copy()
    by_completion[row, np.arange(len(row)) - starts[row]] = rank
    by_position[row, position - 1] = rank
    return Rankings(comparison[starts], prompt[starts], annotator[starts], by_completion, by_position)


def _ties(rankings: Rankings) -> dict[int, float]:
    """For each annotator the share of the pairs of completions they ranked equal."""
    values = preferences(rankings.by_completion)
    names, annotator = np.unique(rankings.annotators, return_inverse=True)
    tied, pairs = (
        np.bincount(annotator, weights=each.sum(axis=1)) for each in (values == 0, ~np.isnan(values))
    )
    return dict(zip(names.tolist(), (tied / pairs).tolist(), strict=True))


def _earlier_preferred(rankings: Rankings) -> WinRate:
    """How often what was shown earlier is preferred, resampled by prompt and annotator like any win rate."""
    scores = earlier_preferred(rankings.by_position)
    columns = (rankings.prompts.tolist(), rankings.annotators.tolist(), scores.tolist())
    return win_rate(
        [Observation(*observed) for observed in zip(*columns, strict=True)], resamples=SIDE_RESAMPLES
    )


def _skips(project: Project, source: str) -> list[SkipCount]:
    """How often each reason was given, the most frequent first; beyond MOST_REASONS they are one."""
    counted = list(
        Assignment.objects.filter(
            comparison__round__project=project,
            comparison__round__audience=AUDIENCES[source],
            state=Assignment.State.SKIPPED,
        )
        .values_list("reason")
        .annotate(times=Count("pk"))
        .order_by("-times", "reason")
    )
    skips = [SkipCount(reason or "no reason given", times) for reason, times in counted[:MOST_REASONS]]
    others = sum(times for _, times in counted[MOST_REASONS:])
    return [*skips, SkipCount("other reasons", others)] if others else skips
