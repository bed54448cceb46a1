"""Single completions: what is refused, in which order they are learnt from, and to which prompts they are put."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.recipes.runs import some_answers, some_outcomes, write_pairs
from training.recipes.answers import (
    Answer,
    answer_order,
    put_to_other_prompts,
    read_answers,
    read_outcomes,
    refuse_one_class,
)
from training.recipes.run_dir import RecipeError

READERS = {"answers": (read_answers, some_answers), "outcomes": (read_outcomes, some_outcomes)}


def answer(prompt: str = "p", weight: float = 1.0, is_good: bool = True) -> Answer:
    return Answer([{"content": prompt}], [{"content": "text"}], "r", weight, prompt, is_good)


def test_answers_and_outcomes_are_read_as_they_were_written(tmp_path):
    write_pairs(tmp_path / "answers.jsonl", some_answers(rankings=1, seed=1))
    write_pairs(tmp_path / "outcomes.jsonl", some_outcomes(rankings=1, seed=1))
    first, _ = read_answers(tmp_path / "answers.jsonl")
    assert (first.ranking, first.weight, first.prompt_id) == ("ranking 1-0", 1.0, "prompt 1-0")
    assert first.where == "answers.jsonl, line 1"
    assert [o.is_good for o in read_outcomes(tmp_path / "outcomes.jsonl")] == [True, True, False, False]


@pytest.mark.parametrize(
    ("form", "change", "named"),
    [
        ("answers", {"completion": "text"}, "completion"),
        (
            "answers",
            {"completion": [{"role": "assistant", "content": " \n"}]},
            "completion: the answer is empty",
        ),
        ("answers", {"prompt": []}, "prompt"),
        ("answers", {"weight": 0}, "weight"),
        ("outcomes", {"completion": []}, "completion"),
        ("outcomes", {"label": 1}, "label: 1 is neither true"),
        ("outcomes", {"label": None}, "label"),
        ("outcomes", {"weight": True}, "weight"),
    ],
)
def test_a_malformed_line_names_file_line_and_field(tmp_path, form, change, named):
    read, some = READERS[form]
    good = some(rankings=1, seed=1)
    write_pairs(tmp_path / "train.jsonl", [good[0], good[1] | change])
    with pytest.raises(RecipeError, match=rf"train.jsonl, line 2.*{named}"):
        read(tmp_path / "train.jsonl")


@pytest.mark.parametrize("form", READERS)
def test_a_file_without_rows_and_a_line_that_is_no_object_are_refused(tmp_path, form):
    file = tmp_path / "train.jsonl"
    file.write_text("\n")
    with pytest.raises(RecipeError, match=r"train.jsonl holds no"):
        READERS[form][0](file)
    file.write_text("[1]\n")
    with pytest.raises(RecipeError, match=r"train.jsonl, line 1: give an object"):
        READERS[form][0](file)


@pytest.mark.parametrize(
    ("is_good", "told"), [(True, "are called good, none bad"), (False, "bad, none good")]
)
def test_outcomes_of_one_class_are_refused(is_good, told):
    with pytest.raises(RecipeError, match=rf"All 3 completions in train.jsonl .*{told}"):
        refuse_one_class([is_good] * 3, "train.jsonl")
    refuse_one_class([is_good, not is_good], "train.jsonl")


def test_each_answer_comes_once_a_pass_and_one_of_weight_two_twice_as_often():
    equal = [answer() for _ in range(7)]
    assert sorted(answer_order(equal, 7, seed=1)) == list(range(7))
    assert answer_order(equal, 20, seed=1) == answer_order(equal, 20, seed=1)
    assert answer_order(equal, 20, seed=1) != answer_order(equal, 20, seed=2)
    seen = Counter(answer_order([answer(), answer(weight=2.0), answer()], 400, seed=1))
    assert seen[1] == pytest.approx(200, abs=12)


def test_completions_of_different_prompts_are_turned_round_by_one_as_in_trl():
    answers = [answer(prompt) for prompt in "abcdefgh"]
    assert put_to_other_prompts(answers, 4) == [3, 0, 1, 2, 7, 4, 5, 6]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=24), st.integers(2, 8))
def test_no_other_turn_would_put_fewer_completions_to_their_own_prompt(prompts, together):
    partners = put_to_other_prompts([answer(prompt) for prompt in prompts], together)
    assert sorted(partners) == list(range(len(prompts)))  # each completion is used once
    for start in range(0, len(prompts), together):
        part = prompts[start : start + together]
        turned = [partner - start for partner in partners[start : start + len(part)]]
        at_home = sum(part[place] == part[other] for place, other in enumerate(turned))
        others = [
            sum(part[place] == part[(place - turn) % len(part)] for place in range(len(part)))
            for turn in range(1, len(part))
        ]
        assert at_home == min(others, default=1)
