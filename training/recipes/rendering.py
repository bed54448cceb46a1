"""From messages to tokens, in one place, so that training, scoring and sampling see the very same string.

Conversations are written by people and by models, and either may type `<|im_end|>`. A tokenizer turns that
text into the real control token, which ends the turn and lets the rest pose as another speaker. So every text
is neutralised before the template sees it: a space after the first character leaves it readable and without
power.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedTokenizerBase

from training.recipes.cutting import Row
from training.recipes.run_dir import RecipeError

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}


class UnmarkedCompletion(RecipeError):
    """A chat template does not let a completion be told from its prompt."""


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Every string this tokenizer reads as a control token, longest first."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    strings = {token for token in added | set(tokenizer.all_special_tokens) if len(token.strip()) > 1}
    return sorted(strings, key=lambda token: (-len(token), token))


def neutralise(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """`text` without control tokens: `<|im_end|>` becomes `< |im_end|>`. Other text comes back as it was."""
    strings = control_tokens(tokenizer)
    if not any(token in text for token in strings):
        return text
    # A look-ahead, so that tokens which overlap are all found.
    starts = re.compile(f"(?=(?:{'|'.join(map(re.escape, strings))}))(.)", re.DOTALL)
    return starts.sub(r"\1 ", text)


def neutralise_messages(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[Message]:
    return [{"role": m["role"], "content": neutralise(tokenizer, m["content"])} for m in messages]


def conversation_ids(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """Tokens of a whole conversation, as a reward model is trained on it and must score it.

    That includes whatever the template puts after the last turn: a score is read at the last token, and
    without the newline after `<|im_end|>` the margin of a good answer fell from 4.9 to 0.1.
    """
    return _render(tokenizer, messages, add_generation_prompt=False)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """Tokens of a prompt up to where the assistant starts to write."""
    return _render(tokenizer, messages, add_generation_prompt=True)


def completion_rows(
    tokenizer: PreTrainedTokenizerBase, conversations: Iterable[tuple[list[Message], list[Message]]]
) -> list[Row]:
    """Every (prompt, completion) as tokens. One that comes again is rendered once."""
    rendered: dict[str, Row] = {}
    rows = []
    for prompt, completion in conversations:
        key = json.dumps([prompt, completion])
        if key not in rendered:
            rendered[key] = completion_row(tokenizer, prompt, completion)
        rows.append(rendered[key])
    return rows


def completion_row(
    tokenizer: PreTrainedTokenizerBase, prompt: list[Message], completion: list[Message]
) -> Row:
    """A prompt and its completion as tokens, each told from the other.

    The completion is all that the template puts after the prompt: the text, its end of turn, and what may stand
    behind that. Raises UnmarkedCompletion when the template writes the prompt otherwise once an answer follows.
    """
    before, whole = prompt_ids(tokenizer, prompt), conversation_ids(tokenizer, prompt + completion)
    if whole[: len(before)] != before:
        # A completion that begins with line breaks can melt into the last token of the prompt. A model that samples
        # starts behind that token, so it must learn from there as well.
        asked = _render(tokenizer, prompt, tokenize=False, add_generation_prompt=True)
        said = _render(tokenizer, prompt + completion, tokenize=False, add_generation_prompt=False)
        if said.startswith(asked):
            whole = before + tokenizer(said[len(asked) :], add_special_tokens=False)["input_ids"]
    if whole[: len(before)] != before or len(whole) == len(before):
        raise UnmarkedCompletion(
            "The model's chat template writes a prompt otherwise once an answer follows it, so the answer can't be "
            "told from the prompt. Choose a model whose template begins an answer as its add_generation_prompt does, "
            "or mend its chat_template."
        )
    return Row(len(before), tuple(whole))


def with_system_prompt(messages: list[Message], system_prompt: str) -> list[Message]:
    """`messages` under a contestant's system prompt. A prompt that brings its own keeps it, below the contestant's."""
    if not system_prompt:
        return messages
    if messages and messages[0]["role"] == "system":
        system_prompt, messages = f"{system_prompt}\n\n{messages[0]['content']}", messages[1:]
    return [{"role": "system", "content": system_prompt}, *messages]


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], tokenize: bool = True, **how: Any
) -> Any:
    """Token ids, or with `tokenize` false the text."""
    try:
        return tokenizer.apply_chat_template(
            neutralise_messages(tokenizer, messages), tokenize=tokenize, return_dict=False, **how
        )
    except Exception as error:  # a template is the model author's program and may refuse with anything
        roles = ", ".join(m["role"] for m in messages)
        raise RecipeError(
            f"The model's chat template refuses a conversation of roles {roles}: {error}. "
            "Change the prompt or the model."
        ) from error
