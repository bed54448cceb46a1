"""Judgments in words: what is said can be read back, and is what one would say."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.wording import in_words, label_of


@st.composite
def dense_ranks(draw, least: int = 2) -> list[int]:
    """Ranks without gaps, as a submission must have them."""
    drawn = draw(st.lists(st.integers(1, 8), min_size=least, max_size=8))
    order = sorted(set(drawn))
    return [order.index(rank) + 1 for rank in drawn]


@given(dense_ranks(least=3))
def test_a_ranking_can_be_read_back_from_its_words(ranks):
    words = in_words("ranked", ranks=ranks, completions=len(ranks))
    read = [0] * len(ranks)
    for place, group in enumerate(words.split(" > "), 1):
        for position in re.findall(r"\d+", group):
            read[int(position) - 1] = place
    assert read == ranks


@pytest.mark.parametrize(
    ("ranks", "strength", "words"),
    [
        ([1, 2], 1, "A better than B, slightly"),
        ([1, 2], 2, "A better than B"),
        ([2, 1], 3, "B better than A, significantly"),
        ([2, 1], None, "B better than A"),
        ([1, 1], None, "A and B about the same"),
        ([2, 3, 1, 2], None, "3 > 1 = 4 > 2"),
        ([1, 1, 1], None, "1 = 2 = 3"),
    ],
)
def test_a_ranking_reads_as_one_would_say_it(ranks, strength, words):
    assert in_words("ranked", ranks=ranks, completions=len(ranks), strength=strength) == words


@pytest.mark.parametrize(
    ("outcome", "completions", "words"),
    [
        ("all_bad", 4, "All bad"),
        ("all_bad", 2, "Both bad"),
        ("cannot_judge", 2, "Cannot judge"),
        ("demonstrated", 0, "Wrote the answer"),
        ("withdrawn", 4, "Withdrawn"),
    ],
)
def test_what_is_no_ranking_is_said_in_a_word(outcome, completions, words):
    assert in_words(outcome, ranks=[], completions=completions) == words


def test_completions_are_called_what_the_ranking_page_calls_them():
    assert [label_of(position, of=2) for position in (1, 2)] == ["A", "B"]
    assert [label_of(position, of=3) for position in (1, 2, 3)] == ["1", "2", "3"]
