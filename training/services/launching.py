"""Launching a run by hand: a draft, a look at what it would become, then the launch.

A draft is a TrainingRun that no worker takes. `findings` is empty until it was looked over
(training/looking_over.py), and empty again once something of it is changed, so that what is launched is what was
looked at.
"""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from django.db import transaction
from django.utils import timezone

from annotation.models import Project, Round
from rankloop.accounts.models import User
from rankloop.audit.services import record
from rankloop.errors import Conflict, Refused
from training.models import Checkpoint, PreferenceDataset, RunInput, TrainingRun, WorkStatus
from training.plans import needs_reward_model, why_no_reward_model
from training.recipes.findings import CUT_WITHOUT_ASKING
from training.recipes.fitting import refuse_full_from_adapter, refuse_unfit
from training.recipes.options import METHODS, parse_options
from training.recipes.run_dir import RecipeError
from training.services.runs import (
    base_of,
    inputs_of,
    open_run,
    refuse_other_content,
    refuse_too_little,
    write_inputs,
)
from training.services.snapshots import NO_FILTERS, Filters, snapshot_rounds

Role = RunInput.Role


def chosen_dataset(
    *,
    project: Project,
    dataset: PreferenceDataset | None,
    rounds: Sequence[Round],
    user: User,
    filters: Filters = NO_FILTERS,
) -> PreferenceDataset:
    """The dataset, or one that is frozen now from the judgments of some rounds. Raises Refused for both or neither."""
    if (dataset is None) == (not rounds):
        raise Refused("Choose what to learn from: one dataset, or rounds to freeze a new one from.")
    if dataset is not None and filters:
        raise Refused(
            "A dataset never changes, so nothing can be left out of it. Freeze a new one from rounds."
        )
    return dataset or snapshot_rounds(project=project, rounds=rounds, user=user, filters=filters)


@transaction.atomic
def open_draft(
    *,
    project: Project,
    user: User,
    method: str,
    dataset: PreferenceDataset,
    parent: Checkpoint,
    reward_model: Checkpoint | None = None,
    options: dict[str, Any] | None = None,
    name: str = "",
    seed: int = 0,
    launch_key: uuid.UUID | None = None,
    duplicate_of: TrainingRun | None = None,
) -> TrainingRun:
    """A new draft. With a launch key that was used before, that run: two submits make one.

    `parent` is what training goes on from, or the base itself. Raises Refused naming what can't work, and the remedy;
    Conflict when the run of the launch key is not what is asked for now.
    """
    # One after the other within a project, so that a key is looked up before it is used.
    Project.objects.select_for_update().get(pk=project.pk)
    chosen = _checked(project, method, options or {}, dataset, parent, reward_model)
    name, seed = _checked_name(name or method), _checked_seed(seed)
    known = project.runs.filter(launch_key=launch_key).first() if launch_key else None
    if known is not None:
        inputs = inputs_of(dataset=dataset, parent=parent, reward_model=reward_model)
        asked = {"method": method, "options": chosen, "seed": seed, "name": name, "inputs": inputs}
        refuse_other_content(f"the run {known}", had=_content(known), asked=asked)
        return known
    return open_run(
        project=project,
        name=name,
        method=method,
        options=chosen,
        dataset=dataset,
        parent=parent,
        reward_model=reward_model,
        seed=seed,
        user=user,
        status=WorkStatus.DRAFT,
        launch_key=launch_key,
        duplicate_of=duplicate_of,
    )


def _content(run: TrainingRun) -> dict[str, Any]:
    """What a run was asked to be."""
    inputs = run.inputs.select_related("checkpoint", "dataset")
    return {
        "method": run.method,
        "options": run.recipe["options"],
        "seed": run.seed,
        "name": run.step,
        "inputs": {item.role: item.checkpoint or item.dataset for item in inputs},
    }


@transaction.atomic
def change_draft(
    *,
    run: TrainingRun,
    user: User,
    dataset: PreferenceDataset,
    parent: Checkpoint,
    reward_model: Checkpoint | None,
    options: dict[str, Any],
    name: str,
    seed: int,
) -> TrainingRun:
    """Everything of a draft but its method. What was found is forgotten. Raises Refused, and Conflict once launched."""
    locked = _locked(run)
    if locked.status != WorkStatus.DRAFT:
        raise Conflict("This run is launched already. Duplicate it, and change the duplicate.")
    chosen = _checked(locked.project, locked.method, options, dataset, parent, reward_model)
    locked.step, locked.seed = _checked_name(name or locked.method), _checked_seed(seed)
    locked.recipe = {**locked.recipe, "options": chosen}
    locked.findings, locked.lease_until, locked.progress = {}, None, {}
    locked.save()
    locked.inputs.all().delete()
    write_inputs(run=locked, dataset=dataset, parent=parent, reward_model=reward_model)
    record("draft changed", actor=user, project=locked.project.slug, subject=str(locked.pk))
    return locked


@transaction.atomic
def check_draft(*, run: TrainingRun) -> None:
    """Forget what was found, so that the draft is looked over anew. Raises Conflict once it is launched."""
    drafts = TrainingRun.objects.filter(pk=run.pk, status=WorkStatus.DRAFT)
    if drafts.update(findings={}, lease_until=None, progress={}) != 1:
        raise Conflict("This run is launched already, so there is nothing to look over.")


@transaction.atomic
def launch_draft(
    *, run: TrainingRun, user: User, accept_truncation: bool = False, looked_at: str | None = None
) -> TrainingRun:
    """Queue a draft. Launched already: nothing happens.

    `looked_at` is the `of` of the findings that whoever launches has seen; others are a Conflict. Raises Refused when
    it was not looked over, when something forbids it, or when too much is cut and that is not accepted.
    """
    locked = _locked(run)
    if locked.status in (WorkStatus.CANCELLED, WorkStatus.FAILED) and locked.attempt == 0:
        raise Conflict("This draft was put away. Open a new one.")
    if locked.status != WorkStatus.DRAFT:
        return locked
    found = locked.findings
    if not found:
        raise Refused(
            "The run has not been looked over yet. Wait until it was, or have it looked over again."
        )
    if found["of"] != fingerprint(locked) or (looked_at is not None and looked_at != found["of"]):
        raise Conflict("The run was changed since it was looked over. Look at what was found anew.")
    if found["problems"]:
        first = found["problems"][0]
        raise Refused(f"{first['what']} {first['remedy']}")
    if found["cut_share"] > CUT_WITHOUT_ASKING and not accept_truncation:
        raise Refused(
            f"{found['cut_share']:.1%} of the rows would be truncated or dropped. Accept that, or raise max_length."
        )
    # Compare-and-set: a change that came in between has emptied the findings.
    launched = TrainingRun.objects.filter(pk=run.pk, status=WorkStatus.DRAFT, findings=found)
    if (
        launched.update(status=WorkStatus.QUEUED, lease_until=None, progress={}, created_at=timezone.now())
        == 1
    ):
        record(
            "run launched",
            actor=user,
            project=locked.project.slug,
            subject=str(run.pk),
            cut_share=round(found["cut_share"], 4),
        )
    locked.refresh_from_db()
    return locked


def fingerprint(run: TrainingRun) -> str:
    """What a look-over looks at, as a digest: method, options, seed and inputs."""
    inputs = sorted(run.inputs.values_list("role", "checkpoint", "dataset"))
    looked_at = [run.method, run.recipe["options"], run.seed, inputs]
    return hashlib.sha256(json.dumps(looked_at, sort_keys=True).encode()).hexdigest()


def next_draft() -> TrainingRun | None:
    """The oldest draft that was not looked over, while nobody looks one over: one at a time, for others wait too."""
    drafts = TrainingRun.objects.filter(status=WorkStatus.DRAFT, findings={})
    if drafts.filter(lease_until__gt=timezone.now()).exists():
        return None
    return drafts.order_by("created_at").first()


@transaction.atomic
def write_findings(*, run: TrainingRun, of: str, findings: dict[str, Any]) -> bool:
    """Keep what was found for a draft that is still what was looked at; false when it has moved on.

    `run` has the lease of whoever looked it over: what another one looks over by now is theirs.
    """
    locked = _locked(run)
    is_held = locked.status == WorkStatus.DRAFT and locked.lease_until == run.lease_until
    if not is_held or fingerprint(locked) != of:
        return False
    TrainingRun.objects.filter(pk=run.pk).update(
        findings={**findings, "of": of, "at": timezone.now().isoformat()}, lease_until=None, progress={}
    )
    return True


def _locked(run: TrainingRun) -> TrainingRun:
    return TrainingRun.objects.select_for_update(of=("self",)).select_related("project").get(pk=run.pk)


# --- what is refused at once ---


def _checked(
    project: Project,
    method: str,
    options: dict[str, Any],
    dataset: PreferenceDataset,
    parent: Checkpoint,
    reward_model: Checkpoint | None,
) -> dict[str, Any]:
    """The options, complete; Refused when they or the inputs don't fit the method."""
    if method not in METHODS:
        raise Refused(f"Unknown method {method!r}. Known are {', '.join(METHODS)}.")
    try:
        chosen = parse_options(method, options)
        refuse_unfit(chosen)
        if not parent.is_whole:
            refuse_full_from_adapter(chosen)
    except RecipeError as error:
        raise Refused(str(error)) from None
    for what in (dataset, parent, reward_model):
        if what is not None and what.project_id != project.pk:
            raise Refused(f"{what} belongs to another project.")
    complete = asdict(chosen)
    _check_checkpoints(method, complete, parent, reward_model)
    if (
        METHODS[method].reads == "pairs"
        and dataset.counts.get("tied_pairs")
        and not dataset.counts.get("train_pairs")
    ):
        raise Refused(
            f"{METHODS[method].title} learns from pairs of which one was preferred, and in this dataset every "
            "comparison of the train split is a tie. Rank more, or choose another dataset."
        )
    refuse_too_little(method, dataset)
    return complete


def _check_checkpoints(
    method: str, options: dict[str, Any], parent: Checkpoint, reward_model: Checkpoint | None
) -> None:
    title, makes = METHODS[method].title, METHODS[method].makes
    # A reward model starts on any whole weights that write, for a policy that goes on from them to learn from it.
    starts = parent.is_whole and parent.kind != Checkpoint.Kind.REWARD
    if not starts and parent.kind != makes:
        raise Refused(
            f"{title} can't go on from {parent}, which is a {parent.get_kind_display().lower()} checkpoint. "
            f"Choose a base or a {makes} checkpoint."
        )
    if reward_model is None:
        if needs_reward_model(method, options):
            raise Refused(f"{title} learns from a reward model's scores. Choose one, or another reward.")
        return
    if useless := why_no_reward_model(method, options):
        raise Refused(useless)
    if reward_model.kind != Checkpoint.Kind.REWARD:
        raise Refused(
            f"{reward_model} is no reward model. Choose one that was trained by the method “reward”."
        )
    if reward_model.all_weights:
        raise Refused(
            f"The reward model {reward_model} is a whole model, and {title} holds one base in memory that policy and "
            "reward model share as adapters. Choose one that was trained with weights set to lora."
        )
    if base_of(reward_model).digest != base_of(parent).digest:
        raise Refused(
            f"The reward model {reward_model} stands on {base_of(reward_model)} and the policy on {base_of(parent)}: "
            "they read other tokens. Choose a reward model on the same base."
        )


def _checked_name(name: str) -> str:
    name = " ".join(name.split())
    if not 1 <= len(name) <= 40 or not name.isprintable():
        raise Refused("The name must be a line of 1 to 40 characters.")
    return name


def _checked_seed(seed: int) -> int:
    if not 0 <= seed < 2**31:
        raise Refused(f"The seed is {seed}: give a whole number from 0 to {2**31 - 1}.")
    return seed
