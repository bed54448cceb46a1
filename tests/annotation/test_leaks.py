"""Phrases that tell who wrote a completion are masked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.leaks import MASK, mask

PHRASES = ["SmolLM", "ChatGPT", "trained by OpenAI", "C++"]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("I am SmolLM.", "I am [masked]."),
        ("I am smollm2-135M-Instruct, hello", "I am [masked], hello"),
        ("SmolLM2.", "[masked]."),
        ("Trained  by\nopenai!", "[masked]!"),
        ("Smol\u200bLM", "[masked]"),
        ("**Chat**GPT", "**[masked]"),
        ("C++ is it", "[masked] is it"),
    ],
)
def test_a_phrase_is_masked_in_any_case_spacing_and_disguise(text, masked):
    assert mask(text, PHRASES) == (masked, True)


@pytest.mark.parametrize("text", ["SmolLMs", "myChatGPT", "nothing", "", "trained by people"])
def test_other_words_stay(text):
    assert mask(text, PHRASES) == (text, False)


def test_without_phrases_nothing_is_masked():
    assert mask("SmolLM", []) == ("SmolLM", False)
    assert mask("a b", ["  "]) == ("a b", False)


@given(st.text(max_size=30), st.sampled_from(PHRASES), st.text(max_size=30))
def test_wherever_it_stands_as_a_word_it_is_gone(before, phrase, after):
    masked, found = mask(f"{before} {phrase} {after}", PHRASES)
    assert found
    assert MASK in masked
