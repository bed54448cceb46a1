"""What the training tests need without torch: a base model that is only files, and work done by hand."""

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from annotation.models import Completion, Round
from annotation.services.claims import claim_comparison
from annotation.services.judgments import submit_judgment
from annotation.submissions import Submission
from rankloop.accounts.models import User
from tests.cast import Cast
from tests.training.weights import LAYER, safetensors, write_adapter
from training import store
from training.models import Checkpoint, GenerationJob, TrainingRun, WorkStatus
from training.recipes.options import METHODS
from training.services.checkpoints import register_base, register_policy, register_result
from training.services.rounds import advance_round, launch_round, open_round
from training.services.work import claim_work, end_work

PLAN = [{"method": "reward"}, {"method": "dpo"}]
PROMPTS = 20


def base_folder(folder: Path, *, weights: bytes = b"weights", config: Any = None) -> Path:
    """A folder that looks like a safetensors model."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} if config is None else config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors({f"{LAYER}.weight": (2, 2)}, weights))
    return folder


def add_base(cast: Cast, folder: Path) -> Checkpoint:
    return register_base(project=cast.project, folder=base_folder(folder), name="tiny")


def draft(cast: Cast, base: Checkpoint, **changes: Any) -> Round:
    """A round of two contestants on a base: the plain one and one asked to be brief."""
    contestants = [
        register_policy(checkpoint=base),
        register_policy(checkpoint=base, name="brief", system_prompt="Be brief."),
    ]
    values = {"name": "First", "contestants": contestants, "user": cast.researcher, **changes}
    return open_round(project=cast.project, **values)


def generate(round: Round) -> None:
    """Do a round's queued generation jobs by hand."""
    for job in round.generation_jobs.filter(status=WorkStatus.QUEUED):
        held = claim_work(GenerationJob, job.pk, worker="by hand")
        Completion.objects.bulk_create(
            (
                Completion(
                    prompt=prompt,
                    contestant=contestant,
                    sample_index=round.first_sample + sample,
                    text=f"{contestant.name} {round.first_sample + sample} on {prompt.last_turn}",
                )
                for prompt in round.prompts.all()
                for contestant in job.contestants.all()
                for sample in range(round.samples_per_contestant)
            ),
            ignore_conflicts=True,
        )
        end_work(held, WorkStatus.SUCCEEDED, result={"ok": True})


def rank(cast: Cast, annotators: Sequence[User], **submission: Any) -> int:
    """Every annotator ranks what is left for them, the completion of the lowest id first; how many judgments."""
    made = 0
    for annotator in annotators:
        while (assignment := claim_comparison(project=cast.project, annotator=annotator)) is not None:
            in_order = sorted(assignment.shown_order)
            values = {
                "submission_key": uuid.uuid4(),
                "outcome": "ranked",
                "ranks": [in_order.index(pk) + 1 for pk in assignment.shown_order],
                **submission,
            }
            submit_judgment(assignment=assignment, submission=Submission(**values))
            made += 1
    return made


def train(round: Round, folder: Path) -> None:
    """Do a round's queued runs by hand; each adapter is a file."""
    for run in round.runs.filter(status=WorkStatus.QUEUED).order_by("created_at"):
        held = claim_work(TrainingRun, run.pk, worker="by hand")
        output = write_adapter(folder / str(run.pk), f"{run.step} of {run.round_id}".encode())
        digest = store.publish(output)
        end_work(held, WorkStatus.SUCCEEDED, result={"ok": True})
        register_result(
            run=held,
            kind=METHODS[run.method].makes,
            digest=digest,
            base=run.inputs.get(role="base").checkpoint,
            metrics={"accuracy": 0.7},
        )


def status_of(round: Round) -> str:
    """The status the row has now."""
    round.refresh_from_db()
    return round.status


def advance(round: Round) -> str:
    """Carry a round on once; the status it has then."""
    advance_round(round_id=round.pk)
    return status_of(round)


def launch(round: Round) -> None:
    """Launch a round as whoever opened it."""
    launch_round(round=round, user=round.created_by)


def to_ranking(round: Round) -> None:
    """Take a draft to where annotators rank."""
    launch(round)
    advance(round)
    generate(round)
    assert advance(round) == "ranking", round.failure


def to_training(cast: Cast, round: Round, annotators: Sequence[User] = ()) -> None:
    """Take a draft to where its runs wait for a worker."""
    to_ranking(round)
    rank(cast, annotators or [cast.anna, cast.ben])
    assert advance(round) == "training", round.failure
