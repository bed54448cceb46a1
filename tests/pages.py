"""Pages as their readers see them."""

import re

from django.http import HttpResponse


def text_of(answer: HttpResponse) -> str:
    """The text of a page without its tags, each run of white space as one space."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", answer.content.decode()))
