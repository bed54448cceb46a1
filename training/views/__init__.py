"""Pages of rounds, runs, checkpoints, datasets and comparisons. Each begins with the getter that authorises."""
