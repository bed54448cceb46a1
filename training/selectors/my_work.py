"""One annotator's own judgments, what became of them, and their own pace. Nothing that tells contestants apart."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from django.db.models import Aggregate, Count, Exists, FloatField, OuterRef, Q, QuerySet
from django.db.models.functions import TruncDate
from django.utils import timezone

from annotation.models import Completion, Judgment, Project, Prompt, RankedCompletion
from annotation.wording import in_words, label_of
from rankloop.accounts.models import User
from training.models import DatasetMember
from training.selectors.uses import Use, uses_of

FILTERS = {"all": "All", "used": "Used", "unused": "Not used yet", "withdrawn": "Withdrawn"}
DAYS = 14


@dataclass(frozen=True)
class Remark:
    """What was said of one completion beside its rank."""

    label: str
    flags: list[str]
    aspects: dict[str, int]
    comment: str


@dataclass(frozen=True)
class Written:
    """A text the annotator wrote: a better answer to the completion at `label`, or a demonstration (label empty)."""

    label: str
    text: str
    review: str
    note: str


@dataclass(frozen=True)
class MyUse:
    """A dataset the judgment is in; `is_outdated` when it holds what was said before a revision or withdrawal."""

    use: Use
    is_outdated: bool


@dataclass(frozen=True)
class MyJudgment:
    """One comparison as its annotator judged it, in its newest form; a withdrawn one as it was before.

    `part` is what it does in a dataset: `taught` (models learn from it), `measured` (its prompt is held out: models are
    measured with it), `kept` (it prefers nothing, or waits for fine-tuning, and is there for the record).
    """

    assignment: uuid.UUID
    at: datetime
    round_name: str
    prompt: str
    sensitive: list[str]
    outcome: str
    part: str
    said: str
    reason: str
    is_revised: bool
    is_withdrawn: bool
    is_counted: bool
    is_masked: bool
    revisable_until: datetime | None  # None: no more
    remarks: list[Remark] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    uses: list[MyUse] = field(default_factory=list)


def my_judgments(*, user: User, project: Project, show: str = "all") -> QuerySet[Judgment]:
    """The newest form of each of the user's judgments in a project, the latest first; `show` is one of FILTERS."""
    newest = Judgment.objects.filter(
        annotator=user, comparison__round__project=project, superseded_by=None
    ).order_by("-pk")
    # What a revision or a withdrawal superseded may have been used before.
    is_used = Exists(DatasetMember.objects.filter(judgment__assignment=OuterRef("assignment")))
    if show == "used":
        return newest.filter(is_used)
    if show == "unused":
        return newest.filter(~is_used).exclude(outcome=Judgment.Outcome.WITHDRAWN)
    if show == "withdrawn":
        return newest.filter(outcome=Judgment.Outcome.WITHDRAWN)
    return newest


def described(judgments: Sequence[Judgment], *, project: Project) -> list[MyJudgment]:
    """A page of `my_judgments` with everything its annotator may see of them, in a few queries."""
    every = (
        Judgment.objects.filter(assignment__in={judgment.assignment_id for judgment in judgments})
        .select_related("assignment", "comparison__prompt", "comparison__round")
        .prefetch_related("ranking", "written")
        .order_by("pk")
    )
    forms: dict[uuid.UUID, list[Judgment]] = {}
    for judgment in every:
        forms.setdefault(judgment.assignment_id, []).append(judgment)
    uses = uses_of(every)
    return [_described(forms[judgment.assignment_id], uses, project) for judgment in judgments]


def _described(forms: list[Judgment], uses: dict[int, list[Use]], project: Project) -> MyJudgment:
    """`forms` are all forms of one judgment, the first first."""
    newest = forms[-1]
    is_withdrawn = newest.outcome == Judgment.Outcome.WITHDRAWN
    said = [form for form in forms if form.outcome != Judgment.Outcome.WITHDRAWN][-1]
    shown, prompt = said.assignment.shown_order, said.comparison.prompt
    labels = {pk: label_of(position, of=len(shown)) for position, pk in enumerate(shown, 1)}
    rows = sorted(said.ranking.all(), key=lambda row: shown.index(row.completion_id))
    until = forms[0].created_at + timedelta(minutes=project.revise_minutes)
    return MyJudgment(
        assignment=newest.assignment_id,
        at=newest.created_at,
        round_name=said.comparison.round.name,
        prompt=prompt.last_turn,
        sensitive=[name for name in project.sensitive_categories if name in prompt.tags],
        outcome=said.outcome,
        part=_part(said, rows),
        said=in_words(
            said.outcome,
            ranks=[row.rank for row in rows if row.rank is not None],
            completions=len(shown),
            strength=said.strength,
        ),
        reason=said.reason,
        is_revised=len(forms) > 1 + is_withdrawn,
        is_withdrawn=is_withdrawn,
        is_counted=newest.is_counted,
        is_masked=said.assignment.leak_masked,
        revisable_until=until if until > timezone.now() and not is_withdrawn else None,
        remarks=[_remark(row, labels) for row in rows if row.flags or row.aspects or row.comment],
        written=[_written(row, labels) for row in said.written.all()],
        uses=[MyUse(use, form is not newest) for form in forms for use in uses.get(form.pk, [])],
    )


def _part(said: Judgment, rows: list[RankedCompletion]) -> str:
    if said.outcome != Judgment.Outcome.RANKED or len({row.rank for row in rows}) < 2:
        return "kept"
    return "measured" if said.comparison.prompt.split == Prompt.Split.HELD_OUT else "taught"


def _remark(row: RankedCompletion, labels: dict[int, str]) -> Remark:
    return Remark(labels[row.completion_id], row.flags, row.aspects, row.comment)


def _written(row: Completion, labels: dict[int, str]) -> Written:
    return Written(labels.get(row.edited_from_id, ""), row.text, row.review, row.review_note)


# --- pace ---


@dataclass(frozen=True)
class Bar:
    """One day of the chart, which is DAYS wide and 1 high."""

    day: date
    number: int
    x: int
    height: float


@dataclass(frozen=True)
class Pace:
    """One annotator's own figures. Days are those of UTC; `week` is the last seven of them."""

    today: int
    week: int
    all: int
    median_seconds: float | None
    days: list[Bar]

    @property
    def most(self) -> int:
        """Judgments on the busiest of the days."""
        return max(bar.number for bar in self.days)


class _Median(Aggregate):
    function = "PERCENTILE_CONT"
    template = "%(function)s(0.5) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = FloatField()


def own_pace(*, user: User, project: Project) -> Pace:
    """How much the user has judged, and how long a judgment takes them. A revision is not another judgment."""
    firsts = Judgment.objects.filter(annotator=user, comparison__round__project=project, supersedes=None)
    sums = firsts.aggregate(all=Count("pk"), median=_Median("active_seconds", filter=Q(active_seconds__gt=0)))
    today = timezone.now().date()
    start = today - timedelta(days=DAYS - 1)
    counted = (
        firsts.filter(created_at__date__gte=start)
        .annotate(day=TruncDate("created_at"))
        .order_by()
        .values_list("day")
        .annotate(number=Count("pk"))
    )
    by_day = dict(counted)
    numbers = [by_day.get(start + timedelta(days=n), 0) for n in range(DAYS)]
    most = max(numbers) or 1
    bars = [
        Bar(start + timedelta(days=n), number, x=n, height=round(number / most, 4))
        for n, number in enumerate(numbers)
    ]
    return Pace(
        today=numbers[-1], week=sum(numbers[-7:]), all=sums["all"], median_seconds=sums["median"], days=bars
    )
