"""Copy a run's measurements to trackio or MLflow while they are made. A process of its own, started by run_dir.py.

    python -m training.recipes.tracker RUN_DIR

So that neither package's memory, threads, random numbers nor waiting for a server are part of a training. It follows
metrics.jsonl, ends when its standard input closes, which happens however the recipe ends, and is gone a few seconds
later even when a server does not answer. Whatever goes wrong here is said in the log and stops nothing.
"""

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# How long it may take to hand over what is left once the recipe has ended.
LAST_SECONDS = 5.0
LOOK_SECONDS = 1.0
Log = Callable[[int, dict[str, float]], Any]


def main(path: Path) -> None:
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    tracker, over = config["tracker"], threading.Event()
    threading.Thread(target=_end_with_the_recipe, args=(over,), daemon=True).start()
    try:
        log, close = OPEN[tracker["to"]](tracker, config["options"])
        for step, values in follow(path / "metrics.jsonl", over):
            log(step, values)
        close()
    except ModuleNotFoundError as error:
        print(
            f"{tracker['to']} is to be told of this run, but {error}. Install it where workers run.",
            flush=True,
        )
    except Exception as error:  # whatever a package or a server may raise
        print(
            f"{tracker['to']} is told nothing more of this run: {type(error).__name__}: {error}", flush=True
        )


def _end_with_the_recipe(over: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    over.set()
    time.sleep(LAST_SECONDS)
    os._exit(1)


def follow(file: Path, over: threading.Event) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, values by name) as they come, those of a step together; a torn last line waits."""
    place = 0
    while True:
        last = over.is_set()  # asked first: what was written before the end is still read
        steps: dict[int, dict[str, float]] = {}
        with file.open("rb") as opened:
            opened.seek(place)
            for line in opened:
                if not line.endswith(b"\n"):
                    break
                place += len(line)
                measured = json.loads(line)
                steps.setdefault(measured["step"], {})[measured["name"]] = measured["value"]
        yield from steps.items()
        if last:
            return
        over.wait(LOOK_SECONDS)


def open_trackio(tracker: dict[str, str], options: dict[str, Any]) -> tuple[Log, Callable[[], Any]]:
    os.environ.setdefault("TRACKIO_DIR", str(Path(tracker["folder"]) / "trackio"))
    import trackio

    # "allow": a resumed attempt goes on in the run that is there.
    trackio.init(project=tracker["project"], name=tracker["run"], config=options, resume="allow", embed=False)
    return (lambda step, values: trackio.log(values, step=step)), trackio.finish


def open_mlflow(tracker: dict[str, str], options: dict[str, Any]) -> tuple[Log, Callable[[], Any]]:
    import mlflow

    if "MLFLOW_TRACKING_URI" not in os.environ:
        raise ValueError("set MLFLOW_TRACKING_URI to your MLflow server's address where workers run")
    mlflow.set_experiment(tracker["project"])
    known = mlflow.search_runs(filter_string=f"tags.rankloop_run = '{tracker['id']}'", output_format="list")
    if known:
        mlflow.start_run(run_id=known[0].info.run_id)
    else:
        mlflow.start_run(run_name=tracker["run"], tags={"rankloop_run": tracker["id"]})
        mlflow.log_params({name: str(value)[:500] for name, value in options.items()})
    return (lambda step, values: mlflow.log_metrics(values, step=step)), mlflow.end_run


OPEN: dict[str, Callable[..., tuple[Log, Callable[[], Any]]]] = {
    "trackio": open_trackio,
    "mlflow": open_mlflow,
}


if __name__ == "__main__":
    gc.enable()  # training.recipes has turned it off while a recipe imports
    main(Path(sys.argv[1]))
