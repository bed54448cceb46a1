"""Filling the database, through the services wherever a service writes it."""

import json
import random
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.utils import timezone

from annotation.models import Assignment, Completion, Membership, Project, Report, Round
from annotation.services.guidelines import mark_guideline_read, publish_guideline
from annotation.services.invitations import open_invitation, revoke_invitation
from annotation.services.judgments import withdraw_judgment
from annotation.services.members import add_member, open_project
from annotation.services.projects import change_settings, pause_project
from annotation.services.prompts import add_prompt, import_prompts
from annotation.services.review import approve_answer, decline_answer, resolve_report
from rankloop.accounts.models import User
from rankloop.accounts.services import open_token, revoke_token
from tests.cast import PASSWORD, Cast, add_simulated, assemble
from tests.showroom import texts
from tests.showroom.drafts import open_drafts
from tests.showroom.judging import judge_all, spread_over_days
from tests.showroom.ranking import rounds_to_rank
from tests.training.stage import add_base, advance
from training import store
from training.models import GenerationJob, RunMetric, TrainingRun, WorkStatus
from training.recipes.options import METHODS, parse_options
from training.services.checkpoints import register_policy, register_result
from training.services.rounds import cancel_round, launch_round, open_round
from training.services.runs import open_run
from training.services.work import claim_work, end_work, write_held
from training.worker import attempt_folder

TARGETS = ["q_proj", "v_proj"]
_PAIRS = {
    "accuracy": 0.71,
    "interval": [0.58, 0.83],
    "pairs": 38,
    "loss": 0.611,
    "margin": 0.42,
    "at_start": {"accuracy": 0.47},
    "length_baseline": {"accuracy": 0.66, "interval": [0.52, 0.79], "prefers": "shorter"},
    "steps": 60,
}
# What runs of a method measured in the end.
RESULTS: dict[str, dict[str, Any]] = {
    "reward": {
        **_PAIRS,
        "human_ceiling": {"agreement": 0.79, "interval": [0.7, 0.87], "accuracy": 0.73},
        "calibration_error": 0.043,
    },
    "dpo": _PAIRS,
    "ppo": {
        "win_rate": 0.64,
        "interval": [0.52, 0.75],
        "prompts": 40,
        "reward": 0.91,
        "parent_reward": 0.12,
        "best_of_4_reward": 1.04,
        "best_of_4_win_rate": 0.81,
        "kl": 6.4,
        "length": 24.2,
        "finished_share": 0.93,
        "repetition": 0.02,
        "at_start": {"win_rate": 0.5, "kl": 0.0},
        "stopped": "the KL to the reference reached 26.1 at step 60",
        "steps": 60,
    },
}
LONG_NAME = "maximiliana.featherstonehaugh-cholmondeley"
STARTER = Path(__file__).resolve().parents[2] / "annotation" / "starter" / "prompts.jsonl"


@dataclass
class Room:
    """What the list of pages needs to know."""

    cast: Cast
    empty: Project
    paused: Project
    people: dict[str, User] = field(default_factory=dict)
    rounds: dict[str, Round] = field(default_factory=dict)
    runs: dict[str, TrainingRun] = field(default_factory=dict)
    invitation: str = ""
    closed_invitation: str = ""

    @property
    def project(self) -> Project:
        return self.cast.project

    @property
    def tireless(self) -> User:
        """Whoever has already worked in the open rounds."""
        return self.people[LONG_NAME]

    def named(self, *names: str) -> list[User]:
        return [self.people[name] for name in names]


def fill(folder: Path) -> Room:
    """Fill an empty database; `folder` takes the files of a base model. Returns what is where."""
    cast, draw = assemble(), random.Random(4)
    cast.admin.is_staff = True
    cast.admin.save()
    empty = open_project(slug="empty", name="A project that has just been opened", user=cast.admin)
    paused = open_project(slug="paused", name="Paused over the holidays", user=cast.admin)
    room = Room(cast, empty, paused)
    _let_people_in(room)
    _set_up(room)
    # While these are the only prompts, rounds ask them all.
    for question, *_ in texts.QUESTIONS:
        add_prompt(project=cast.project, user=cast.researcher, prompt=question, tags=["everyday"])
    _first_round(room, folder, draw)
    _round_in_trouble(room, folder, draw)
    _runs_by_hand(room, folder, draw)
    import_prompts(
        project=cast.project, content=STARTER.read_bytes(), file=STARTER.name, user=cast.researcher
    )
    _round_being_written(room)
    _cancelled_rehearsal(room)
    spread_over_days()
    rounds_to_rank(room)
    dataset = room.rounds["closed"].datasets.get()
    base = cast.project.checkpoints.get(kind="base")
    room.runs |= open_drafts(cast.project, cast.researcher, dataset, base)
    _review(room)
    pause_project(project=paused, user=cast.admin)
    return room


def _let_people_in(room: Room) -> None:
    cast, project = room.cast, room.project
    for name in ("chloe", "dina", "emeka", "fatima", LONG_NAME):
        room.people[name] = User.objects.create_user(name, password=PASSWORD)
        add_member(project=project, user=room.people[name], role=Membership.Role.ANNOTATOR, by=cast.admin)
    room.people |= {"anna": cast.anna, "ben": cast.ben}
    for other in (room.empty, room.paused):
        add_member(project=other, user=cast.anna, role=Membership.Role.ANNOTATOR, by=cast.admin)
        add_member(project=other, user=cast.researcher, role=Membership.Role.RESEARCHER, by=cast.admin)
    add_simulated(cast)
    _, room.invitation = open_invitation(
        project=project, user=cast.admin, role="annotator", days=7, places=20
    )
    open_invitation(project=project, user=cast.admin, role="reviewer", days=1)
    revoked, room.closed_invitation = open_invitation(project=project, user=cast.admin, role="researcher")
    revoke_invitation(invitation=revoked, user=cast.admin)
    for name in ("nightly export", "notebook on the large machine, for comparisons by language"):
        open_token(user=cast.researcher, name=name)
    open_token(user=cast.researcher, name="old laptop")
    revoke_token(user=cast.researcher, token_id=cast.researcher.api_tokens.get(name="old laptop").pk)


def _set_up(room: Room) -> None:
    """Settings with everything switched on, and a guideline that has changed since it was read."""
    admin, project = room.cast.admin, room.project
    changed = change_settings(
        project=project,
        user=admin,
        name="Everyday questions",
        description="Short, practical questions from a household. Answers should be right first, brief second.",
        aspects=["helpfulness", "honesty", "tone"],
        lease_minutes=240,
        max_prompt_tokens=512,
    )
    room.cast.project = changed
    for text in (texts.GUIDELINE_BEFORE, texts.GUIDELINE):
        based_on = project.guidelines.count()
        publish_guideline(project=project, user=admin, text=text, based_on=based_on)
        if text is texts.GUIDELINE_BEFORE:
            for user in (room.cast.anna, room.cast.ben):
                mark_guideline_read(project=project, user=user, version=based_on + 1)


def _review(room: Room) -> None:
    """Some of what people wrote and reported has been decided."""
    reviewer = room.cast.reviewer
    written = Completion.objects.filter(review=Completion.Review.WAITING).order_by("pk")
    for answer in written[:2]:
        approve_answer(answer=answer, reviewer=reviewer)
    decline_answer(answer=written[0], reviewer=reviewer, note="The last sentence says nothing.")
    report = Report.objects.order_by("pk").first()
    resolve_report(report=report, user=reviewer, note="The street is made up; nothing to take out.")


# --- rounds that were ranked and trained ---


def _first_round(room: Room, folder: Path, draw: random.Random) -> None:
    """Closed: ranked by three people, frozen, trained; its policy waits in a draft."""
    cast = room.cast
    base = add_base(cast, folder / "base")
    brief = "Answer in one or two short sentences."
    contestants = [
        register_policy(checkpoint=base, name="plain"),
        register_policy(checkpoint=base, name="asked to be brief", system_prompt=brief),
    ]
    round = _launched(room, "First round", contestants, overlap=3)
    judge_all(room.project, room.named("anna", "ben", "chloe"), draw)
    assert advance(round) == "training", round.failure
    for run in round.runs.order_by("created_at"):
        room.runs[run.method] = _trained(run, folder, draw)
    assert advance(round) == "closed", round.failure
    room.rounds["closed"] = round
    room.rounds["draft"] = room.project.rounds.get(status=Round.Status.DRAFT)
    # Taken back after the dataset was frozen.
    taken_back = cast.ben.assignments.filter(state=Assignment.State.SUBMITTED).order_by("claimed_at")[3]
    withdraw_judgment(
        assignment=taken_back, submission_key=uuid.uuid4(), reason="I had misread the question."
    )


def _round_in_trouble(room: Room, folder: Path, draw: random.Random) -> None:
    """Training: one run has failed, and the round waits for somebody to decide. Another one is still running."""
    contestants = list(room.rounds["closed"].contestants.order_by("pk"))
    for name, title, names in (
        ("trouble", "The same questions, asked anew", ("anna", "ben")),
        ("training", "With fresh eyes", ("dina", "emeka")),
    ):
        round = _launched(room, title, contestants)
        judge_all(room.project, room.named(*names), draw)
        assert advance(round) == "training", round.failure
        reward, dpo = round.runs.order_by("created_at")
        _trained(reward, folder, draw)
        held = _begun(dpo, draw, steps=24)
        if name == "trouble":
            error = (
                "The loss became nan at step 24. Lower the learning rate (0.0005 now), or raise the warm-up."
            )
            end_work(held, WorkStatus.FAILED, error=error)
            advance(round)
        else:
            write_held(held, lease_until=timezone.now() + timedelta(hours=4))
        room.rounds[name], room.runs[name] = round, dpo


def _launched(room: Room, name: str, contestants: Sequence[Any], **settings: Any) -> Round:
    """A round of pairs in ranking, its completions written."""
    round = open_round(
        project=room.project,
        user=room.cast.researcher,
        name=name,
        contestants=contestants,
        training_plan=[{"method": "reward"}, {"method": "dpo"}],
        completions_per_comparison=2,
        samples_per_contestant=1,
        **settings,
    )
    launch_round(round=round, user=room.cast.researcher)
    advance(round)
    job = claim_work(GenerationJob, round.generation_jobs.get().pk, worker="generation@box")
    answers = {question: two for question, *two in texts.QUESTIONS}
    Completion.objects.bulk_create(
        Completion(
            prompt=prompt,
            contestant=contestant,
            sample_index=round.first_sample,
            text=answers[prompt.last_turn][index]
            + ("" if round.number == 1 else "\n\nThat is all there is to it."),
        )
        for prompt in round.prompts.all()
        for index, contestant in enumerate(contestants)
    )
    end_work(
        job,
        WorkStatus.SUCCEEDED,
        result={"completions": 24},
        progress={"step": 24, "of": 24, "phase": "done"},
    )
    _say(job)
    assert advance(round) == "ranking", round.failure
    return round


def _begun(run: TrainingRun, draw: random.Random, *, steps: int) -> TrainingRun:
    """A run that a worker holds, with its curves and its log so far."""
    held = claim_work(TrainingRun, run.pk, worker="training@box")
    rows = []
    for step in range(2, steps + 1, 2):
        rows += [("loss", step, 0.69 - 0.004 * step + draw.uniform(-0.02, 0.02))]
        rows += [("accuracy", step, min(1.0, 0.5 + 0.005 * step + draw.uniform(-0.05, 0.05)))]
        rows += [("margin", step, 0.01 * step + draw.uniform(-0.05, 0.05))]
        if step % 20 == 0:
            rows += [
                ("held_out/accuracy", step, 0.5 + 0.003 * step),
                ("held_out/loss", step, 0.69 - 0.002 * step),
            ]
    RunMetric.objects.bulk_create(
        RunMetric(run=held, attempt=held.attempt, step=step, name=name, value=value)
        for name, step, value in rows
    )
    write_held(held, progress={"step": steps, "of": 60, "phase": "training"})
    _say(held)
    return held


def _trained(run: TrainingRun, folder: Path, draw: random.Random) -> TrainingRun:
    """A run that has published its adapter."""
    held = _begun(run, draw, steps=60)
    output = folder / str(run.pk)
    output.mkdir(parents=True)
    write_adapter(output, run)
    metrics = RESULTS[run.method]
    end_work(held, WorkStatus.SUCCEEDED, result={"ok": True, "metrics": metrics})
    kind, base = METHODS[run.method].makes, run.inputs.get(role="base").checkpoint
    register_result(run=held, kind=kind, digest=store.publish(output), base=base, metrics=metrics)
    return held


def write_adapter(folder: Path, run: TrainingRun) -> None:
    """A LoRA adapter's files, with the heads that pages read; its weights are zeros."""
    layers = [f"base_model.model.model.layers.{n}.self_attn.{name}" for n in range(2) for name in TARGETS]
    shapes = {
        f"{layer}.lora_{side}.weight": s for layer in layers for side, s in (("A", (16, 64)), ("B", (64, 16)))
    }
    header, end = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + 4096]}
        end += 4096
    text = json.dumps({"__metadata__": {"run": str(run.pk)}, **header}).encode()
    weights = len(text).to_bytes(8, "little") + text + bytes(end)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 16,
        "lora_alpha": 32,
        "target_modules": TARGETS,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def _runs_by_hand(room: Room, folder: Path, draw: random.Random) -> None:
    """PPO that ended early after memory ran out once; two runs that wait, one of them before its turn."""
    dpo = room.runs["dpo"]
    data, base = (dpo.inputs.get(role=role) for role in ("data", "base"))
    judge = room.runs["reward"].checkpoint

    def opened(method: str, name: str, **fields: Any) -> TrainingRun:
        options = asdict(parse_options(method, fields.pop("options", {})))
        return open_run(
            project=room.project,
            name=name,
            method=method,
            options=options,
            dataset=data.dataset,
            parent=base.checkpoint,
            reward_model=judge if method == "ppo" else None,
            seed=1,
            user=room.cast.researcher,
            **fields,
        )

    run = opened("ppo", "ppo_on_everyday", halvings=1, options={"kl_target": 4.0, "learning_rate": 0.0002})
    room.runs["ppo"] = _trained(run, folder, draw)
    for step in range(0, 61, 20):
        for name, value in {
            "win_rate": 0.5 + step / 400,
            "win_rate_low": 0.4 + step / 400,
            "kl": step / 10,
        }.items():
            RunMetric.objects.create(run=run, attempt=1, step=step, name=f"held_out/{name}", value=value)
        high = 0.6 + step / 400
        RunMetric.objects.create(run=run, attempt=1, step=step, name="held_out/win_rate_high", value=high)
    RunMetric.objects.bulk_create(
        RunMetric(run=run, attempt=1, step=step, name=name, value=value)
        for step in range(1, 61)
        for name, value in {
            "reward": step / 60 + draw.uniform(-0.2, 0.2),
            "kl": step / 8 + draw.uniform(0, 1),
            "kl_coefficient": 0.05 + step / 2000,
            "length": 40 - step / 4 + draw.uniform(-3, 3),
            "policy_loss": draw.uniform(-0.02, 0.02),
            "value_loss": 0.4 / step,
            "grad_norm": draw.uniform(0.2, 0.9),
            "learning_rate": 2e-4,
        }.items()
    )
    _write_samples(room.runs["ppo"], draw)
    opened("dpo", "dpo_robust", options={"loss": "robust", "flipped_share": 0.1})
    opened("kto", "kto_before_lunch", priority=2, duplicate_of=dpo)


def _write_samples(run: TrainingRun, draw: random.Random) -> None:
    """What a policy wrote before and after: full answers, then brief ones."""
    folder = attempt_folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "held_out.jsonl").open("w") as prompts, (folder / "samples.jsonl").open("w") as samples:
        for number, (question, full, brief) in enumerate(texts.QUESTIONS):
            asked = {"prompt_id": number, "prompt": [{"role": "user", "content": question}]}
            prompts.write(json.dumps(asked) + "\n")
            for step, text in ((0, full), (60, brief)):
                said = {"step": step, "prompt_id": str(number), "text": text}
                samples.write(json.dumps(said | {"reward": step / 50 + draw.uniform(-1, 1)}) + "\n")


def _say(work: Any) -> None:
    folder = attempt_folder(work)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.txt").write_text(texts.LOG)


def _round_being_written(room: Room) -> None:
    """Generating: a worker is half-way through."""
    round = open_round(
        project=room.project,
        user=room.cast.researcher,
        name="Two hundred new prompts",
        contestants=list(room.rounds["draft"].contestants.order_by("pk")),
        deadline=timezone.now() + timedelta(days=9),
    )
    launch_round(round=round, user=room.cast.researcher)
    advance(round)
    job = claim_work(GenerationJob, round.generation_jobs.get().pk, worker="generation@box")
    progress = {"step": 160, "of": 560, "phase": "sampling"}
    write_held(job, progress=progress, lease_until=timezone.now() + timedelta(hours=4))
    _say(job)
    room.rounds["generating"] = round


def _cancelled_rehearsal(room: Room) -> None:
    contestants = list(room.rounds["closed"].contestants.order_by("pk"))
    round = open_round(
        project=room.project,
        user=room.cast.researcher,
        name="Rehearsal before the people come",
        contestants=contestants,
        audience=Round.Audience.REHEARSAL,
    )
    launch_round(round=round, user=room.cast.researcher)
    cancel_round(round=round, user=room.cast.researcher)
    room.rounds["cancelled"] = round
