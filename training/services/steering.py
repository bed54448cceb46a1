"""What a researcher does with a run that is there: puts it before others, lets it go on, takes it as a pattern."""

from dataclasses import asdict

from django.db import transaction

from annotation.models import Round
from rankloop.accounts.models import User
from rankloop.audit.services import record
from rankloop.errors import Conflict, Refused
from training.models import RunInput, TrainingRun, WorkStatus
from training.recipes.options import METHODS, parse_options
from training.recipes.run_dir import RecipeError
from training.services.runs import open_run
from training.services.work import requeue

HIGHEST_PRIORITY = 1000


@transaction.atomic
def change_priority(*, run: TrainingRun, priority: int, user: User) -> None:
    """Let a run that waits come earlier or later: the higher priority is claimed first. Set twice, it is set once.

    Raises Refused for a priority out of range, Conflict once the run does not wait any more.
    """
    if not -HIGHEST_PRIORITY <= priority <= HIGHEST_PRIORITY:
        raise Refused(
            f"A priority is a whole number from {-HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}. Choose one nearer to 0."
        )
    locked = TrainingRun.objects.select_for_update(of=("self",)).select_related("project").get(pk=run.pk)
    if locked.status not in (WorkStatus.DRAFT, WorkStatus.QUEUED):
        raise Conflict("This run does not wait any more, so its priority changes nothing.")
    if locked.priority == priority:
        return
    TrainingRun.objects.filter(pk=run.pk).update(priority=priority)
    record(
        "run priority changed",
        actor=user,
        project=locked.project.slug,
        subject=str(run.pk),
        before=locked.priority,
        after=priority,
    )


@transaction.atomic
def continue_run(*, run: TrainingRun, user: User) -> None:
    """Queue a failed or cancelled run again; it goes on from its last checkpoint.

    Raises Conflict for one that succeeded, is not over, never began, or whose round was cancelled.
    """
    # The round first, as cancelling a round does: then neither waits for the other.
    round = Round.objects.select_for_update().filter(pk=run.round_id).first()
    locked = TrainingRun.objects.select_for_update(of=("self",)).select_related("project").get(pk=run.pk)
    if locked.status == WorkStatus.SUCCEEDED:
        raise Conflict(
            "This run has succeeded: there is nothing left to do. Duplicate it to train once more."
        )
    if not locked.is_over:
        raise Conflict("This run is not over. Wait for it, or cancel it first.")
    if round is not None and round.status == Round.Status.CANCELLED:
        raise Conflict(
            "The round of this run was cancelled. Duplicate the run: the duplicate belongs to no round."
        )
    if round is None and locked.attempt == 0:
        # A draft that was put away was perhaps never looked over.
        raise Conflict("This run never began. Duplicate it, and launch the duplicate.")
    requeue(locked)
    if round is not None:
        # It waited for somebody to decide about this run. Should another one have failed too, it says so again.
        Round.objects.filter(pk=round.pk, status=Round.Status.TRAINING).update(failure="")
    record("run continued", actor=user, project=locked.project.slug, subject=str(run.pk))


@transaction.atomic
def duplicate_run(*, run: TrainingRun, user: User) -> TrainingRun:
    """A draft with the inputs, options and seed of a run, to change and launch. It belongs to no round.

    Options the method has learnt since get their defaults. Raises Refused when the method or an option is gone.
    """
    if run.method not in METHODS:
        raise Refused(f"There is no method {run.method!r} any more. Start a new run with another one.")
    try:
        options = asdict(parse_options(run.method, run.recipe.get("options", {})))
    except RecipeError as error:
        raise Refused(f"The options of this run are none of today's: {error}") from None
    inputs = {found.role: found for found in run.inputs.select_related("checkpoint", "dataset")}
    data, base = inputs.get(RunInput.Role.DATA), inputs.get(RunInput.Role.BASE)
    if data is None or base is None:
        raise Refused("This run does not say what it read, so it can't be duplicated. Start a new one.")
    reward_model = inputs.get(RunInput.Role.REWARD_MODEL)
    draft = open_run(
        project=run.project,
        name=run.step,
        method=run.method,
        options=options,
        dataset=data.dataset,
        parent=inputs.get(RunInput.Role.PARENT, base).checkpoint,
        reward_model=reward_model.checkpoint if reward_model else None,
        seed=run.seed,
        user=user,
        status=WorkStatus.DRAFT,
        duplicate_of=run,
    )
    record("run duplicated", actor=user, project=run.project.slug, subject=str(run.pk), draft=str(draft.pk))
    return draft
