"""Asking the API as a program does, by token, or as a page does, by session with CSRF enforced."""

import json
from typing import Any

from django.test import Client

from rankloop.accounts.models import User
from rankloop.accounts.services import open_token


class Caller:
    """One user's way in. `csrf=False` leaves the CSRF token out, as a foreign page would have to."""

    def __init__(self, user: User | None, *, by: str = "token", csrf: bool = True) -> None:
        self.client = Client(enforce_csrf_checks=True)
        self.headers: dict[str, str] = {}
        if user is not None and by == "token":
            self.headers["Authorization"] = f"Bearer {open_token(user=user, name='a test')}"
        elif user is not None:
            self.client.force_login(user)
            if csrf:
                self.client.cookies["csrftoken"] = "0" * 32
                self.headers["X-CSRFToken"] = "0" * 32

    def get(self, address: str, **query: Any) -> Any:
        return self.client.get(address, query, headers=self.headers)

    def post(self, address: str, body: Any = None, *, content_type: str = "application/json") -> Any:
        content = body if isinstance(body, str | bytes) else json.dumps({} if body is None else body)
        return self.client.post(address, content, content_type=content_type, headers=self.headers)

    def put(self, address: str, body: Any) -> Any:
        return self.client.put(
            address, json.dumps(body), content_type="application/json", headers=self.headers
        )

    def patch(self, address: str, body: Any) -> Any:
        return self.client.patch(
            address, json.dumps(body), content_type="application/json", headers=self.headers
        )

    def delete(self, address: str) -> Any:
        return self.client.delete(address, headers=self.headers)


def all_pages(caller: Caller, address: str, **query: Any) -> list[dict[str, Any]]:
    """Every row of a list, page by page to the end, and the pages back again the same."""
    answer = caller.get(address, **query)
    pages = []
    while True:
        assert answer.status_code == 200, answer.content
        page = answer.json()
        pages.append(page["results"])
        if page["next"] is None:
            break
        answer = caller.get(page["next"])
    back = [page["results"]]
    while page["previous"] is not None:
        page = caller.get(page["previous"]).json()
        back.append(page["results"])
    assert back[::-1] == pages
    return [row for rows in pages for row in rows]
