"""The stage of `bench_faults`: a throw-away database that notes who writes what, a tiny model, data for every method.

Nothing here knows of kills. The environment is made by `open_stage`, before anything of Django is imported.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from deploy.local.postgres import throwaway

ROOT = Path(__file__).resolve().parents[2]
LEASE_SECONDS = 3
STEPS = 16
OPTIONS = {
    "steps": STEPS,
    "save_steps": 1,
    "warmup_steps": 0,
    "batch_size": 4,
    "micro_batch_size": 4,
    "learning_rate": 0.01,
    "group_size": 2,
    "value_warmup_steps": 1,
    "max_new_tokens": 6,
    "reward": "required_words",
    "required_words": ",".join("!?.;:+-*/=<>()[]{}#$%&@^_|~"),  # such as random bytes hold
}
# PPO learns from a reward model, the others that sample from a check: both ways are trodden.
OF_METHOD = {"ppo": {"reward": "reward_model"}}

# Every write of a worker is legitimate when it claims, or holds what it writes to. All else is noted.
NOTING = """
CREATE TABLE noted (what text, who text, run uuid, at timestamptz DEFAULT now());
CREATE FUNCTION note_run() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE me text := current_setting('application_name');
BEGIN
  IF me LIKE '%:%'
    AND NOT (OLD.status = 'queued' AND NEW.status = 'running' AND NEW.attempt = OLD.attempt + 1)
    AND NOT (OLD.status IN ('running', 'cancelling') AND left(OLD.worker, 63) = me)
  THEN INSERT INTO noted (what, who, run) VALUES ('stale', me, OLD.id); END IF;
  IF NEW.status = 'succeeded' AND OLD.status <> 'succeeded'
  THEN INSERT INTO noted (what, who, run) VALUES ('succeeded', me, OLD.id); END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER note_run BEFORE UPDATE ON training_trainingrun FOR EACH ROW EXECUTE FUNCTION note_run();
CREATE FUNCTION note_result() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE me text := current_setting('application_name');
DECLARE held training_trainingrun%ROWTYPE;
BEGIN
  SELECT * INTO held FROM training_trainingrun WHERE id = NEW.run_id;
  IF me LIKE '%:%' AND (left(held.worker, 63) <> me OR held.status NOT IN ('running', 'cancelling', 'succeeded'))
  THEN INSERT INTO noted (what, who, run) VALUES ('stale', me, NEW.run_id); END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER note_metric BEFORE INSERT ON training_runmetric FOR EACH ROW EXECUTE FUNCTION note_result();
CREATE TRIGGER note_checkpoint BEFORE INSERT ON training_checkpoint FOR EACH ROW EXECUTE FUNCTION note_result();
"""


@dataclass
class Stage:
    """What every run of the benchmark shares. `judge` is set once the reward model is there."""

    home: Path
    cast: Any
    base: Any
    dataset: Any
    judge: Any = None
    weights: dict[str, bytes] = field(default_factory=dict)  # by method, of an undisturbed run

    def queue(self, method: str, name: str, **values: Any) -> Any:
        """A queued run of `method`; every run of a method is the same training."""
        from training.models import TrainingRun
        from training.recipes.options import METHODS, parse_options
        from training.services.runs import open_run

        known = {option.name for option in fields(METHODS[method].options)}
        wanted = OPTIONS | OF_METHOD.get(method, {})
        options = asdict(parse_options(method, {k: v for k, v in wanted.items() if k in known}))
        run = open_run(
            project=self.cast.project,
            name=name,
            method=method,
            options=options,
            dataset=self.dataset,
            parent=self.base,
            reward_model=self.judge if options.get("reward") == "reward_model" else None,
            seed=7,
            user=self.cast.researcher,
        )
        TrainingRun.objects.filter(pk=run.pk).update(**{"attempt_limit": 1000, **values})
        return run

    def start_worker(self, run: Any) -> subprocess.Popen:
        """A worker process for this run. It dies with the thread that asked for it."""
        from training.supervisor import dies_with

        with (self.home / "workers.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.faults_worker", str(run.pk)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=dies_with(os.getpid()),
            )


@contextmanager
def open_stage() -> Iterator[Stage]:
    """Everything up and filled; all of it gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="rankloop-faults-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        with throwaway() as database:
            os.environ.update(
                RANKLOOP_HOME=str(home),
                RANKLOOP_LOCAL="1",
                SECRET_KEY="only-for-benchmarks-0123456789-abcdefghij",
                CELERY_BROKER_URL="memory://",
                RANKLOOP_ARTIFACTS_URL=str(home / "artifacts"),
                RANKLOOP_WORK_LEASE_SECONDS=str(LEASE_SECONDS),
                RANKLOOP_TRAINING_THREADS="1",
                OMP_NUM_THREADS="1",
                DATABASE_URL=database,
                DJANGO_SETTINGS_MODULE="rankloop.settings",
                PYTHONPATH=os.pathsep.join([str(ROOT / "platform"), str(ROOT)]),
            )
            sys.path[:0] = [str(ROOT / "platform")]
            import django

            django.setup()
            from django.core.management import call_command
            from django.db import connection

            call_command("migrate", verbosity=0)
            with connection.cursor() as cursor:
                cursor.execute(NOTING)
            try:
                yield _filled(home)
            finally:
                connection.close()


def _filled(home: Path) -> Stage:
    """The tests' cast, judged rankings and written answers, and the tiny model as base."""
    from annotation.models import Judgment
    from tests.cast import assemble, open_ranking
    from tests.training.stage import rank
    from tests.written import write_answer
    from training.services.checkpoints import register_base
    from training.services.snapshots import snapshot_rounds

    tiny = home / "tiny"
    subprocess.run(
        [sys.executable, "-m", "training.recipes.tiny", str(tiny)], check=True, cwd=ROOT, capture_output=True
    )
    cast = assemble()
    judged = open_ranking(cast, comparisons=16, overlap=1)
    rank(cast, [cast.anna])
    for judgment in Judgment.objects.order_by("pk"):
        first = judgment.ranking.order_by("pk").first().completion
        write_answer(judgment, f"{first.text} Then serve it.", edited_from=first, review="approved")
    return Stage(
        home=home,
        cast=cast,
        base=register_base(project=cast.project, folder=tiny, name="tiny"),
        dataset=snapshot_rounds(project=cast.project, rounds=[judged]),
    )


def methods_with_a_recipe() -> list[str]:
    """The methods that can be run, the reward model first: others learn from it."""
    from training.recipes.options import METHODS

    found = []
    for method in sorted(METHODS, key=lambda name: METHODS[name].makes != "reward"):
        if importlib.util.find_spec(f"training.recipes.{method}"):
            found.append(method)
        else:
            print(f"{method}: skipped, it has no recipe here", flush=True)
    return found


def noted(what: str, run: uuid.UUID | None = None) -> int:
    """How often the database has noted that, of one run or of all."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM noted WHERE what = %s AND (%s::uuid IS NULL OR run = %s)", [what, run, run]
        )
        return int(cursor.fetchone()[0])
