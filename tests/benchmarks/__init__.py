"""Benchmarks: `python3 deploy/dev.py bench NAME`. Timings live here, as ratios to a baseline of the same run."""
