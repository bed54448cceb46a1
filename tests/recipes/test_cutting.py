"""What max_length leaves of completions: what is kept, cut, left out or refused, and in which words."""

import pytest

from training.recipes.answers import Answer
from training.recipes.cutting import Row, learnable, refuse, sort_out
from training.recipes.pairs import Pair
from training.recipes.run_dir import RecipeError


def pair(line: int, chosen: str = "a", rejected: str = "b") -> Pair:
    texts = [{"content": chosen}], [{"content": rejected}]
    return Pair(
        [], *texts, ranking=f"r{line}", weight=1.0, prompt_id=f"p{line}", where=f"train.jsonl, line {line}"
    )


def row(prompt: int, completion: int, first: int = 0) -> Row:
    """A prompt of zeros and a completion of so many tokens, each its own place, from `first` on."""
    return Row(prompt, (0,) * prompt + tuple(range(first, first + completion)))


WHOLE = row(4, 4), row(4, 5, first=9)
CUT = row(4, 4), row(4, 7, first=9)
CUT_AWAY = row(10, 2), row(10, 3)
EQUAL = row(4, 7), Row(4, (*row(4, 6).ids, 99))


def test_every_pair_is_sorted_by_what_happens_to_it():
    pairs = [pair(1), pair(2), pair(3), pair(4), pair(5, rejected=" ")]
    cut = sort_out(pairs, [WHOLE, CUT, CUT_AWAY, EQUAL, WHOLE], max_length=10)
    assert cut.kept == [0, 1]
    assert cut.truncated == ["train.jsonl, line 2 (prompt p2, ranking r2)"]
    assert cut.cut_away == ["train.jsonl, line 3 (prompt p3, ranking r3)"]
    assert cut.equal == ["train.jsonl, line 4 (prompt p4, ranking r4)"]
    assert cut.empty == ["train.jsonl, line 5 (prompt p5, ranking r5)"]
    assert cut.counts == {"truncated": 1, "dropped": 1}


def test_a_reward_model_reads_rows_whole_or_not_at_all():
    cut = sort_out([pair(1), pair(2)], [WHOLE, CUT], max_length=10, whole=True)
    assert (cut.kept, cut.truncated) == ([0], [])
    assert cut.too_long == ["train.jsonl, line 2 (prompt p2, ranking r2)"]


def test_a_completion_that_just_fits_is_whole_and_one_token_of_it_is_enough():
    assert sort_out([pair(1)], [CUT], max_length=11).truncated == []
    assert sort_out([pair(1)], [(row(4, 4), row(4, 4, first=9))], max_length=5).kept == [0]
    assert sort_out([pair(1)], [(row(4, 4), row(4, 4, first=9))], max_length=4).cut_away


@pytest.mark.parametrize(
    ("sides", "max_length", "told"),
    [
        (
            CUT_AWAY,
            10,
            r"In 2 rows the prompt alone fills max_length = 10.*line 1 \(prompt p1.*Raise max_length",
        ),
        (
            EQUAL,
            10,
            r"In 2 rows chosen and rejected are the same tokens within max_length = 10.*line 1.*Raise max",
        ),
    ],
)
def test_what_nothing_can_be_learnt_from_is_refused_with_its_row_and_the_remedy(sides, max_length, told):
    with pytest.raises(RecipeError, match=told):
        learnable([pair(1), pair(2), pair(3)], [sides, sides, WHOLE], max_length, fewest=1)


def test_too_few_that_are_left_say_what_became_of_the_others():
    cut = sort_out([pair(1), pair(2), pair(3, chosen="")], [WHOLE, CUT, WHOLE], max_length=10, whole=True)
    refuse(cut, 10, fewest=1)
    told = (
        r"1 rows are left.*at least 2 are needed \(1 are longer than max_length = 10 tokens, the first is .*line 2.*; "
        r"1 hold an empty completion, the first is .*line 3.*\)\. Raise max_length, or collect more judgments"
    )
    with pytest.raises(RecipeError, match=told):
        refuse(cut, 10, fewest=2)
    with pytest.raises(RecipeError, match=r"0 rows are left.*needed\. Collect more judgments"):
        refuse(sort_out([], [], 10), 10, fewest=1)


def test_what_is_learnt_from_comes_back_with_its_tokens_and_what_is_left_out_is_said(capsys):
    answers = [
        Answer([], [{"content": text}], "r", 1.0, "p", where=f"line {text}") for text in ("a", "", "b")
    ]
    rows = [(row(1, 2),), (row(1, 1),), (row(1, 3),)]
    kept, left, counts = learnable(answers, rows, 10, fewest=2)
    assert [answer.texts for answer in kept] == [("a",), ("b",)]
    assert left == [rows[0], rows[2]]
    assert counts == {"truncated": 0, "dropped": 1}
    assert "left out: line  (prompt p, ranking r)" in capsys.readouterr().out
