"""Train or held-out: decided by the first user turn alone, for ever, in about the asked proportion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.splits import content_hash, first_user_turn, normalised, split_of

texts = st.text(min_size=1, max_size=60)
messages = st.builds(
    lambda system, turns: (
        ([{"role": "system", "content": system}] if system else [])
        + [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    ),
    st.none() | texts,
    st.lists(texts, min_size=1, max_size=5),
)
shares = st.floats(0, 1)
KNOWN_POSITION = 0.6551752182315957  # of "how hot?" under the salt "salt", in [0, 1)


def split(conversation, share: float = 0.3, salt: str = "salt") -> str:
    return split_of(conversation, salt=salt, held_out_share=share)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@given(messages, messages, shares)
def test_conversations_with_the_same_first_user_turn_fall_on_the_same_side(one, other, share):
    turn = first_user_turn(one)
    sibling = [dict(message) for message in other]
    next(message for message in sibling if message["role"] == "user")["content"] = turn
    assert split(sibling, share) == split(one, share)


@given(texts, shares)
def test_letter_case_spaces_and_compatibility_forms_make_no_difference(text, share):
    spaced = f"  {text} \n\t"
    assert normalised(spaced) == normalised(text)
    assert split(user(spaced), share) == split(user(text), share)


def test_texts_a_reader_takes_for_the_same_are_the_same():
    assert normalised("Ｔｅａ\u00a0 TIME") == normalised("tea time") == "tea time"


@given(texts, shares, shares)
def test_a_larger_share_only_ever_moves_prompts_to_held_out(text, a, b):
    smaller, larger = sorted([a, b])
    if split(user(text), smaller) == "held_out":
        assert split(user(text), larger) == "held_out"
    assert split(user(text), 0.0) == "train"
    assert split(user(text), 1.0) == "held_out"


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_the_share_held_out_is_near_the_one_asked_for(share):
    count = 4000
    held_out = sum(split(user(f"Question {number}"), share) == "held_out" for number in range(count))
    standard_error = (share * (1 - share) / count) ** 0.5
    assert abs(held_out / count - share) < 4 * standard_error


def test_another_salt_splits_otherwise():
    prompts = [user(f"Question {number}") for number in range(200)]
    differing = sum(split(prompt, salt="one") != split(prompt, salt="other") for prompt in prompts)
    assert 40 < differing < 130


def test_the_split_of_a_known_prompt_never_changes():
    """Written down, because moving one prompt from held-out to train would spoil every figure measured before."""
    assert split(user("How  hot?"), share=KNOWN_POSITION + 1e-6) == "held_out"
    assert split(user("How  hot?"), share=KNOWN_POSITION - 1e-6) == "train"


def test_a_prompt_without_a_user_turn_is_refused():
    with pytest.raises(ValueError, match="user message"):
        split([{"role": "system", "content": "Be brief."}])


@given(messages, messages)
def test_the_content_hash_tells_conversations_apart_exactly(one, other):
    assert (content_hash(one) == content_hash(other)) == (one == other)
