"""How one option of a recipe is described, read and checked. No torch, no names of methods."""

import dataclasses
import math
from contextlib import suppress
from dataclasses import field, fields
from typing import Any

from training.recipes.run_dir import RecipeError


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    source: str,
) -> Any:
    """One option. `low` and `high` are inclusive; of a text, `high` is how many characters it may have.

    `source` says where the default comes from.
    """
    described = {"help": help, "low": low, "high": high, "choices": choices, "source": source}
    return field(default=default, metadata=described)


def fill(kind: type, given: dict[str, Any], *, of: str) -> Any:
    """An instance of the options dataclass `kind`, defaults filled in; `of` names it in errors.

    Raises RecipeError naming the option, its range and the remedy.
    """
    known = {f.name: f for f in fields(kind)}
    for name in given:
        if name not in known:
            raise RecipeError(f"{of} has no option {name!r}. Remove it, or choose from: {', '.join(known)}.")
    return kind(**{name: _checked(known[name], value) for name, value in given.items()})


def describe(kind: type) -> list[dict[str, Any]]:
    """Every option of `kind` as {"name", "type", "default", "help", "low", "high", "choices", "source"}."""
    return [{"name": f.name, "type": _type_name(f), "default": f.default, **f.metadata} for f in fields(kind)]


def _checked(known: dataclasses.Field, value: Any) -> Any:
    """`value` as the type of the option, or RecipeError."""
    wanted, (low, high, choices) = _type_name(known), (known.metadata[k] for k in ("low", "high", "choices"))
    remedy = f"Set {known.name} to {_range_text(wanted, low, high, choices)} (default {known.default})."
    if wanted == "float" and isinstance(value, int) and not isinstance(value, bool):
        with suppress(OverflowError):  # of hundreds of digits: it stays what it is, and is refused
            value = float(value)
    if type(value).__name__ != wanted or (wanted == "float" and not math.isfinite(value)):
        raise RecipeError(f"{known.name} is {shown(value)}. {remedy}")
    if choices is not None and value not in choices:
        raise RecipeError(f"{known.name} is {shown(value)}. {remedy}")
    if wanted == "str" and any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value):
        raise RecipeError(
            f"{known.name} is {shown(value)}, and holds a NUL character or half a character (a lone surrogate). "
            "Take that out."
        )
    size = len(value) if wanted == "str" else value
    if (low is not None and size < low) or (high is not None and size > high):
        raise RecipeError(f"{known.name} is {shown(value)}, out of range. {remedy}")
    return value


def shown(value: Any) -> str:
    """A value as an error shows it, its middle left out when it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:38]} … {text[-38:]}"


def _type_name(known: dataclasses.Field) -> str:
    return known.type if isinstance(known.type, str) else known.type.__name__


def _range_text(wanted: str, low: float | None, high: float | None, choices: tuple[str, ...] | None) -> str:
    if choices is not None:
        return "one of " + ", ".join(choices)
    if wanted == "str":
        return f"a text of at most {high:g} characters"
    return f"{'a whole number' if wanted == 'int' else 'a number'} from {low:g} to {high:g}"
