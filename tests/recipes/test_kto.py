"""KTO: what is refused, which completions are put to other prompts, and what the zero point is estimated from."""

import pytest

from tests.recipes.runs import make_training_run, metrics_of, run_here, some_outcomes, write_pairs
from training.recipes.answers import Answer
from training.recipes.cutting import Row
from training.recipes.kto import in_order
from training.recipes.run_dir import RecipeError


@pytest.mark.parametrize(
    ("label", "told"), [(True, "called good, none bad"), (False, "called bad, none good")]
)
def test_completions_of_one_class_are_refused(tiny_model, tmp_path, label, told):
    folder = make_training_run(tmp_path / "run", "kto", tiny_model)
    write_pairs(folder / "train.jsonl", [row | {"label": label} for row in some_outcomes(8, seed=1)])
    with pytest.raises(RecipeError, match=rf"All 32 completions in train.jsonl are {told}.*Rank more"):
        run_here(folder)


def test_held_out_prompts_that_were_all_bad_are_not_measured_and_do_not_stop_the_run(tiny_model, tmp_path):
    folder = make_training_run(tmp_path / "run", "kto", tiny_model, options={"steps": 1})
    write_pairs(folder / "held_out.jsonl", [row | {"label": False} for row in some_outcomes(4, seed=2)])
    metrics = run_here(folder)
    assert (metrics["accuracy"], metrics["interval"], metrics["pairs"]) == (None, None, 0)


def test_an_empty_completion_is_left_out_and_counted(tiny_model, tmp_path):
    folder = make_training_run(tmp_path / "run", "kto", tiny_model, options={"steps": 1})
    rows = some_outcomes(8, seed=1)
    rows[0]["completion"] = [{"role": "assistant", "content": ""}]
    write_pairs(folder / "train.jsonl", rows)
    metrics = run_here(folder)
    assert (metrics["dropped"], metrics["train_good"], metrics["train_bad"]) == (1, 15, 16)


def test_the_zero_point_is_that_of_the_step_however_few_are_computed_together(tiny_model, tmp_path):
    """Weights with which the policy moves towards every completion, so that the zero point does not stay at 0."""
    own = {
        "desirable_weight": 3.0,
        "undesirable_weight": 0.3,
        "beta": 0.5,
        "learning_rate": 0.01,
        "batch_size": 8,
    }
    found = []
    for together in (8, 2):
        options = {"steps": 3, "micro_batch_size": together, **own}
        folder = make_training_run(tmp_path / str(together), "kto", tiny_model, options=options)
        run_here(folder)
        found.append([line["value"] for line in metrics_of(folder) if line["name"] in ("loss", "kl")])
    assert found[0][-1] > 1
    assert found[1] == pytest.approx(found[0], rel=2e-3, abs=2e-3)


def test_each_row_carries_its_completion_and_one_that_answers_another_prompt():
    prompts = "aabb"
    outcomes = [
        Answer([{"content": p}], [{"content": p}], "r", 1.0, p, is_good=i % 2 == 0)
        for i, p in enumerate(prompts)
    ]
    rows = [Row(2, (0, i, 10 + i, 20 + i)) for i in range(4)]
    fed = in_order(outcomes, rows, [3, 1, 0, 2], batch_size=4)
    assert [row["prompt_ids"] for row in fed] == [(0, 3), (0, 1), (0, 0), (0, 2)]
    assert [row["completion_ids"][0] for row in fed] == [13, 11, 10, 12]
    assert [row["label"] for row in fed] == [False, False, True, True]
    # b a a b turned by one puts two completions to their own prompt, turned by two none.
    assert [row["KL_completion_ids"][0] for row in fed] == [10, 12, 13, 11]
