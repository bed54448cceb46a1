"""Untrusted text to safe HTML: CommonMark with tables, then an allow-list. Pure.

No images (a request to elsewhere), no styles, no ids; links open apart and tell nobody where from. Each block finds its
own direction (right-to-left text), and characters that nobody sees but that change what is read are made visible.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import nh3
from markdown_it import MarkdownIt

_BLOCKS = ("p", "li", "h1", "h2", "h3", "h4", "h5", "h6", "th", "td", "blockquote")
_OTHERS = (
    "br",
    "hr",
    "em",
    "strong",
    "s",
    "code",
    "pre",
    "ul",
    "ol",
    "a",
    "table",
    "thead",
    "tbody",
    "tr",
    "span",
)
_CLEANER = nh3.Cleaner(
    tags={*_BLOCKS, *_OTHERS},
    attributes={"a": {"href"}, "ol": {"start"}},
    tag_attribute_values={"span": {"class": {"hidden-character"}}},
    url_schemes={"http", "https", "mailto"},
    link_rel="noopener noreferrer nofollow",
    set_tag_attribute_values={
        "a": {"target": "_blank"},
        "pre": {"dir": "ltr"},
        **{tag: {"dir": "auto"} for tag in _BLOCKS},
    },
)

# Bidi controls (they reorder what is read), zero-width and other invisible characters, tag characters.
_HIDDEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\U000e0000-\U000e007f]"
)
_JOINERS = "\u200c\u200d"


def show_hidden(text: str, mark: Callable[[str], str]) -> str:
    """The text with each hidden character replaced by `mark` of its code point, such as `U+202E`.

    The two joiners stay where scripts and emoji need them: between letters that are not Latin, or symbols.
    """

    def replaced(found: re.Match[str]) -> str:
        character, start = found.group(), found.start()
        if character in _JOINERS and start > 0 and _joins(text[start - 1]):
            return character
        return mark(f"U+{ord(character):04X}")

    return _HIDDEN.sub(replaced, text)


def _joins(before: str) -> bool:
    """Whether a joiner after this character is ordinary spelling: Arabic, Indic, emoji."""
    return ord(before) > 0x52F and unicodedata.category(before)[0] in "LMS"


def mark_hidden(html: str) -> str:
    """Escaped HTML with its hidden characters made visible, as `safe_html` shows them."""
    return show_hidden(html, _span)


def _span(code: str) -> str:
    return f'<span class="hidden-character">{code}</span>'


def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    # On what these rules put out, which is escaped: never inside a tag or an attribute.
    for name in ("text", "code_inline", "code_block", "fence"):
        markdown.add_render_rule(name, _showing_hidden(markdown.renderer.rules.get(name), name))
    return markdown


def _showing_hidden(rule: Any, name: str) -> Callable[..., str]:
    def render(self: Any, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
        tokens[index].info = ""  # a fence's language would become a class
        return show_hidden(rule(tokens, index, options, env), _span)

    return render


_MARKDOWN = _markdown()


def draft_html(text: str) -> str:
    """HTML of a text that is still being written: the same as safe_html, and not remembered."""
    return _CLEANER.clean(_MARKDOWN.render(text))


# Overlap brings each text back several times within minutes; 4,096 texts are a few megabytes.
@lru_cache(maxsize=4096)
def safe_html(text: str) -> str:
    """HTML of a text that a person, an import or a model wrote, safe to put into a page as it is."""
    return draft_html(text)
