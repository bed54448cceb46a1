"""Rounds: opening, launching, and the driver that carries them on by itself.

    draft -> generating -> ranking -> training -> evaluating -> closed        (or cancelled, from any of them)

`advance_round` does what the present status asks for and moves on by compare-and-set. Each step may be run again at
any time, by several processes at once, so a crash anywhere loses nothing: the next call goes on. A step that can't go
on leaves its reason in `round.failure`, until a person retries or skips it.
"""

import uuid
from collections.abc import Callable, Sequence
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from annotation.models import Contestant, Project, Round
from annotation.services.comparisons import close_slots, freeze_prompts, open_comparisons, ranking_is_over
from rankloop.accounts.models import User
from rankloop.audit.services import record
from rankloop.errors import Conflict, Refused
from training.models import (
    Checkpoint,
    GenerationJob,
    PreferenceDataset,
    RunInput,
    TrainingRun,
    WorkStatus,
)
from training.models.work import Work
from training.plans import checked_plan
from training.recipes.options import METHODS
from training.services.checkpoints import checkpoint_of, register_policy
from training.services.evaluations import measure_round
from training.services.runs import queue_generation, queue_training, refuse_other_content
from training.services.snapshots import snapshot_rounds
from training.services.work import request_cancel, requeue

Status = Round.Status
MOST_RANKED_TOGETHER = 8
SAMPLES_OF_EACH = 2  # contestants write of each prompt when policies meet their parent
ASKED = (  # what a launch asks for beside the contestants
    "name", "kind", "audience", "priority", "overlap", "completions_per_comparison", "samples_per_contestant",
    "train_prompts", "held_out_prompts", "deadline", "seed", "training_plan",
)  # fmt: skip
ACTIVE = (Status.GENERATING, Status.RANKING, Status.TRAINING, Status.EVALUATING)


@transaction.atomic
def open_round(
    *,
    project: Project,
    user: User | None,
    name: str,
    contestants: Sequence[Contestant],
    kind: str = Round.Kind.RANKING,
    launch_key: uuid.UUID | None = None,
    training_plan: Sequence[dict[str, Any]] = (),
    **settings: Any,
) -> Round:
    """A new round as a draft. With a launch key that was used before, that round: two launches make one.

    In a demonstration round annotators write the answers: it takes no contestants and no plan. `settings` are fields
    of Round (overlap, audience, train_prompts, deadline ...), by default the project's.
    Raises Refused for a plan, contestants or sizes that can't work, ValidationError for a field out of range, and
    Conflict when the round of the launch key is not what is asked for now.
    """
    # One after the other within a project: numbers are given in order, and a key is looked up before it is used.
    Project.objects.select_for_update().get(pk=project.pk)
    known = project.rounds.filter(launch_key=launch_key).first() if launch_key else None
    plan = checked_plan(list(training_plan))
    if kind == Round.Kind.DEMONSTRATION:
        _check_demonstrations(contestants, plan, settings)
        settings.setdefault("overlap", 1)
        settings.setdefault("held_out_prompts", 0)
    else:
        _check_contestants(project, contestants)
        _check_full_weights(contestants, plan)
    if plan and settings.get("train_prompts") == 0:
        raise Refused("Training needs train prompts. Ask for some, or train nothing in this round.")
    settings.setdefault("overlap", project.overlap)
    settings.setdefault("completions_per_comparison", project.completions_per_comparison)
    number = known.number if known else (project.rounds.aggregate(last=Max("number"))["last"] or 0) + 1
    settings.setdefault("seed", number)
    round = Round(
        project=project,
        number=number,
        name=name or f"Round {number}",
        kind=kind,
        training_plan=plan,
        launch_key=launch_key,
        created_by=user,
        **settings,
    )
    round.full_clean(exclude=["project", "created_by", "launch_key"])
    if kind == Round.Kind.RANKING and len(contestants) * round.samples_per_contestant < 2:
        raise Refused("One completion can't be compared. Choose more contestants, or more samples of each.")
    if known is not None:
        had, asked = ({name: getattr(each, name) for name in ASKED} for each in (known, round))
        had["contestants"], asked["contestants"] = set(known.contestants.all()), set(contestants)
        refuse_other_content(f"round {known.number}", had=had, asked=asked)
        return known
    round.save()
    round.contestants.set(contestants)
    record("round opened", actor=user, project=project.slug, subject=f"round {number}")
    return round


def _check_contestants(project: Project, contestants: Sequence[Contestant]) -> None:
    if not contestants:
        raise Refused("A round needs at least one contestant. Choose who writes the completions.")
    for contestant in contestants:
        if contestant.project_id != project.pk:
            raise Refused(f"{contestant} belongs to another project.")
        checkpoint_of(contestant)


def _check_full_weights(contestants: Sequence[Contestant], plan: Sequence[dict[str, Any]]) -> None:
    """Raise Refused when a step is to train all weights and goes on from an adapter: now, not once all is ranked."""
    parent = checkpoint_of(max(contestants, key=lambda contestant: contestant.pk))  # as parent_of has it
    for step in plan:
        full = METHODS[step["method"]].makes == "policy" and step["options"].get("weights") == "full"
        if full and not parent.is_whole:
            raise Refused(
                f"Step {step['step']} is to train all weights, and would go on from {parent}, which is a LoRA adapter. "
                "Set its weights to lora, or choose contestants on whole weights only."
            )


def _check_demonstrations(
    contestants: Sequence[Contestant], plan: Sequence[dict[str, Any]], settings: dict[str, Any]
) -> None:
    if contestants:
        raise Refused("In a demonstration round annotators write the answers. Leave the contestants out.")
    if plan:
        raise Refused("Nothing is ranked in a demonstration round, so nothing can be trained. Leave it out.")
    if settings.get("audience", Round.Audience.PEOPLE) != Round.Audience.PEOPLE:
        raise Refused("Only people write demonstrations. Simulated annotators rank rehearsals.")


@transaction.atomic
def launch_round(*, round: Round, user: User | None) -> Round:
    """Start a draft: its prompts are frozen, and the driver goes on from here. Launched already: nothing happens.

    Raises Refused when the project has no prompt for it, and Conflict for a cancelled round.
    """
    if round.status == Status.CANCELLED:
        raise Conflict("This round was cancelled. Open a new one.")
    if round.status != Status.DRAFT:
        return round
    if freeze_prompts(round=round) == 0:
        raise Refused(
            "The project has no prompt for this round. Import some, or ask for more of a split that has."
        )
    if _move(round, Status.GENERATING):
        record("round launched", actor=user, project=round.project.slug, subject=f"round {round.number}")
    return round


def _move(round: Round, to: str) -> bool:
    """Compare-and-set of the status; false when another process was faster."""
    now = timezone.now()
    moved = Round.objects.filter(pk=round.pk, status=round.status, failure="")
    if moved.update(status=to, status_since=now) != 1:
        return False
    round.status, round.status_since = to, now
    return True


def advance_round(*, round_id: int) -> None:
    """Take the round as far as it can go now."""
    while True:
        round = Round.objects.select_related("project").get(pk=round_id)
        step = _STEPS.get(Status(round.status))
        if step is None or round.failure:
            return
        try:
            following = step(round)
        except WorkFailed as error:
            _note_failure(round, str(error), work=error.work)
            return
        except Refused as error:
            _note_failure(round, str(error))
            return
        except Exception as error:
            _note_failure(round, f"{type(error).__name__}: {error}")
            raise
        if following is None or not _move(round, following):
            return


@transaction.atomic
def _note_failure(round: Round, reason: str, *, work: Work | None = None) -> None:
    """Let the round stand still. Not for work that a person has let go on meanwhile, for which they lock the round."""
    Round.objects.select_for_update().get(pk=round.pk)
    if work is None or type(work).objects.filter(pk=work.pk, status=WorkStatus.FAILED).exists():
        Round.objects.filter(pk=round.pk, status=round.status).update(failure=reason)


def _generate(round: Round) -> str | None:
    """Queue what is to be generated; once that is over, make the comparisons. Demonstrations need no completions."""
    if not _all_over(queue_generation(round=round)):
        return None
    if open_comparisons(round=round) == 0:
        raise Refused(
            "No prompt has two different completions, so there is nothing to rank. Look at the jobs' logs."
        )
    return Status.RANKING


def _rank(round: Round) -> str | None:
    """Wait for annotators: until all is ranked, nothing more can be, or the deadline has passed."""
    overdue = round.deadline is not None and round.deadline < timezone.now()
    if not (overdue or ranking_is_over(round=round)):
        return None
    close_slots(round=round)
    return Status.TRAINING


def _train(round: Round) -> str | None:
    """Freeze the judgments and work through the plan."""
    if round.training_plan:
        runs = list(round.runs.all())
        _refuse_failed(runs)  # before others are queued that learn from one of them
        if len(runs) < len(round.training_plan):
            runs = queue_training(round=round, dataset=_dataset_of(round, runs))
        if not _all_over(runs) or len(runs) < len(round.training_plan):
            return None
    return Status.EVALUATING


def _dataset_of(round: Round, runs: Sequence[TrainingRun]) -> PreferenceDataset:
    """What the round's runs read: all of them the same, frozen when the first is queued."""
    if runs:
        return runs[0].inputs.get(role=RunInput.Role.DATA).dataset
    return snapshot_rounds(project=round.project, rounds=[round])


def _evaluate(round: Round) -> str | None:
    """Measure the round, and put the policies it trained back into the ranking queue as contestants of a draft."""
    measure_round(round=round)
    open_next_round(round=round)
    return Status.CLOSED


_STEPS: dict[Status, Callable[[Round], str | None]] = {
    Status.GENERATING: _generate,
    Status.RANKING: _rank,
    Status.TRAINING: _train,
    Status.EVALUATING: _evaluate,
}


class WorkFailed(Refused):
    """A job or a run of the round has failed: a person retries it, lets it go on, or goes on without it."""

    def __init__(self, work: Work) -> None:
        super().__init__(f"{str(work)[:1].upper()}{str(work)[1:]} failed. {work.error}")
        self.work = work


def _refuse_failed(work: Sequence[Work]) -> None:
    for item in work:
        if item.status == WorkStatus.FAILED:
            raise WorkFailed(item)


def _all_over(work: Sequence[Work]) -> bool:
    """Whether all of it has ended well or was given up. Raises WorkFailed when some has failed."""
    _refuse_failed(work)
    return all(item.is_over for item in work)


@transaction.atomic
def open_next_round(*, round: Round) -> Round | None:
    """A draft in which the policies this round trained meet their parent, blind, on held-out prompts. Repeatable.

    All completions of a prompt stand in one comparison where they fit: one ranking then compares each sample of a
    policy with each of its parent. Nothing is opened when no policy was trained.
    """
    # Derived, so that a second call finds the first one's draft.
    launch_key = uuid.uuid5(uuid.NAMESPACE_OID, f"rankloop:after:{round.project_id}:{round.number}")
    known = round.project.rounds.filter(launch_key=launch_key).first()
    if known is not None:
        return known
    trained = Checkpoint.objects.filter(run__round=round, kind=Checkpoint.Kind.POLICY).order_by("pk")
    parent = _plain_contestant(round)
    if not trained or parent is None:
        return None
    contestants = [parent] + [
        register_policy(checkpoint=checkpoint, system_prompt=parent.system_prompt, decoding=parent.decoding)
        for checkpoint in trained
    ]
    return open_round(
        project=round.project,
        user=round.created_by,
        name=f"After {round.name}",
        contestants=contestants,
        launch_key=launch_key,
        audience=round.audience,
        overlap=round.overlap,
        completions_per_comparison=shown_together(len(contestants)),
        samples_per_contestant=SAMPLES_OF_EACH,
        train_prompts=0,
        held_out_prompts=1000,
        seed=round.seed + 1,
    )


def shown_together(contestants: int) -> int:
    """How many completions a comparison of policies with their parent has: as many of each, where there is room."""
    all_samples = SAMPLES_OF_EACH * contestants
    return all_samples if all_samples <= MOST_RANKED_TOGETHER else min(contestants, MOST_RANKED_TOGETHER)


def _plain_contestant(round: Round) -> Contestant | None:
    """The contestant on the checkpoint that policies went on from, without a system prompt where there is one."""
    newest = round.contestants.order_by("-pk").first()
    if newest is None:
        return None
    siblings = round.contestants.filter(checkpoints=checkpoint_of(newest))
    return siblings.order_by("system_prompt", "pk").first()


def end_ranking(*, round: Round, user: User) -> None:
    """End ranking now: what is open is closed, and kept count of. Raises Conflict when the round is not ranking."""
    if round.status != Status.RANKING:
        raise Conflict("This round is not being ranked, so there is no ranking to end.")
    closed = close_slots(round=round)
    record(
        "ranking ended",
        actor=user,
        project=round.project.slug,
        subject=f"round {round.number}",
        closed=closed,
    )


@transaction.atomic
def cancel_round(*, round: Round, user: User) -> None:
    """Stop a round for good. Its running work saves and stops; what was judged stays. Over already: nothing."""
    stopped = Round.objects.filter(pk=round.pk, status__in=[Status.DRAFT, *ACTIVE])
    if stopped.update(status=Status.CANCELLED, status_since=timezone.now(), failure="") == 0:
        return
    for work in [*round.generation_jobs.all(), *round.runs.all()]:
        request_cancel(work)
    close_slots(round=round)
    record("round cancelled", actor=user, project=round.project.slug, subject=f"round {round.number}")


@transaction.atomic
def retry_step(*, round: Round, user: User) -> None:
    """Try the failed step again. Raises Conflict when nothing has failed."""
    _clear_failure(round)
    for work in _work_of(round):
        if work.status == WorkStatus.FAILED:
            requeue(work)
    record("step retried", actor=user, project=round.project.slug, subject=f"round {round.number}")


@transaction.atomic
def skip_step(*, round: Round, user: User) -> None:
    """Go on without what failed. Raises Conflict when nothing has failed."""
    _clear_failure(round)
    failed = [work for work in _work_of(round) if work.status == WorkStatus.FAILED]
    for work in failed:
        type(work).objects.filter(pk=work.pk, status=WorkStatus.FAILED).update(status=WorkStatus.CANCELLED)
    if not failed:  # the step itself could not go on: leave it out
        following = {
            Status.GENERATING: Status.RANKING,
            Status.RANKING: Status.TRAINING,
            Status.TRAINING: Status.EVALUATING,
            Status.EVALUATING: Status.CLOSED,
        }
        round.refresh_from_db()
        _move(round, following[Status(round.status)])
    record("step skipped", actor=user, project=round.project.slug, subject=f"round {round.number}")


def _clear_failure(round: Round) -> None:
    if Round.objects.filter(pk=round.pk).exclude(failure="").update(failure="") != 1:
        raise Conflict("Nothing has failed in this round.")


def _work_of(round: Round) -> list[GenerationJob] | list[TrainingRun]:
    return list(round.generation_jobs.all() if round.status == Status.GENERATING else round.runs.all())


def active_round_ids() -> list[int]:
    """Rounds that may go on."""
    return list(Round.objects.filter(status__in=ACTIVE, failure="").values_list("pk", flat=True))
