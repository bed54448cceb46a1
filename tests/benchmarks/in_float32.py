"""Run a module as `python -m MODULE ARGS...` would, on a machine that seems not to compute in bfloat16.

    python -m tests.benchmarks.in_float32 MODULE ARGS...

Rounding to bfloat16 moves the losses of two programs apart that compute the same in another order: Adam turns the
smallest gradient into a whole step. In float32 they can be compared.
"""

import runpy
import sys

import torch

torch.cpu.get_capabilities = dict  # what `loading.compute_dtype` asks
module = sys.argv[1]
del sys.argv[1]
runpy.run_module(module, run_name="__main__", alter_sys=True)
