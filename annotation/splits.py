"""Train or held-out: decided once, by a salted hash of the first user turn. Pure.

The first turn decides, because data sets repeat it under different continuations (hh-rlhf does): were the whole
conversation hashed, a held-out prompt could be seen in training through a sibling.
"""

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence

Messages = Sequence[Mapping[str, str]]


def normalised(text: str) -> str:
    """Unicode NFKC, lower case, single spaces: texts that a reader takes for the same become equal."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def first_user_turn(messages: Messages) -> str:
    """Content of the first user message. Raises ValueError when there is none."""
    for message in messages:
        if message["role"] == "user":
            return message["content"]
    raise ValueError("a prompt needs a user message")


def content_hash(messages: Messages) -> str:
    """SHA-256 (hex) of the whole conversation, exact: what makes two prompts the same prompt."""
    canonical = json.dumps(
        [[m["role"], m["content"]] for m in messages], ensure_ascii=False, separators=(",", ":")
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


def split_of(messages: Messages, *, salt: str, held_out_share: float) -> str:
    """`"held_out"` for about `held_out_share` of all first user turns, else `"train"`; the same answer for ever."""
    digest = hashlib.sha256(f"{salt}\n{normalised(first_user_turn(messages))}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64  # uniform in [0, 1)
    return "held_out" if position < held_out_share else "train"
