"""What the tests of the runs page put on the stage."""

from tests.cast import Cast
from training.models import TrainingRun
from training.recipes.options import parse_options
from training.services.runs import open_run

RUNS = "/api/v1/projects/tea/runs"


def add_run(cast: Cast, name: str = "dpo", **fields) -> TrainingRun:
    return TrainingRun.objects.create(**{"project": cast.project, "step": name, "method": "dpo", **fields})


def whole_run(cast: Cast, base, dataset, method: str = "dpo", **fields) -> TrainingRun:
    """A run with inputs and options, as a launch makes it."""
    options = {**vars(parse_options(method, {})), **fields.pop("options", {})}
    run = open_run(
        project=cast.project,
        name=method,
        method=method,
        options=options,
        dataset=dataset,
        parent=base,
        reward_model=None,
        seed=7,
        user=cast.researcher,
    )
    TrainingRun.objects.filter(pk=run.pk).update(**fields)
    run.refresh_from_db()
    return run
