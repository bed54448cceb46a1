"""KTO: what is refused, which completions are put to other prompts, and what the zero point is estimated from."""

import pytest

from tests.recipes.runs import make_training_run, run_here, some_outcomes, write_pairs
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


def test_each_row_carries_its_completion_and_one_that_answers_another_prompt():
    prompts = "aabb"
    outcomes = [
        Answer([{"content": p}], [{"content": p}], "r", 1.0, p, is_good=i % 2 == 0)
        for i, p in enumerate(prompts)
    ]
    rows = [Row(2, (0, i, 10 + i, 20 + i)) for i in range(4)]
    fed = in_order(outcomes, rows, [3, 1, 0, 2], together=4)
    assert [row["prompt_ids"] for row in fed] == [(0, 3), (0, 1), (0, 0), (0, 2)]
    assert [row["completion_ids"][0] for row in fed] == [13, 11, 10, 12]
    assert [row["label"] for row in fed] == [False, False, True, True]
    # b a a b turned by one puts two completions to their own prompt, turned by two none.
    assert [row["KL_completion_ids"][0] for row in fed] == [10, 12, 13, 11]
