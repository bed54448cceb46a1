"""What changed between two texts, word by word."""

from hypothesis import given
from hypothesis import strategies as st

from annotation import differences as module
from annotation.differences import Part, changes_html, differences

# Few different words, so that texts have much in common, with spaces and line breaks of every kind between them.
TEXTS = st.lists(
    st.sampled_from(["tea", "pot", "Tea", ".", " ", "  ", "\n", "\n\n", "\r\n", "é", "<b>"]), max_size=40
)


@given(TEXTS.map("".join), TEXTS.map("".join))
def test_both_texts_come_back_from_the_parts(old: str, new: str) -> None:
    parts = differences(old, new)
    assert "".join(part.text for part in parts if part.kind != "del") == new
    assert "".join(part.text for part in parts if part.kind != "ins") == old


@given(st.text(), st.text())
def test_any_text_at_all_comes_back(old: str, new: str) -> None:
    parts = differences(old, new)
    assert "".join(part.text for part in parts if part.kind != "del") == new
    assert "".join(part.text for part in parts if part.kind != "ins") == old


@given(TEXTS.map("".join))
def test_equal_texts_have_no_changes(text: str) -> None:
    assert [part.kind for part in differences(text, text)] == ["equal"][: len(text)]


def test_a_changed_word_is_told_and_no_more_than_that() -> None:
    assert differences("Be kind.\n\nBe brief.\n", "Be kind.\n\nBe very brief!\n") == [
        Part("equal", "Be kind.\n\nBe "),
        Part("ins", "very "),
        Part("equal", "brief"),
        Part("del", "."),
        Part("ins", "!"),
        Part("equal", "\n"),
    ]


def test_words_changed_in_a_row_are_read_together() -> None:
    assert differences("Put the best one first", "Put any good one first")[1:3] == [
        Part("del", "the best"),
        Part("ins", "any good"),
    ]


def test_a_line_that_grew_and_one_that_went_are_told_apart() -> None:
    assert differences("1. True?\n2. Short?\n", "1. True, with amounts?\n") == [
        Part("equal", "1. True"),
        Part("ins", ", with amounts"),
        Part("equal", "?\n"),
        Part("del", "2. Short?\n"),
    ]


def test_what_is_too_large_to_be_matched_is_still_told_whole(monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST_PAIRS", 3)
    old, new = "a\nb\nc d\nz", "a\nx\nc y\nz"
    assert differences(old, new) == [
        Part("equal", "a\n"),
        Part("del", "b\nc d"),
        Part("ins", "x\nc y"),
        Part("equal", "\nz"),
    ]


def test_nothing_of_either_text_becomes_markup() -> None:
    html = changes_html("<i>old</i> & more", "<script>alert('x')</script> & more")
    assert "<script" not in html
    assert "<i>" not in html
    assert "&amp; more" in html
    assert html.count("<ins>") == html.count("</ins>") >= 1
    assert html.count("<del>") == html.count("</del>") >= 1
