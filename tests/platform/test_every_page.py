"""The list of pages in tests/showroom holds every page, and every page in it is there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from rankloop.accounts.models import User
from tests.showroom.filling import Room, fill
from tests.showroom.pages import NOT_PAGES, pages

pytestmark = pytest.mark.django_db


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return fill(tmp_path)


def named(patterns: list[URLPattern | URLResolver]) -> Iterator[str]:
    """The name of every address but the API's, which go by `api-...` or, where it has none, by no name."""
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from named(pattern.url_patterns)
        elif pattern.name and not pattern.name.startswith("api-"):
            yield pattern.name


def test_no_page_is_forgotten_and_no_exception_is_left_behind(room: Room) -> None:
    listed = {page.url for page in pages(room) if page.url}
    known = set(named(get_resolver().url_patterns))
    assert known - listed - set(NOT_PAGES) == set(), "add them to tests/showroom/pages.py"
    assert set(NOT_PAGES) - known == set()
    assert listed & set(NOT_PAGES) == set()


def test_every_page_answers_whom_it_is_for_with_html(room: Room, client: Client) -> None:
    found = pages(room)
    assert len({page.name for page in found}) == len(found)
    for page in found:
        client.logout()
        if page.user:
            client.force_login(User.objects.get(username=page.user))
        answer = client.get(page.address)
        assert (page.name, answer.status_code) == (page.name, page.status)
        assert answer["Content-Type"].startswith("text/html"), page.name
