"""The smallest worker process: it claims and does one training run, through training.worker, and ends.

    python -m tests.benchmarks.faults_worker RUN_ID

The database knows it by the name it gives itself in rows, so that `faults_stage` can tell who writes what.
"""

import os
import socket
import sys

import django

if __name__ == "__main__":
    os.environ["PGAPPNAME"] = f"{socket.gethostname()}:{os.getpid()}"
    django.setup()
    from training import worker

    assert worker.worker_name() == os.environ["PGAPPNAME"]
    worker.POLL_SECONDS = 0.1  # a run of the benchmark takes seconds
    worker.run_training(sys.argv[1])
