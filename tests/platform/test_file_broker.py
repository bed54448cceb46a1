"""The broker of one machine: a message is there whole or not at all."""

import os
from collections.abc import Iterator
from pathlib import Path
from queue import Empty

import pytest
from kombu import Connection

from rankloop.file_broker import Channel
from tests.platform.test_settings import PRODUCTION, load

TRANSPORT = "rankloop.file_broker.Transport"


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[Channel]:
    folders = dict.fromkeys(("data_folder_in", "data_folder_out", "control_folder"), str(tmp_path))
    with Connection("filesystem://", transport=TRANSPORT, transport_options=folders) as connection:
        yield connection.channel()


def test_it_is_the_broker_unless_another_is_named() -> None:
    assert load("CELERY_BROKER_TRANSPORT", **PRODUCTION).stdout.strip() == repr(TRANSPORT)
    named = load("CELERY_BROKER_TRANSPORT", **PRODUCTION, CELERY_BROKER_URL="redis://127.0.0.1/0")
    assert "has no attribute" in named.stderr


def test_no_message_is_taken_before_it_is_whole(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename
    written = []

    def look_first(part: str, whole: str) -> None:
        written.append(Path(part).read_text(encoding="utf-8"))
        with pytest.raises(Empty):
            channel._get("short")
        rename(part, whole)

    monkeypatch.setattr(os, "rename", look_first)
    channel._put("short", {"body": "wake up"})
    monkeypatch.undo()
    assert written == ['{"body": "wake up"}']
    assert channel._get("short") == {"body": "wake up"}
    with pytest.raises(Empty):
        channel._get("short")


def test_messages_come_in_their_order_and_each_from_its_queue(channel: Channel) -> None:
    for number in range(12):
        channel._put("short", {"number": number})
        channel._put("training", {"number": -number})
    assert [channel._get("short")["number"] for _ in range(12)] == list(range(12))
    assert channel._size("training") == 12
