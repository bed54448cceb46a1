"""Measuring what a round brought: kept once for each subject and suite."""

from itertools import combinations
from typing import Any

from annotation.models import Contestant, Judgment, Round
from annotation.selectors.win_rates import HeadToHead, head_to_head
from training.models import Checkpoint, Evaluation

WIN_RATE_VERSION = "1"
HELD_OUT_PAIRS_VERSION = "1"


def source_of(round: Round) -> str:
    """Whose judgments the round's figures come from."""
    return Judgment.Source.REHEARSAL if round.is_rehearsal else Judgment.Source.PERSON


def win_rate_suite(*, against: Contestant, round: Round) -> str:
    """The name under which win rates over a contestant in a round are kept."""
    return f"win rate over contestant {against.pk} in round {round.number}"


def measure_round(*, round: Round) -> None:
    """Write the evaluations of a round: win rates of its contestants, accuracy of its reward models. Repeatable."""
    contestants = list(round.contestants.order_by("-pk"))
    for newer, older in combinations(contestants, 2):
        _keep_win_rate(
            round,
            head_to_head(project=round.project, a=newer, b=older, source=source_of(round), rounds=[round]),
        )
    for checkpoint in Checkpoint.objects.filter(run__round=round, kind=Checkpoint.Kind.REWARD):
        _keep(
            round,
            suite=f"held-out pairs of round {round.number}",
            version=HELD_OUT_PAIRS_VERSION,
            result=checkpoint.metrics,
            checkpoint=checkpoint,
        )


def _keep_win_rate(round: Round, result: HeadToHead) -> None:
    if result.win_rate.rate is not None:
        _keep(
            round,
            suite=win_rate_suite(against=result.b, round=round),
            version=WIN_RATE_VERSION,
            result=result.as_json(),
            contestant=result.a,
        )


def _keep(round: Round, *, suite: str, version: str, result: dict[str, Any], **subject: Any) -> None:
    Evaluation.objects.get_or_create(
        project=round.project,
        round=round,
        suite=suite,
        suite_version=version,
        decoding_digest="",
        contestant=subject.get("contestant"),
        checkpoint=subject.get("checkpoint"),
        defaults={"result": result},
    )
