"""Counting tokens without torch: the `tokenizers` package reads the default model's tokenizer.json."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from django.conf import settings

# What a chat template adds to each message (role, separators), on the safe side of what real templates add.
TOKENS_PER_MESSAGE = 6


@lru_cache(maxsize=2)
def _tokenizer(path: str):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(path)


def count_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    """Tokens of a conversation, template included, near enough for a limit; the exact check is at launch.

    Without a model folder (nothing fetched yet) four bytes count as one token.
    """
    file = Path(settings.DEFAULT_MODEL) / "tokenizer.json"
    texts = [message["content"] for message in messages]
    if file.is_file():
        counts = [
            len(encoding.ids)
            for encoding in _tokenizer(str(file)).encode_batch(texts, add_special_tokens=False)
        ]
    else:
        counts = [-(-len(text.encode()) // 4) for text in texts]
    return sum(counts) + TOKENS_PER_MESSAGE * len(messages)
