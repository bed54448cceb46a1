"""What a model card tells of a checkpoint, gathered."""

from collections.abc import Iterator

from training.measurements import beside, is_number, main_rate
from training.model_card import CardFacts, Data, Measured
from training.models import Checkpoint, Evaluation, TrainingRun
from training.recipes.options import METHODS
from training.selectors.lineage import count_by_source, judgments_behind, lineage_of
from training.selectors.weights import weights_of


def card_of(checkpoint: Checkpoint) -> CardFacts:
    """The facts for the card of a trained checkpoint. Raises DamagedArtifact when its files can't be read."""
    run, base = checkpoint.run, checkpoint.base
    assert run is not None and base is not None, "a base model has no card of ours"
    weights, lineage = weights_of(checkpoint), lineage_of(checkpoint)
    return CardFacts(
        name=checkpoint.name,
        digest=checkpoint.digest,
        kind=checkpoint.kind,
        is_adapter=weights.is_adapter,
        base_name=base.name,
        base_digest=base.digest,
        project=checkpoint.project.name,
        method=_title(run),
        options=run.recipe.get("options", {}),
        seed=run.seed,
        threads=run.recipe.get("threads"),
        code_version=run.code_version,
        rank=weights.rank,
        alpha=weights.alpha,
        targets=weights.targets,
        parameters=weights.parameters,
        data=[Data(dataset.digest, dataset.counts) for dataset in lineage.datasets],
        judgments=dict(count_by_source(judgments_behind(lineage.datasets))),
        measured=list(_measured(checkpoint)),
        lineage=[_line(each) for each in lineage.runs],
    )


def _title(run: TrainingRun) -> str:
    return METHODS[run.method].title if run.method in METHODS else run.method


def _line(run: TrainingRun) -> str:
    where = f" of round {run.round.number}, {run.round.name}" if run.round else ""
    return f"{run.step}{where}: {_title(run)}"


def _measured(checkpoint: Checkpoint) -> Iterator[Measured]:
    """What its own run measured, then its win rates in rounds."""
    rate = main_rate(checkpoint.metrics)
    if rate:
        what = (
            "Wins over its parent, by the reward it was trained on"
            if rate.name == "win_rate"
            else "Accuracy on pairs"
        )
        yield Measured(what, rate.value, low=rate.low, high=rate.high, number=rate.number)
    for figure in beside(checkpoint.metrics):
        yield Measured(figure.title, figure.value, figure.is_share, figure.low, figure.high)
    rates = Evaluation.objects.filter(contestant__in=checkpoint.contestants.all()).order_by("pk")
    for evaluation in rates.select_related("round"):
        found = evaluation.result
        if is_number(found.get("rate")) and evaluation.round:
            who = "simulated annotators" if evaluation.round.is_rehearsal else "people"
            rival, number = found.get("against", "its rival"), evaluation.round.number
            what = f"Win rate over {rival} in round {number}, judged by {who}"
            low, high, number = (found.get(name) for name in ("low", "high", "comparisons"))
            yield Measured(what, found["rate"], low=low, high=high, number=number)
