"""Registering checkpoints, and the contestants they become."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from annotation.models import Contestant, Project
from annotation.services.contestants import register_contestant
from rankloop.audit.services import record
from rankloop.errors import Refused
from training import store
from training.models import Checkpoint, CheckpointContestant, RunInput, TrainingRun
from training.recipes.model_folders import check_adapter, check_model
from training.recipes.run_dir import RecipeError

# What a contestant samples with unless it is asked otherwise: the policy's own distribution.
DEFAULT_DECODING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 256}
BRIEF = "Answer in one or two short sentences, to the point."


def check_model_folder(folder: Path) -> None:
    """Raise Refused unless the folder holds a model that can be loaded without running any of its code."""
    if not folder.is_dir():
        raise Refused(f"{folder} is not a folder. Name the folder that holds config.json and the weights.")
    if not (folder / "tokenizer.json").is_file():
        raise Refused(f"{folder} has no tokenizer.json. Save the model with save_pretrained() first.")
    try:
        check_model(folder)
    except RecipeError as error:
        raise Refused(str(error)) from None


def check_trained(folder: Path, *, base: Path, all_weights: bool = False) -> None:
    """Raise Refused unless the folder holds what a run on this base publishes: an adapter that fits it, or a model."""
    if all_weights:
        check_model_folder(folder)
        return
    try:
        check_adapter(folder, base)
    except RecipeError as error:
        raise Refused(str(error)) from None


def register_base(*, project: Project, folder: Path, name: str) -> Checkpoint:
    """Publish a base model's folder and register it. Again with the same weights: the same row.

    Raises Refused for a folder that is not a safetensors model, or a name that other weights have.
    """
    check_model_folder(folder)
    digest = store.publish(folder, about={"kind": "base"})
    checkpoint, created = Checkpoint.objects.get_or_create(
        project=project, name=name, defaults={"kind": Checkpoint.Kind.BASE, "digest": digest}
    )
    if not created and checkpoint.digest != digest:
        raise Refused(f"The name {name!r} belongs to other weights, and names are permanent. Choose another.")
    return checkpoint


@transaction.atomic
def register_policy(
    *,
    checkpoint: Checkpoint,
    name: str | None = None,
    system_prompt: str = "",
    decoding: dict[str, Any] | None = None,
) -> Contestant:
    """The contestant of this checkpoint, system prompt and decoding. Raises Refused for a reward model."""
    if checkpoint.kind == Checkpoint.Kind.REWARD:
        raise Refused(f"{checkpoint} is a reward model: it judges and does not write.")
    contestant = register_contestant(
        project=checkpoint.project,
        name=name or checkpoint.name,
        weights=checkpoint.digest,
        system_prompt=system_prompt,
        decoding={**DEFAULT_DECODING, **(decoding or {})},
    )
    CheckpointContestant.objects.get_or_create(checkpoint=checkpoint, contestant=contestant)
    return contestant


def register_default(*, project: Project) -> Checkpoint:
    """The installation's default model with two contestants, plain and asked to be brief: enough for a first round.

    Again: the same rows. Raises Refused when the model is not there, or its name belongs to other weights.
    """
    folder = settings.DEFAULT_MODEL
    base = register_base(project=project, folder=folder, name=folder.name)
    register_policy(checkpoint=base)
    register_policy(checkpoint=base, name=f"{base.name}, asked to be brief", system_prompt=BRIEF)
    return base


def checkpoint_of(contestant: Contestant) -> Checkpoint:
    """A checkpoint whose weights the contestant writes with; any one, as their content is equal.

    Raises Refused for a contestant that no checkpoint stands behind (a person, an import).
    """
    checkpoint = contestant.checkpoints.order_by("pk").first()
    if checkpoint is None:
        raise Refused(f"{contestant} has no checkpoint, so it can't generate completions.")
    return checkpoint


def register_result(
    *, run: TrainingRun, kind: str, digest: str, base: Checkpoint, metrics: dict[str, Any]
) -> Checkpoint:
    """The checkpoint of a finished run; called in the transaction that ends the run, once for each run.

    A policy that was trained by hand becomes a contestant at once, with the decoding of the one it went on from: the
    next round that is launched can have it ranked. That of a round does so when the round closes.
    """
    name = f"round-{run.round.number}-{run.step}" if run.round else f"{run.step}-{str(run.pk)[:8]}"
    checkpoint = Checkpoint.objects.create(
        project=run.project,
        name=name,
        kind=kind,
        digest=digest,
        base=base,
        all_weights=run.trains_all_weights,
        run=run,
        metrics=metrics,
    )
    record("checkpoint registered", actor=None, project=run.project.slug, subject=name, digest=digest)
    if run.round is None and kind == Checkpoint.Kind.POLICY:
        _enter(checkpoint)
    return checkpoint


def _enter(policy: Checkpoint) -> None:
    """Make a contestant of a policy like the plainest one of what it went on from."""
    origins = RunInput.objects.filter(run=policy.run, role__in=[RunInput.Role.PARENT, RunInput.Role.BASE])
    origin = origins.order_by("role").last()  # the parent, else the base
    plain = origin.checkpoint.contestants.order_by("system_prompt", "pk").first() if origin else None
    if plain is None:
        register_policy(checkpoint=policy)
    else:
        register_policy(checkpoint=policy, system_prompt=plain.system_prompt, decoding=plain.decoding)
