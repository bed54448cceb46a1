"""The demo: the whole loop once, on a real model, against the running local stack, with simulated annotators.

Everything goes through the same services as the pages; the work is done by the stack's own workers. Each step can be
run again: a demo that was stopped goes on where it was.
"""

import os
import platform
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from django.conf import settings

from annotation.models import Comparison, Judgment, Project, Round, Slot
from annotation.services.members import add_member, open_project
from annotation.services.prompts import import_prompts
from rankloop.accounts.models import User
from rankloop.errors import Refused
from training.models import Checkpoint, Evaluation, GenerationJob, TrainingRun
from training.services.checkpoints import register_base, register_policy
from training.services.evaluations import win_rate_suite
from training.services.rounds import launch_round, open_next_round, open_round, retry_step
from training.supervisor import dies_with

SLUG = "demo"
STARTER_PROMPTS = Path(__file__).resolve().parents[1] / "annotation" / "starter" / "prompts.jsonl"
SYSTEM_PROMPT = "Answer in one or two short sentences, to the point."
PACKAGES = ("rankloop", "Django", "torch", "transformers", "trl", "peft", "celery", "psycopg")
ROLES = {"admin": "admin", "researcher": "researcher", "anna": "annotator", "ben": "annotator"}
POLL_SECONDS = 0.5

Tell = Callable[[str, int, int], None]


class DemoFailed(Exception):
    """A phase did not succeed. The message says which and why."""


@dataclass(frozen=True)
class Sizes:
    """How large the demo is. The defaults fit two CPU cores and twenty minutes, also without a matrix unit."""

    train_prompts: int = 100
    held_out_prompts: int = 40
    max_new_tokens: int = 56
    annotators: int = 12
    # More judgments of a comparison make more pairs of the same completions, each of which is computed once: they cost
    # no time. About one pass each, over four comparisons a step.
    overlap: int = 4
    reward_options: dict[str, Any] = field(
        default_factory=lambda: {"steps": 24, "batch_size": 96, "micro_batch_size": 96}
    )
    dpo_options: dict[str, Any] = field(
        default_factory=lambda: {"steps": 24, "batch_size": 96, "micro_batch_size": 96}
    )
    ppo_options: dict[str, Any] = field(default_factory=lambda: {"steps": 8, "batch_size": 16, "epochs": 1})


# For tests of the mechanics alone, on a tiny random model.
SMALLEST = Sizes(
    train_prompts=12,
    held_out_prompts=6,
    max_new_tokens=8,
    annotators=3,
    overlap=2,
    reward_options={"steps": 2, "batch_size": 6, "save_steps": 1, "warmup_steps": 0},
    dpo_options={"steps": 2, "batch_size": 6, "save_steps": 1, "warmup_steps": 0},
    ppo_options={
        "steps": 2,
        "batch_size": 4,
        "save_steps": 1,
        "warmup_steps": 0,
        "value_warmup_steps": 0,
        "max_new_tokens": 8,
    },
)
POLICIES = ("dpo", "ppo")


class Demo:
    """One run of the loop. `phases` grows as it goes; `tell(phase, done, of)` is called while a phase lasts."""

    def __init__(self, *, base_url: str, model: Path, sizes: Sizes, tell: Tell) -> None:
        self.base_url = base_url
        self.model = model
        self.sizes = sizes
        self.tell = tell
        self.phases: list[dict[str, Any]] = []
        self.passwords: dict[str, str] = {}

    def run(self) -> dict[str, Any]:
        """The report. Raises DemoFailed."""
        started = time.monotonic()
        with self._phase("project and prompts") as counts:
            self._open_project()
            counts["prompts"] = import_prompts(
                project=self.project, content=STARTER_PROMPTS.read_bytes(), file=STARTER_PROMPTS.name
            ).rows
        with self._phase("base model"):
            base = register_base(project=self.project, folder=self.model, name=self.model.name)
            decoding = {"max_new_tokens": self.sizes.max_new_tokens}
            plain = register_policy(checkpoint=base, decoding=decoding)
            brief = register_policy(
                checkpoint=base,
                name=f"{base.name}, asked to be brief",
                system_prompt=SYSTEM_PROMPT,
                decoding=decoding,
            )
        first = self._open_first_round([plain, brief])
        launch_round(round=first, user=self.researcher)
        self._carry("round 1", first)

        second = open_next_round(round=first)
        if second is None:
            raise DemoFailed("Round 1 trained no policy, so there is nothing to compare.")
        launch_round(round=second, user=self.researcher)
        self._carry("round 2", second)
        with self._phase("open round for people") as counts:
            counts["comparisons"] = self._open_for_people(second)
        return self._report(first, second, time.monotonic() - started)

    # --- phases ---

    @contextmanager
    def _phase(self, name: str) -> Iterator[dict[str, Any]]:
        started = time.monotonic()
        entry: dict[str, Any] = {"name": name, "seconds": 0.0, "ok": False}
        self.phases.append(entry)
        self.tell(name, 0, 0)
        counts: dict[str, Any] = {}
        try:
            yield counts
            entry["ok"] = True
        finally:
            entry.update(counts, seconds=round(time.monotonic() - started, 1))
        self.tell(name, -1, -1)

    def _open_project(self) -> None:
        users = {}
        for name in ROLES:
            user, _ = User.objects.get_or_create(username=name)
            if name == "admin":
                user.is_staff = user.is_superuser = True
            self.passwords[name] = secrets.token_urlsafe(9)
            user.set_password(self.passwords[name])
            user.save()
            users[name] = user
        self.project = Project.objects.filter(slug=SLUG).first() or open_project(
            slug=SLUG,
            name="Demo",
            user=users["admin"],
            description="One turn of the loop on a small real model, ranked by simulated annotators.",
        )
        for name, role in ROLES.items():
            add_member(project=self.project, user=users[name], role=role)
        self.researcher = users["researcher"]

    def _open_round(self, key: str, **asked: Any) -> Round:
        """The demo's round of that key. An earlier demo may have opened it, and with other sizes."""
        launch_key = uuid.uuid5(uuid.NAMESPACE_OID, f"rankloop:demo:{key}")
        known = self.project.rounds.filter(launch_key=launch_key).first()
        return known or open_round(project=self.project, user=self.researcher, launch_key=launch_key, **asked)

    def _open_first_round(self, contestants: list[Any]) -> Round:
        return self._open_round(
            "round-1",
            name="Rehearsal",
            contestants=contestants,
            audience=Round.Audience.REHEARSAL,
            overlap=self.sizes.overlap,
            train_prompts=self.sizes.train_prompts,
            held_out_prompts=self.sizes.held_out_prompts,
            training_plan=[
                {"step": "reward", "method": "reward", "options": self.sizes.reward_options},
                {"step": "dpo", "method": "dpo", "options": self.sizes.dpo_options},
                {"step": "ppo", "method": "ppo", "options": self.sizes.ppo_options},
            ],
        )

    def _carry(self, name: str, round: Round) -> None:
        """Watch the stack carry a round from launch to close, and bring the simulated annotators to its ranking."""
        round.refresh_from_db()
        if round.failure:  # an earlier demo stopped here
            retry_step(round=round, user=self.researcher)
        with self._phase(f"{name}: generating") as counts:
            self._wait(round, Round.Status.GENERATING, name=f"{name}: generating", progress=self._generated)
            counts["completions"] = sum(job.result["metrics"]["made"] for job in round.generation_jobs.all())
        with self._phase(f"{name}: ranking by simulated annotators") as counts:
            self._rehearse(round, f"{name}: ranking by simulated annotators")
            counts["comparisons"] = round.comparisons.count()
            counts["judgments"] = Judgment.objects.filter(comparison__round=round).count()
        for step in round.training_plan:
            phase = f"{name}: {step['step']}"
            with self._phase(phase) as counts:
                run = self._wait_for_run(round, step["step"], phase)
                counts["recipe_seconds"] = run.result.get("seconds")
        with self._phase(f"{name}: evaluating"):
            self._wait(round, Round.Status.EVALUATING, Round.Status.TRAINING, name=f"{name}: evaluating")

    def _wait(
        self,
        round: Round,
        *while_in: str,
        name: str,
        progress: Callable[[Round], tuple[int, int]] | None = None,
    ) -> None:
        while True:
            self._check(round)
            if round.status not in while_in:
                return
            if progress is not None:
                self.tell(name, *progress(round))
            time.sleep(POLL_SECONDS)

    def _check(self, round: Round) -> None:
        round.refresh_from_db()
        if round.failure:
            raise DemoFailed(f"{round.name} stopped while {round.status}. {round.failure}")
        if round.status == Round.Status.CANCELLED:
            raise DemoFailed(f"{round.name} was cancelled.")

    def _wait_for_run(self, round: Round, step: str, phase: str) -> TrainingRun:
        while True:
            self._check(round)
            run = round.runs.filter(step=step).first()
            if run is not None and run.is_over:
                return run
            if run is not None and run.progress:
                self.tell(phase, run.progress["step"], run.progress["of"])
            time.sleep(POLL_SECONDS)

    def _generated(self, round: Round) -> tuple[int, int]:
        jobs = GenerationJob.objects.filter(round=round)
        steps = [job.progress for job in jobs if job.progress]
        return sum(step["step"] for step in steps), sum(step["of"] for step in steps)

    def _rehearse(self, round: Round, phase: str) -> None:
        """Simulated annotators in a process of their own, over HTTP, until the round is ranked."""
        self._check(round)
        if round.status != Round.Status.RANKING:  # an earlier demo came this far
            return
        rehearsal = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).resolve().parents[1] / "manage.py"),
                "rehearse",
                SLUG,
                "--annotators",
                str(self.sizes.annotators),
                "--base-url",
                self.base_url,
                "--idle-seconds",
                "4",
            ],
            stdout=subprocess.DEVNULL,
            preexec_fn=dies_with(os.getpid()),
        )
        slots = Slot.objects.filter(round=round)
        try:
            while True:
                self._check(round)
                if round.status != Round.Status.RANKING:
                    return
                self.tell(phase, slots.filter(state=Slot.State.FILLED).count(), slots.count())
                if rehearsal.poll() not in (None, 0):
                    raise DemoFailed("The simulated annotators could not work; their errors stand above.")
                time.sleep(POLL_SECONDS)
        finally:
            rehearsal.terminate()
            rehearsal.wait()

    def _open_for_people(self, second: Round) -> int:
        """A round for whoever signs in: the same completions, nothing to wait for."""
        people = self._open_round(
            "people",
            name="Your turn: new policy and parent, blind",
            contestants=list(second.contestants.all()),
            samples_per_contestant=second.samples_per_contestant,
            completions_per_comparison=second.completions_per_comparison,
            first_sample=second.first_sample,
            seed=second.seed,
            train_prompts=0,
            held_out_prompts=second.held_out_prompts,
        )
        launch_round(round=people, user=self.researcher)
        name = "open round for people"
        self._wait(people, Round.Status.GENERATING, name=name, progress=self._generated)
        return Comparison.objects.filter(round=people).count()

    # --- report ---

    def _report(self, first: Round, second: Round, seconds: float) -> dict[str, Any]:
        reward = Checkpoint.objects.get(run__round=first, kind=Checkpoint.Kind.REWARD).metrics
        judgments = Judgment.objects.filter(comparison__round__project=self.project)
        simulated = judgments.filter(source=Judgment.Source.REHEARSAL).count()
        return {
            "ok": True,
            "annotators": "simulated",
            "seconds_total": round(seconds, 1),
            "phases": self.phases,
            "prompts": {
                split: self.project.prompts.filter(split=split).count() for split in ("train", "held_out")
            },
            "reward_model": {
                "accuracy": reward["accuracy"],
                "interval": reward["interval"],
                "pairs": reward["pairs"],
                "length_baseline": reward["length_baseline"],
            },
            "policies": {step: self._measured(first, second, step) for step in POLICIES},
            "judgments": {"simulated": simulated, "human": judgments.exclude(source="rehearsal").count()},
            "sizes": asdict(self.sizes),
            "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        }

    def _measured(self, first: Round, second: Round, step: str) -> dict[str, Any]:
        """What the policy of one step reached against its parent in the second round."""
        policy = Checkpoint.objects.get(run__round=first, run__step=step)
        parent = second.contestants.exclude(checkpoints__run__round=first).get()
        found = Evaluation.objects.get(
            contestant=policy.contestants.get(),
            round=second,
            suite=win_rate_suite(against=parent, round=second),
        ).result
        same = ("comparisons", "judgments", "prompts", "annotators", "ties", "all_bad", "against")
        return {
            "win_rate": found["rate"],
            "interval": [found["low"], found["high"]],
            **{name: found[name] for name in same},
        }


def unmet(report: dict[str, Any]) -> list[str]:
    """Which figures are not clear of chance: what keeps a demo from succeeding although every phase ended."""
    reward, policy = report["reward_model"], report["policies"]["dpo"]
    problems = []
    if not reward["interval"][0] > 0.5:
        problems.append(f"The reward model's interval {reward['interval']} is not clear of 0.5.")
    if not policy["interval"][0] > 0.5:
        problems.append(f"The DPO policy's interval {policy['interval']} is not clear of 0.5.")
    return problems


def refuse_outside_local() -> None:
    """The demo makes accounts with printed passwords: never on a production site."""
    if not settings.LOCAL:
        raise Refused("The demo belongs on the local stack. Start it with: python3 deploy/dev.py demo")
