"""What the recipes save on computing changes nothing: their losses are those of TRL's own trainers, step by step."""

import json

import pytest

from tests import plain_trl
from tests.recipes.runs import make_training_run, metrics_of, run_here, some_outcomes, write_pairs

STEPS = 3
BOTH_REWARD_OPTIONS = {"margin_per_strength": 0.5, "center_weight": 0.01, "learning_rate": 0.001}
ROBUST = {"loss": "robust", "flipped_share": 0.2, "sft_weight": 0.5}
# With these the policy moves towards every completion, and the zero point does not stay at 0.
KTO_THAT_MOVES = {"desirable_weight": 3.0, "undesirable_weight": 0.3, "beta": 0.5, "learning_rate": 0.01}


@pytest.mark.parametrize(
    ("method", "own"),
    [
        ("sft", {}),
        ("reward", BOTH_REWARD_OPTIONS),
        ("dpo", {}),
        ("dpo", {"loss": "ipo"}),
        ("dpo", ROBUST),
        ("kto", KTO_THAT_MOVES),
    ],
)
def test_its_losses_are_those_of_plain_trl(tiny_model, tmp_path, method, own):
    options = {"steps": STEPS, "batch_size": 8, "learning_rate": 0.003, **own}
    folder = make_training_run(tmp_path / "run", method, tiny_model, options=options)
    if method == "kto":  # each completion has a prompt of its own, so that TRL pairs none with its own prompt
        rows = [row for number in range(16) for row in some_outcomes(1, seed=number)[number % 4 :][:1]]
        write_pairs(folder / "train.jsonl", rows)
    if method == "reward":
        lines = (folder / "train.jsonl").read_text().splitlines()
        rows = [json.loads(line) | {"strength": (None, 1, 2, 3)[i % 4]} for i, line in enumerate(lines)]
        write_pairs(folder / "train.jsonl", rows)
    run_here(folder)
    if method == "kto":
        assert told(folder, "kl")[-1] > 1
    ours = told(folder, "loss")
    assert ours == pytest.approx(plain_trl.train(folder)[0], rel=1e-3, abs=1e-3)


def told(folder, name):
    return [line["value"] for line in metrics_of(folder) if line["name"] == name]
