"""Preference pairs: what is refused, and in which order they are learnt from."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.recipes.runs import some_pairs, write_pairs
from training.recipes.pairs import Pair, read_pairs, systematic_sample, training_order
from training.recipes.run_dir import RecipeError


def pair(ranking: str, weight: float = 1.0, comparison: str = "") -> Pair:
    return Pair([], [], [], ranking, weight, ranking, comparison)


def test_pairs_are_read_as_they_were_written(tmp_path):
    write_pairs(tmp_path / "train.jsonl", some_pairs(rankings=2, seed=1))
    pairs = read_pairs(tmp_path / "train.jsonl")
    assert len(pairs) == 12
    assert (pairs[0].ranking, pairs[0].weight, pairs[0].prompt_id) == ("ranking 1-0", 1.0, "prompt 1-0")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"chosen": "text"}, "chosen"),
        ({"prompt": []}, "prompt"),
        ({"rejected": [{"role": "assistant"}]}, "rejected"),
        ({"weight": 0}, "weight"),
        ({"weight": "heavy"}, "weight"),
        ({"strength": 4}, "strength"),
        ({"strength": True}, "strength"),
    ],
)
def test_a_malformed_pair_names_file_line_and_field(tmp_path, change, named):
    good = some_pairs(rankings=1, seed=1)
    write_pairs(tmp_path / "train.jsonl", [good[0], good[1] | change])
    with pytest.raises(RecipeError, match=rf"train.jsonl, line 2.*{named}"):
        read_pairs(tmp_path / "train.jsonl")


def test_strength_is_kept_where_annotators_were_asked(tmp_path):
    plain = some_pairs(rankings=1, seed=1)[0]
    write_pairs(tmp_path / "train.jsonl", [plain, plain | {"strength": None}, plain | {"strength": 3}])
    assert [pair.strength for pair in read_pairs(tmp_path / "train.jsonl")] == [None, None, 3]


def test_a_pair_of_equal_completions_is_refused(tmp_path):
    same = some_pairs(rankings=1, seed=1)[0]
    write_pairs(tmp_path / "train.jsonl", [same | {"rejected": same["chosen"]}])
    with pytest.raises(RecipeError, match="the same"):
        read_pairs(tmp_path / "train.jsonl")


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_file_without_pairs_says_to_collect_judgments(tmp_path, content):
    (tmp_path / "train.jsonl").write_text(content)
    with pytest.raises(RecipeError, match="Collect judgments"):
        read_pairs(tmp_path / "train.jsonl")


def test_text_that_is_not_json_names_its_line(tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps(some_pairs(1, 1)[0]) + "\n{oops\n")
    with pytest.raises(RecipeError, match="line 2: not JSON"):
        read_pairs(tmp_path / "train.jsonl")


def test_the_pairs_of_a_ranking_stay_together_and_each_comes_once_a_pass():
    pairs = [pair(f"r{i % 5}") for i in range(20)]
    order = training_order(pairs, 5, 4, seed=3)
    assert sorted(order) == list(range(20))
    rankings = [pairs[i].ranking for i in order]
    assert all(len(set(rankings[start : start + 4])) == 1 for start in range(0, 20, 4))


def test_rankings_of_one_comparison_come_side_by_side():
    pairs = [pair(f"{i % 3} by {who}", comparison=f"c{i % 3}") for who in "ab" for i in range(9)]
    order = training_order(pairs, 2, 18, seed=3)
    assert sorted(order[:18]) == sorted(order[18:]) == list(range(18))
    comparisons = [pairs[i].comparison for i in order]
    assert all(len(set(comparisons[start : start + 6])) == 1 for start in range(0, 36, 6))


def cut(pairs: list[Pair], order: list[int], batch_size: int) -> int:
    """How many times a ranking is in two batches that follow each other."""
    borders = range(batch_size, len(order), batch_size)
    return sum(pairs[order[at - 1]].ranking == pairs[order[at]].ranking for at in borders)


@pytest.mark.parametrize("batch_size", [24, 48, 96])
def test_rankings_with_ties_are_whole_in_their_batches_too(batch_size):
    sizes = [(6, 6, 6, 5, 3)[n % 5] for n in range(100)]  # pairs of four completions, some of them tied
    pairs = [pair(f"r{n}") for n, size in enumerate(sizes) for _ in range(size)]
    order = training_order(pairs, 20, batch_size, seed=2)
    assert len(order) == 20 * batch_size
    for start in range(0, len(order), batch_size):
        batch = Counter(pairs[i].ranking for i in order[start : start + batch_size])
        assert all(count % sizes[int(ranking[1:])] == 0 for ranking, count in batch.items())
    seen = Counter(order)  # none is put off for long
    assert max(seen.values()) - min(seen[i] for i in range(len(pairs))) <= 2


def test_a_ranking_that_fits_into_no_whole_batch_waits_but_comes_all_the_same():
    pairs = [pair(f"r{n // 6}") for n in range(300)] + [pair("odd")]
    order = training_order(pairs, 30, 96, seed=1)  # 96 is sixteen rankings of six
    odd = Counter(at // 96 for at, place in enumerate(order) if pairs[place].ranking == "odd")
    assert sum(odd.values()) >= 8 and max(odd.values()) <= 4  # of nine or ten passes
    assert cut(pairs, order, 96) <= 3


def test_a_ranking_is_cut_only_where_the_sizes_leave_no_other_way():
    pairs = [pair(f"r{i // 6}") for i in range(60)]
    order = training_order(pairs, 30, 16, seed=2)
    assert sorted(Counter(order).values()) == [8] * 60
    assert (
        cut(pairs, order, 16) <= 20
    )  # of three batches of 16, eight rankings of six, the last can always end whole
    assert cut(pairs, training_order(pairs, 30, 12, seed=2), 12) == 0


def test_the_order_depends_on_the_seed_and_on_nothing_else():
    pairs = [pair(f"r{i // 3}") for i in range(30)]
    assert training_order(pairs, 5, 10, seed=1) == training_order(pairs, 5, 10, seed=1)
    assert training_order(pairs, 5, 10, seed=1) != training_order(pairs, 5, 10, seed=2)


def test_a_ranking_of_weight_two_comes_twice_as_often():
    pairs = [pair("light"), pair("heavy", 2.0), pair("plain", 1.0)]
    seen = Counter(training_order(pairs, 100, 4, seed=1))
    assert seen[1] == pytest.approx(200, abs=12)
    assert seen[0] == pytest.approx(100, abs=12)


def test_rankings_of_one_comparison_come_as_often_as_each_weighs():
    pairs = [pair("light", comparison="c"), pair("heavy", 2.0, "c"), pair("plain", comparison="d")]
    seen = Counter(training_order(pairs, 100, 4, seed=1))
    assert [seen[i] for i in range(3)] == pytest.approx([100, 200, 100], abs=12)


@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=30),
    st.integers(1, 60),
    st.floats(0, 1, exclude_max=True),
)
def test_a_systematic_sample_gives_each_its_due(weights, count, offset):
    drawn = Counter(systematic_sample(weights, count, offset))
    assert sum(drawn.values()) == count
    for index, weight in enumerate(weights):
        due = count * weight / sum(weights)
        assert due - 1.001 <= drawn[index] <= due + 1.001
