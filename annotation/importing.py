"""Reading prompts from JSONL and CSV files. Pure: text in, rows or errors out; nothing is saved here."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

ROLES = ("system", "user", "assistant")
FIELDS = ("prompt", "tags", "source", "split")
# More than this many errors help nobody: the file is of another kind.
MOST_ERRORS = 20


@dataclass(frozen=True)
class PromptRow:
    """One prompt of a file, checked. `messages` is `[{"role", "content"}, ...]` and ends with the user."""

    line: int
    messages: list[dict[str, str]]
    tags: list[str] = field(default_factory=list)
    source: str = ""
    held_out: bool = False  # an import may force held-out, never train


class ImportErrors(ValueError):
    """Everything found wrong with a file, one line each: file, line, field, reason. Nothing was imported."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        more = f"\n… and {len(problems) - MOST_ERRORS} more" if len(problems) > MOST_ERRORS else ""
        super().__init__("\n".join(problems[:MOST_ERRORS]) + more + "\nNothing was imported.")


class FieldError(ValueError):
    """One field of one row is wrong."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name}: {reason}")


def read_rows(content: bytes, *, file: str) -> list[PromptRow]:
    """Every prompt in a `.jsonl` or `.csv` file.

    A row has `prompt` (a string, or a message list; in CSV a cell that starts with `[` is read as one), and may have
    `tags` (a list; in CSV separated by `;`), `source` and `split` (only `held_out`). Raises ImportErrors.
    """
    text = decoded(content, file=file)
    records = _csv_records(text) if file.lower().endswith(".csv") else jsonl_records(text)
    rows = checked_rows(records, _row, file=file)
    if not rows:
        raise ImportErrors([f"{file}: there is a header but no row."])
    return rows


def decoded(content: bytes, *, file: str) -> str:
    """The text of a file. Raises ImportErrors when it is none, or empty."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ImportErrors([f"{file}: byte {error.start}: not UTF-8. Save the file as UTF-8."]) from None
    if not text.strip():
        raise ImportErrors([f"{file}: the file is empty."])
    return text


def checked_rows(records: Iterable[tuple[int, Any]], check: Callable[[int, Any], T], *, file: str) -> list[T]:
    """What `check` makes of each (line, record). Raises ImportErrors naming all for which it raises FieldError."""
    rows, problems = [], []
    for line, record in records:
        try:
            if isinstance(record, FieldError):
                raise record
            rows.append(check(line, record))
        except FieldError as error:
            problems.append(f"{file}, line {line}, {error.name}: {error.reason}")
    if problems:
        raise ImportErrors(problems)
    return rows


def check_fields(record: Any, known: Sequence[str]) -> None:
    """Raise FieldError unless a record is an object with fields of these names only."""
    if not isinstance(record, dict):
        raise FieldError("row", f"expected an object with the field `prompt`, found {type(record).__name__}")
    unknown = [key for key in record if key not in known]
    if unknown:
        raise FieldError(str(unknown[0]), f"unknown field. Known are {', '.join(known)}.")


def asks_to_hold_out(record: dict[str, Any]) -> bool:
    """Whether a record asks for the held-out split. Raises FieldError when it asks for another."""
    split = record.get("split", "")
    if split not in ("", "held_out"):
        raise FieldError("split", f"{split!r} can't be asked for. Only `held_out` can; else leave it out.")
    return split == "held_out"


def jsonl_records(text: str) -> Iterator[tuple[int, Any]]:
    # split("\n") and not splitlines(): JSON strings may hold U+2028, which splitlines() takes for a line's end.
    for line, raw in enumerate(text.split("\n"), start=1):
        if not raw.strip():
            continue
        try:
            yield line, json.loads(raw)
        except (json.JSONDecodeError, RecursionError) as error:
            reason = getattr(error, "msg", "nested too deeply")
            yield line, FieldError("JSON", f"{reason} (column {getattr(error, 'colno', 1)})")


def _csv_records(text: str) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = reader.fieldnames or []
        if "prompt" not in columns:
            yield 1, FieldError("header", f"no column `prompt` among {columns}. Name one column `prompt`.")
            return
        named = [column for column in columns if column]  # spreadsheets leave empty ones at the end
        if len(set(named)) < len(named):
            yield 1, FieldError("header", f"a column stands twice among {columns}. Leave one out.")
            return
        for record in reader:
            if None in record:
                yield (
                    reader.line_num,
                    FieldError("row", "more cells than the header has columns. Quote commas."),
                )
                continue
            cells = {key: (value or "").strip() for key, value in record.items()}
            if cells["prompt"].startswith("["):
                with suppress(json.JSONDecodeError):  # else a text that happens to begin with a bracket
                    cells["prompt"] = json.loads(cells["prompt"])
            cells["tags"] = [tag.strip() for tag in cells.get("tags", "").split(";") if tag.strip()]
            yield reader.line_num, {key: value for key, value in cells.items() if value != ""}
    except csv.Error as error:
        yield reader.line_num + 1, FieldError("CSV", f"{error}. Check the quotes around this line.")


def _row(line: int, record: Any) -> PromptRow:
    check_fields(record, FIELDS)
    if "prompt" not in record:
        raise FieldError("prompt", "missing")
    tags = record.get("tags", [])
    if not isinstance(tags, list) or not all(
        isinstance(tag, str) and 0 < len(tag.strip()) <= 60 for tag in tags
    ):
        raise FieldError("tags", "expected a list of texts of 1 to 60 characters")
    source = record.get("source", "")
    if not isinstance(source, str) or len(source) > 200:
        raise FieldError("source", "expected a text of at most 200 characters")
    for name, text in [("source", source), *(("tags", tag) for tag in tags)]:
        if (reason := unkept(text)) is not None:
            raise FieldError(name, reason)
    held_out = asks_to_hold_out(record)
    return PromptRow(
        line=line,
        messages=checked_messages(record["prompt"]),
        tags=sorted({tag.strip() for tag in tags}),
        source=source,
        held_out=held_out,
    )


def unkept(text: str) -> str | None:
    """Why the database can't keep a text, or None when it can."""
    if "\x00" in text:
        return "holds a NUL character, which the database can't keep"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "holds half a character (a lone surrogate such as \\ud800), which is no text"
    return None


def checked_messages(prompt: Any) -> list[dict[str, str]]:
    """A prompt as messages. Raises FieldError for anything that is not a conversation ending with the user."""
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if not isinstance(prompt, list) or not prompt:
        raise FieldError("prompt", "expected a text or a non-empty list of messages")
    messages = []
    for number, message in enumerate(prompt, start=1):
        where = f"message {number}"
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise FieldError("prompt", f"{where}: expected an object with `role` and `content`")
        role, content = message["role"], message["content"]
        if role not in ROLES:
            raise FieldError("prompt", f"{where}: unknown role {role!r}. Known are {', '.join(ROLES)}.")
        if role == "system" and number > 1:
            raise FieldError("prompt", f"{where}: a system message can only come first")
        if not isinstance(content, str) or not content.strip():
            raise FieldError("prompt", f"{where}: the content is empty or not a text")
        if (reason := unkept(content)) is not None:
            raise FieldError("prompt", f"{where}: {reason}")
        messages.append({"role": role, "content": content})
    if messages[-1]["role"] != "user":
        raise FieldError("prompt", "the last message must be the user's: it is what is answered")
    return messages
