"""Training runs whose workers and recipes are killed, stopped and woken: what is lost, doubled, or written too late.

    python -m tests.benchmarks.bench_faults [--quick] [--json FILE] [--method NAME ...] [--kills N]

A throw-away PostgreSQL, real worker processes, real recipes on a tiny model at one thread, leases of three seconds,
and the sweeper's own task. Each method trains once undisturbed; then each of its runs is killed at moment after moment:
before its claim has come through and right after it, while the recipe starts, in a step, in the midst of writing a
checkpoint, of publishing it, of copying it into the next attempt, at the last step, when the output is written, and in
the transaction that registers it. A worker is killed, or its recipe, or it is stopped past its lease and wakes while
another has the run or when that has ended. Between two attempts a bit is flipped, a file cut off or exchanged, or a
forged checkpoint laid where the dead attempt would publish one. A poison run must stop and say why; a damaged base must
never be trained on.

Counted, and all 0 but the kills: `lost` runs that did not end, or whose result is not there; `doubled` results;
`stale_writes` by a worker that did not hold what it wrote to (triggers in the database know: `faults_stage.NOTING`);
`unequal_weights` beside the undisturbed run, bit for bit; `orphans` alive 10 seconds after a kill.

Three mutations, and what `--quick --method reward` then said (it says 0 of each without them):

- The fence taken out (`write_held` and `lock_held` of services/work.py ask for the row alone, neither for the attempt
  nor for the status): 105 stale writes. The stopped worker woke and wrote into the row of the one that had taken over.
- The manifest check taken out (`find_damage` of run_dir.py finds nothing, `verify` of store.py looks at the manifest
  alone): 1 lost, 1 unequal. The run resumed from the flipped bit and ended in NaN; the damaged base was trained on.
- The sweeper taken out (`return_lost` does nothing): 4 lost, at the first kill already. Nobody gave the run back.
"""

import argparse
import json
import random
import sys
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.benchmarks.faults_kills import BY_RECIPE, BY_WORKER, QUICK, KilledRun, Step, Tally, flip_a_bit
from tests.benchmarks.faults_stage import Stage, methods_with_a_recipe, noted, open_stage

KILLS = 200
AT_ONCE = 3  # runs side by side: leases that run out take time and no processor
COUNTED = ("kills", "lost", "doubled", "stale_writes", "unequal_weights", "orphans")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short plan for each method")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--method", action="append", help="only this one; may be given several times")
    parser.add_argument("--kills", type=int, help=f"at least so many (default {KILLS})")
    given = parser.parse_args()
    began = time.monotonic()
    with open_stage() as stage:
        methods = [m for m in methods_with_a_recipe() if not given.method or m in (*given.method, "reward")]
        tally = Tally()
        sweeping = Sweeper()
        sweeping.start()
        try:
            for method in methods:
                train_undisturbed(stage, method)
            wanted = [m for m in methods if not given.method or m in given.method]
            plans = [QUICK] if given.quick else [BY_WORKER, BY_RECIPE]
            target = given.kills or (0 if given.quick else KILLS)
            kill_runs(stage, wanted, plans, tally, target)
            poison(stage, wanted[-1], tally)
            damage_the_base(stage, wanted[-1], tally)
        finally:
            sweeping.over.set()
            sweeping.join()
        tally.stale_writes = noted("stale")
    figures = {name: asdict(tally)[name] for name in COUNTED}
    print("moments: " + ", ".join(f"{name} {count}" for name, count in sorted(tally.moments.items())))
    print(
        "missed: " + (", ".join(f"{name} {count}" for name, count in sorted(tally.missed.items())) or "none")
    )
    print(f"{time.monotonic() - began:.0f} seconds")
    print(json.dumps(figures))
    if given.json:
        given.json.write_text(
            json.dumps(figures | {"methods": methods, "moments": tally.moments}, indent=1) + "\n"
        )
    sys.exit(any(figures[name] for name in COUNTED if name != "kills"))


class Sweeper(threading.Thread):
    """What beat does every few seconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()

    def run(self) -> None:
        from django.db import connection

        from training import tasks

        while not self.over.wait(0.5):
            tasks.sweep_lost_work()
        connection.close()


def train_undisturbed(stage: Stage, method: str) -> None:
    """The run that every other of its method must equal."""
    run = stage.queue(method, f"{method}_undisturbed")
    worker = stage.start_worker(run)
    worker.wait()
    run.refresh_from_db()
    if run.status != "succeeded":
        sys.exit(f"{method} does not even train undisturbed: {run.status} {run.error}")
    stage.weights[method] = weights_of(run)
    if method == "reward":
        stage.judge = run.checkpoint
    print(f"{method}: trained undisturbed in {run.seconds:.0f} s", flush=True)


def weights_of(run: Any) -> bytes:
    """The published weights of a run, checked as every load checks them."""
    from training import store

    return (store.fetch(run.checkpoint.digest) / "adapter_model.safetensors").read_bytes()


def kill_runs(stage: Stage, methods: list[str], plans: list[list[Step]], tally: Tally, target: int) -> None:
    """Every plan for every method, and over again until there were enough kills; some runs side by side."""
    waiting = [(method, number) for number in range(len(plans)) for method in methods]
    lock, number = threading.Lock(), len(plans)

    def next_one() -> tuple[str, int] | None:
        nonlocal number
        with lock:
            if not waiting and tally.kills < target and tally.lost < 10:
                waiting.extend((method, number) for method in methods)
                number += 1
            return waiting.pop(0) if waiting else None

    def work() -> None:
        from django.db import connection

        try:
            while (item := next_one()) is not None:
                method, number = item
                kill_run(stage, method, plans[number % len(plans)], tally, seed=number)
        except BaseException:
            traceback.print_exc()
            tally.lost += 1
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def kill_run(stage: Stage, method: str, plan: list[Step], tally: Tally, seed: int) -> None:
    run = stage.queue(method, f"{method}_{seed}")
    before = tally.kills
    KilledRun(stage, run, tally, random.Random(f"{method}/{seed}")).carry(plan)
    check(stage, run, tally)
    print(
        f"{method} {seed}: {run.status} after {run.attempt} attempts, {tally.kills} kills in all", flush=True
    )
    assert tally.kills > before


def check(stage: Stage, run: Any, tally: Tally) -> None:
    """Exactly one result, whole, with the weights of the undisturbed run."""
    from training.models import Checkpoint

    run.refresh_from_db()
    results = Checkpoint.objects.filter(run=run).count()
    tally.doubled += max(results, noted("succeeded", run.pk), 1) - 1
    if run.status != "succeeded":
        return  # it was counted as lost
    if results == 0:
        tally.lost += 1
        print(f"LOST: {run.method} {run.pk} has no result", flush=True)
    elif weights_of(run) != stage.weights[run.method]:
        tally.unequal_weights += 1
        print(f"UNEQUAL: {run.method} {run.pk}", flush=True)


def poison(stage: Stage, method: str, tally: Tally) -> None:
    """A run that kills every worker stops after its attempts and says why; retried, it ends like any other."""
    from training.services.work import requeue

    run = stage.queue(method, f"{method}_poison", attempt_limit=2)
    plan: list[Step] = [("claimed", "worker", ""), ("starting", "worker", "")]
    KilledRun(stage, run, tally, random.Random(0)).carry(plan, to_its_end=False)
    run.refresh_from_db()
    if run.status != "failed" or "died in every attempt" not in run.error:
        tally.lost += 1
        print(f"LOST: the poison run is {run.status}: {run.error}", flush=True)
    requeue(run)
    KilledRun(stage, run, tally, random.Random(0)).carry([])
    check(stage, run, tally)


def damage_the_base(stage: Stage, method: str, tally: Tally) -> None:
    """A bit flipped in the store: the run is refused, naming the file; mended and retried, it ends like any other."""
    from training import store
    from training.services.work import requeue

    file = store.fetch(stage.base.digest) / "model.safetensors"
    good = file.read_bytes()
    run = stage.queue(method, f"{method}_damaged")
    flip_a_bit(file)
    stage.start_worker(run).wait()
    file.write_bytes(good)
    run.refresh_from_db()
    if run.status == "failed" and "model.safetensors" in run.error:
        requeue(run)
        KilledRun(stage, run, tally, random.Random(0)).carry([])
    else:
        print(f"NOT REFUSED: on a damaged base the run is {run.status}: {run.error}", flush=True)
        tally.unequal_weights += 1
    check(stage, run, tally)


if __name__ == "__main__":
    main()
