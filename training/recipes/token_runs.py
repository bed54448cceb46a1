"""A conversation as the model sees it, in runs of text: what the template wrote, what is learnt, what is cut off."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from training.recipes.rendering import Message, neutralise_messages

LONGEST_RUN = 2400  # characters of one run that are shown; the middle of a longer one is left out


def token_runs(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    ids: Sequence[int],
    *,
    learnt: Sequence[bool],
    keep: int,
    asks: bool = False,
) -> list[dict[str, Any]]:
    """[{"text", "kind", "learnt", "cut"}, ...]: neighbours that are alike are one run.

    `ids` are the conversation's tokens and `learnt` says which are in the loss; those from `keep` on are cut off.
    `asks`: the prompt alone, up to where the assistant writes. `kind` is "special" for a control token, "template"
    for other text of the template, "text" for what people and models wrote.
    """
    pieces = _pieces(tokenizer, messages, ids, asks)
    runs: list[dict[str, Any]] = []
    for place, (text, kind) in enumerate(pieces):
        run = {
            "text": text,
            "kind": kind,
            "learnt": bool(learnt[place]) and place < keep,
            "cut": place >= keep,
        }
        # Each control token stands alone; other neighbours of the same kind are one run.
        if runs and kind != "special" and {**runs[-1], "text": ""} == {**run, "text": ""}:
            runs[-1]["text"] += text
        else:
            runs.append(run)
    for run in runs:
        run["text"] = _shortened(run["text"])
    return runs


def _pieces(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], ids: Sequence[int], asks: bool
) -> list[tuple[str, str]]:
    """(text, kind) of each token."""
    special = set(tokenizer.all_special_ids)
    neutral = neutralise_messages(tokenizer, messages)
    rendered = tokenizer.apply_chat_template(neutral, tokenize=False, add_generation_prompt=asks)
    encoded = tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast)
    if list(encoded["input_ids"]) != list(ids) or not tokenizer.is_fast:
        # The template's string does not come back to these tokens; then each is shown by itself.
        return [(tokenizer.decode([token]), "special" if token in special else "text") for token in ids]
    written = _written(rendered, neutral)
    pieces, reached = [], 0
    for token, (begin, end) in zip(ids, encoded["offset_mapping"], strict=True):
        kind = "special" if token in special else "text" if _is_within(begin, written) else "template"
        pieces.append((rendered[reached : max(reached, end)], kind))
        reached = max(reached, end)
    return pieces


def _written(rendered: str, messages: list[Message]) -> list[tuple[int, int]]:
    """Where in the rendered string the messages' own texts stand, as (begin, end)."""
    spans, after = [], 0
    for message in messages:
        text = message["content"] if message["content"] in rendered[after:] else message["content"].strip()
        begin = rendered.find(text, after) if text else -1
        if begin >= 0:
            after = begin + len(text)
            spans.append((begin, after))
    return spans


def _is_within(place: int, spans: list[tuple[int, int]]) -> bool:
    return any(begin <= place < end for begin, end in spans)


def _shortened(text: str) -> str:
    if len(text) <= LONGEST_RUN:
        return text
    half = LONGEST_RUN // 2
    return f"{text[:half]} … {len(text) - LONGEST_RUN} characters left out … {text[-half:]}"
