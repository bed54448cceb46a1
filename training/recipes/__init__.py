"""How models learn: sampling, reward models and policies, each one file with one `main`.

The engine knows nothing of the platform: no Django, no database, no queue. A recipe reads one folder,
RUN_DIR, and writes into it (`run_dir.py` is the whole contract), so `python -m training.recipes.dpo RUN_DIR`
works by hand too.
"""

import gc
import os
import sys

# What a recipe imports makes a million objects that stay. Walking them again and again took a fifth of its start-up:
# the collector rests until `run_dir.run`, where the imports of `python -m training.recipes.<method>` are done.
if sys.argv[:1] == ["-m"]:
    gc.disable()

# Read by huggingface_hub when it is imported, hence here, before any module of this package can import it.
# Recipes read local folders only: nothing is looked up on the network, and TRL's telemetry stays silent.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Read by OpenMP when torch is imported: how long a thread spins before it sleeps while it waits for the others. By
# default longer than a time slice, so that on cores shared with other work one thread burns what the other needs:
# sampling with two threads beside two busy processes made 22 tokens/s, with this 55, and 288 instead of 290 alone.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")
