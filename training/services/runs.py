"""Queueing generation jobs and training runs from frozen inputs."""

from functools import lru_cache
from importlib.metadata import version
from typing import Any

from django.conf import settings
from django.db import transaction

from annotation.models import Contestant, Project, Round
from rankloop.accounts.models import User
from rankloop.audit.services import record
from rankloop.errors import Conflict, Refused
from training.models import Checkpoint, GenerationJob, PreferenceDataset, RunInput, TrainingRun, WorkStatus
from training.plans import checked_plan, needs_reward_model
from training.preferences import SPLITS
from training.recipes.options import METHODS
from training.recipes.training_options import FEWEST
from training.services.checkpoints import checkpoint_of
from training.services.work import request_cancel

# What a method reads, in words, and how to get more of it.
FORM_WORDS = {
    "pairs": ("pairs of completions of which one was preferred", "Rank more"),
    "demonstrations": ("approved written answers", "Write and approve more"),
    "outcomes": ("completions called good or bad", "Rank more"),
    "prompts": ("judged prompts", "Rank more"),
}


@lru_cache(maxsize=1)
def code_version() -> str:
    """Version of this code, kept with each run."""
    return version("rankloop")


def base_of(checkpoint: Checkpoint) -> Checkpoint:
    """The whole weights that a checkpoint's adapter stands on; itself when it is whole."""
    return checkpoint if checkpoint.is_whole else checkpoint.base


@transaction.atomic
def queue_generation(*, round: Round) -> list[GenerationJob]:
    """One job for each base model whose contestants have completions to make. Run twice, it queues once."""
    if _is_cancelled(round):
        return []
    with_job = set(round.generation_jobs.values_list("base_id", flat=True))
    by_base: dict[Checkpoint, list[Contestant]] = {}
    for contestant in round.contestants.order_by("pk"):
        base = base_of(checkpoint_of(contestant))
        if base.pk not in with_job and _has_gaps(round, contestant):
            by_base.setdefault(base, []).append(contestant)
    for base, contestants in by_base.items():
        job = GenerationJob.objects.create(round=round, base=base, seed=round.seed)
        job.contestants.set(contestants)
    return list(round.generation_jobs.all())


def _is_cancelled(round: Round) -> bool:
    """Whether a person was faster. Locks the round, so that it can't be cancelled while its work is being queued."""
    return Round.objects.select_for_update().get(pk=round.pk).status == Round.Status.CANCELLED


def _has_gaps(round: Round, contestant: Contestant) -> bool:
    """Whether the contestant has not yet answered each of the round's prompts as often as it should."""
    samples = range(round.first_sample, round.first_sample + round.samples_per_contestant)
    made = contestant.completions.filter(prompt__rounds=round, sample_index__in=samples).count()
    return made < round.prompts.count() * round.samples_per_contestant


def parent_of(*, round: Round) -> Checkpoint:
    """The checkpoint that a round's policies go on from: that of its newest contestant.

    Contestants are made as checkpoints are, so the newest stands on the newest policy; in a first round it is the base.
    """
    newest = round.contestants.order_by("-pk").first()
    if newest is None:
        raise Refused("The round has no contestant.")
    return checkpoint_of(newest)


@transaction.atomic
def queue_training(*, round: Round, dataset: PreferenceDataset) -> list[TrainingRun]:
    """The runs of a round's training plan, on a frozen dataset, as far as they can start. Run twice, it queues once.

    A step that learns from another step's reward model, or is measured by it, waits until that step is over. Raises
    Refused when the dataset has too little to train on or to measure with, or a step has no reward model to learn from.
    """
    plan = checked_plan(round.training_plan)
    for step in plan:
        refuse_too_little(step["method"], dataset)
    if _is_cancelled(round):
        return []
    parent = parent_of(round=round)
    runs = {run.step: run for run in round.runs.all()}
    for step in plan:
        if step["step"] in runs or _waits(step, runs):
            continue
        run = open_run(
            project=round.project,
            name=step["step"],
            method=step["method"],
            options=step["options"],
            dataset=dataset,
            # A reward model starts on the base; a policy goes on from the policy that was judged.
            parent=base_of(parent) if METHODS[step["method"]].makes == "reward" else parent,
            reward_model=_reward_model(step, runs, base_of(parent)),
            seed=round.seed,
            user=round.created_by,
            round=round,
        )
        runs[run.step] = run
    return [runs[step["step"]] for step in plan if step["step"] in runs]


def _waits(step: dict[str, Any], runs: dict[str, TrainingRun]) -> bool:
    """Whether the step whose reward model this one needs is still at work."""
    return "reward_model" in step and (
        step["reward_model"] not in runs or not runs[step["reward_model"]].is_over
    )


def _reward_model(step: dict[str, Any], runs: dict[str, TrainingRun], base: Checkpoint) -> Checkpoint | None:
    """The reward model of the plan's step that this one names, else the project's newest on that base.

    None for a step that learns from none: what only measures it may be missing. Raises Refused for one that does.
    """
    is_needed = needs_reward_model(step["method"], step["options"])
    if "reward_model" in step:
        found = Checkpoint.objects.filter(run=runs[step["reward_model"]]).first()
        if found is None and is_needed:
            raise Refused(
                f"Step {step['step']} learns from the reward model of step {step['reward_model']}, which trained none. "
                "Skip this step, or open a new round."
            )
        return found
    if not is_needed:
        return None
    found = newest_reward_model(base)
    if found is None:
        raise Refused(
            f"Step {step['step']} needs a reward model, and the project has none on {base}. Train one in the same plan."
        )
    return found


def newest_reward_model(base: Checkpoint) -> Checkpoint | None:
    """The project's latest reward model that can be worn by this base: an adapter on it."""
    judges = Checkpoint.objects.filter(
        project=base.project_id, base=base, kind=Checkpoint.Kind.REWARD, all_weights=False
    )
    return judges.order_by("-pk").first()


def refuse_too_little(method: str, dataset: PreferenceDataset) -> None:
    """Raise Refused unless the dataset has enough for `method` to train on and something to measure with."""
    title, form = METHODS[method].title, METHODS[method].reads
    words, remedy = FORM_WORDS[form]
    train, held_out = (dataset.counts.get(f"{split}_{form}", 0) for split in SPLITS)
    if train < FEWEST:
        raise Refused(
            f"{title} learns from {words}. The train split has {train}, and at least {FEWEST} are needed. "
            f"{remedy}, or leave {title} out."
        )
    if held_out == 0:
        raise Refused(
            f"No held-out prompt has {words}, so what {title} learns could not be measured. {remedy} there, or leave "
            "it out."
        )


def open_run(
    *,
    project: Project,
    name: str,
    method: str,
    options: dict[str, Any],
    dataset: PreferenceDataset,
    parent: Checkpoint,
    reward_model: Checkpoint | None,
    seed: int,
    user: User | None,
    round: Round | None = None,
    **fields: Any,
) -> TrainingRun:
    """A queued run and its inputs, or a draft by its `status`. `options` are complete; `parent` is an adapter to go
    on from, or the whole weights to start from.

    `fields` are others of TrainingRun. Call it in a transaction.
    """
    run = TrainingRun.objects.create(
        project=project,
        round=round,
        step=name,
        method=method,
        seed=seed,
        recipe={"options": options, "threads": settings.TRAINING_THREADS or None},
        code_version=code_version(),
        created_by=user,
        **fields,
    )
    write_inputs(run=run, dataset=dataset, parent=parent, reward_model=reward_model)
    what = "run drafted" if run.status == WorkStatus.DRAFT else "run queued"
    record(what, actor=user, project=project.slug, subject=str(run.pk))
    return run


def write_inputs(
    *, run: TrainingRun, dataset: PreferenceDataset, parent: Checkpoint, reward_model: Checkpoint | None
) -> None:
    """Write down what a run reads. Call it in a transaction."""
    inputs = inputs_of(dataset=dataset, parent=parent, reward_model=reward_model)
    for role, read in inputs.items():
        kind = "dataset" if role == RunInput.Role.DATA else "checkpoint"
        RunInput.objects.create(run=run, role=role, **{kind: read})


def inputs_of(
    *, dataset: PreferenceDataset, parent: Checkpoint, reward_model: Checkpoint | None
) -> dict[str, PreferenceDataset | Checkpoint]:
    """What a run reads, in its roles."""
    inputs: dict[str, PreferenceDataset | Checkpoint] = {
        RunInput.Role.DATA: dataset,
        RunInput.Role.BASE: base_of(parent),
    }
    if not parent.is_whole:
        inputs[RunInput.Role.PARENT] = parent
    if reward_model is not None:
        inputs[RunInput.Role.REWARD_MODEL] = reward_model
    return inputs


def refuse_other_content(opened: str, *, had: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raise Conflict when what a launch key has opened is not what is asked for with it now."""
    differs = [name.replace("_", " ") for name, value in asked.items() if had[name] != value]
    if differs:
        raise Conflict(
            f"This launch key was used before and opened {opened}, which differs in {', '.join(differs)} from what is "
            "asked for now. Use a new launch key to open another one."
        )


@transaction.atomic
def cancel_run(*, run: TrainingRun, user: User) -> None:
    """Ask a run to save and stop. One that is over stays as it is."""
    if run.is_over:
        return
    request_cancel(run)
    record("run cancelled", actor=user, project=run.project.slug, subject=str(run.pk))
