"""How one contestant fares against another, on held-out prompts only."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from annotation.models import Contestant, Judgment, Project, Prompt, RankedCompletion, Round
from annotation.statistics import Observation, WinRate, win_rate


@dataclass(frozen=True)
class HeadToHead:
    """Contestant `a` against `b`. Ties and "all bad" count half; "cannot judge" is left out."""

    a: Contestant
    b: Contestant
    source: str
    win_rate: WinRate
    comparisons: int
    ties: int  # judgments that put all completions of both on one rank
    all_bad: int

    def as_json(self) -> dict[str, Any]:
        """The figures, as evaluations and the API give them."""
        return {
            "against": self.b.name,
            "source": self.source,
            "comparisons": self.comparisons,
            "ties": self.ties,
            "all_bad": self.all_bad,
            **asdict(self.win_rate),
        }


def head_to_head(
    *,
    project: Project,
    a: Contestant,
    b: Contestant,
    source: str = Judgment.Source.PERSON,
    rounds: Sequence[Round] | None = None,
) -> HeadToHead:
    """Every counted judgment of one source between two contestants on held-out prompts of the project.

    `rounds` narrows it to some rounds. Judgments of people and of simulated annotators never meet in one figure.
    """
    judgments = Judgment.objects.filter(
        comparison__round__project=project,
        comparison__prompt__split=Prompt.Split.HELD_OUT,
        comparison__entries__completion__contestant=a,
        slot__isnull=False,
        superseded_by=None,
        source=source,
        outcome__in=[Judgment.Outcome.RANKED, Judgment.Outcome.ALL_BAD],
    )
    if rounds is not None:
        judgments = judgments.filter(comparison__round__in=rounds)
    # A second filter() joins the entries anew: a comparison must hold completions of both.
    judgments = judgments.filter(comparison__entries__completion__contestant=b).distinct()
    rows = list(
        judgments.values_list("pk", "comparison_id", "comparison__prompt_id", "annotator_id", "outcome")
    )

    ranks: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for judgment, contestant, rank in RankedCompletion.objects.filter(
        judgment__in=[row[0] for row in rows], completion__contestant__in=[a, b], rank__isnull=False
    ).values_list("judgment_id", "completion__contestant_id", "rank"):
        ranks[judgment][contestant].append(rank)

    observations, ties, all_bad = [], 0, 0
    for judgment, _, prompt, annotator, outcome in rows:
        if outcome == Judgment.Outcome.ALL_BAD:
            score, all_bad = 0.5, all_bad + 1
        else:
            ranks_a, ranks_b = ranks[judgment][a.pk], ranks[judgment][b.pk]
            score = mean_score(ranks_a, ranks_b)
            ties += len({*ranks_a, *ranks_b}) == 1
        observations.append(Observation(prompt=prompt, annotator=annotator, score=score))
    return HeadToHead(
        a=a,
        b=b,
        source=source,
        win_rate=win_rate(observations),
        comparisons=len({row[1] for row in rows}),
        ties=ties,
        all_bad=all_bad,
    )


def mean_score(ranks_a: Sequence[int], ranks_b: Sequence[int]) -> float:
    """Mean over all pairs of 1 where a is ranked before b, 0.5 where they tie, else 0."""
    pairs = [(x, y) for x in ranks_a for y in ranks_b]
    return sum(1.0 if x < y else 0.5 if x == y else 0.0 for x, y in pairs) / len(pairs)
