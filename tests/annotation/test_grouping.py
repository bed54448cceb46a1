"""Which completions are ranked together: properties of the pure function."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from annotation.grouping import Candidate, group_candidates


@st.composite
def candidates_of_one_prompt(draw) -> list[Candidate]:
    contestants, samples = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    texts = st.sampled_from(["yes", "yes ", "no", "perhaps", "ask again", "it depends", "why?", "no."])
    made = [
        Candidate(
            completion=10 * sample + contestant, contestant=contestant, sample_index=sample, text=draw(texts)
        )
        for contestant in range(contestants)
        for sample in range(samples)
    ]
    return draw(st.permutations(made))


@given(candidates_of_one_prompt(), st.integers(2, 8))
def test_no_group_is_too_small_too_large_or_holds_a_text_or_a_completion_twice(candidates, size):
    by_id = {candidate.completion: candidate for candidate in candidates}
    found = group_candidates(candidates, size=size)
    used = [completion for group in found.groups for completion in group]
    assert len(used) == len(set(used))
    for group in found.groups:
        assert 2 <= len(group) <= size
        texts = [by_id[completion].text.strip() for completion in group]
        assert len(texts) == len(set(texts))


@given(candidates_of_one_prompt(), st.integers(2, 8))
def test_where_several_contestants_took_part_no_group_is_of_one_alone(candidates, size):
    by_id = {candidate.completion: candidate for candidate in candidates}
    several = len({candidate.contestant for candidate in candidates}) > 1
    for group in group_candidates(candidates, size=size).groups:
        assert not several or len({by_id[completion].contestant for completion in group}) > 1


@given(candidates_of_one_prompt(), st.integers(2, 8))
def test_the_order_in_which_completions_come_makes_no_difference(candidates, size):
    assert group_candidates(candidates, size=size) == group_candidates(candidates[::-1], size=size)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(2, 8))
def test_with_different_texts_contestants_come_about_equally_often(contestants, samples, size):
    candidates = [
        Candidate(completion=100 * s + c, contestant=c, sample_index=s, text=f"{c}-{s}")
        for c in range(contestants)
        for s in range(samples)
    ]
    found = group_candidates(candidates, size=size)
    assert found.repeated == 0
    for group in found.groups:
        counts = Counter(completion % 100 for completion in group)
        assert max(counts.values()) - min([counts[c] for c in range(contestants)]) <= 1
    left_out = contestants * samples - sum(len(group) for group in found.groups)
    # Only a last group of one can be left out, or one that would have a single contestant's completions.
    assert left_out < size
    assert not (contestants > 1 and left_out > 1)


def test_with_two_contestants_and_two_at_a_time_each_pair_has_one_of_both():
    candidates = [
        Candidate(completion=10 * c + s, contestant=c, sample_index=s, text=f"{c}-{s}")
        for c in (1, 2)
        for s in (0, 1, 2)
    ]
    assert group_candidates(candidates, size=2).groups == [[10, 20], [11, 21], [12, 22]]


def test_equal_texts_are_left_out_and_counted():
    same = [Candidate(completion=c, contestant=c, sample_index=0, text="tea") for c in (1, 2, 3)]
    other = Candidate(completion=4, contestant=4, sample_index=0, text="coffee")
    found = group_candidates([*same, other], size=4)
    assert (len(found.groups[0]), found.repeated) == (2, 2)
    assert 4 in found.groups[0]
    assert group_candidates(same, size=3).groups == []
    assert group_candidates([], size=4).groups == []


def test_of_equal_texts_each_contestant_keeps_its_own_as_often_as_another():
    kept: Counter[int] = Counter()
    for number in range(400):
        same = [Candidate(completion=c, contestant=c, sample_index=0, text=f"tea {number}") for c in (1, 2)]
        other = Candidate(completion=3, contestant=1, sample_index=1, text="coffee")
        third = Candidate(completion=4, contestant=2, sample_index=1, text="milk")
        kept.update(group_candidates([*same, other, third], size=4).groups[0])
    assert 160 < kept[1] < 240
    assert kept[1] + kept[2] == 400
