"""Doing things at once: threads that start together, each with a database connection of its own."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connection

T = TypeVar("T")


def together(count: int, work: Callable[[int], T]) -> list[T]:
    """Run work(0) ... work(count - 1) at once and return what they returned, in order. An error in one rises here.

    Needs a test whose rows are committed: `django_db(transaction=True)`.
    """
    start = threading.Barrier(count)

    def one(number: int) -> T:
        try:
            start.wait()
            return work(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(max_workers=count) as pool:
        return list(pool.map(one, range(count)))


def outcome_of(work: Callable[[], T], *refusals: type[Exception]) -> T | Exception:
    """What the work returns, or the refusal it raised: for counting who won."""
    try:
        return work()
    except refusals as refusal:
        return refusal
