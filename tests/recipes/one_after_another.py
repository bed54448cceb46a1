"""Several recipes in one set of processes, which saves the seconds that importing and launching take.

accelerate launch -m tests.recipes.one_after_another RUN_DIR RUN_DIR
"""

import os
import sys
from importlib import import_module
from pathlib import Path

from training.recipes import processes
from training.recipes.run_dir import open_run, write_json


def main() -> None:
    processes.join()
    for name in sys.argv[1:]:
        folder = Path(name)
        run = open_run(folder, folder.name)
        metrics = import_module(f"training.recipes.{folder.name}").main(run)
        run.close()
        write_json(folder / f"told-{processes.RANK}.json", {"metrics": metrics, "process": os.getpid()})
    processes.leave()


if __name__ == "__main__":
    main()
