"""Untrusted text to safe HTML: CommonMark with tables, then an allow-list. Pure.

No images (a request to elsewhere), no styles, no ids; links open apart and tell nobody where from.
"""

from functools import lru_cache

import nh3
from markdown_it import MarkdownIt

_MARKDOWN = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
_TAGS = {
    "p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a",
    "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
_CLEANER = nh3.Cleaner(
    tags=_TAGS,
    attributes={"a": {"href", "title"}, "ol": {"start"}},
    url_schemes={"http", "https", "mailto"},
    link_rel="noopener noreferrer nofollow",
    set_tag_attribute_values={"a": {"target": "_blank"}},
)


# Overlap brings each text back several times within minutes; 4,096 texts are a few megabytes.
@lru_cache(maxsize=4096)
def safe_html(text: str) -> str:
    """HTML of a text that a person, an import or a model wrote, safe to put into a page as it is."""
    return _CLEANER.clean(_MARKDOWN.render(text))
