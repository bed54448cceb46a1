"""Celery's messages as files in a folder: the broker of one machine, which needs nothing installed.

kombu's own transport opens a message's file under the name that workers look for, and writes it then. A worker that
looks in between takes an empty message, and ends (celery/kombu#1551). Here a message has its name when it is whole.
"""

import os
import time
import uuid
from typing import Any

from kombu.transport import filesystem
from kombu.utils.json import dumps


class Channel(filesystem.Channel):
    def _put(self, queue: str, payload: dict[str, Any], **kwargs: Any) -> None:
        name = f"{time.time_ns()}_{uuid.uuid4()}.{queue}.msg"  # of a queue's files the first by name is taken first
        whole = os.path.join(self.data_folder_out, name)
        with open(f"{whole}.part", "w", encoding="utf-8") as file:
            file.write(dumps(payload))
        os.rename(file.name, whole)


class Transport(filesystem.Transport):
    Channel = Channel
