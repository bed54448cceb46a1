"""What online recipes reward. Pure: a learned reward comes from `shared_base`; here are those that can be checked.

Each takes the text of a completion and returns a number from 0 to 1.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema_specifications import REGISTRY
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from training.recipes.options_from_samples import RolloutOptions
from training.recipes.run_dir import RecipeError

Check = Callable[[str], float]
# Scripts that put no spaces between words: Thai to Tibetan, Burmese, Khmer, Japanese, Chinese.
UNSPACED = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
ENDLESS = "json_schema refers to itself without end. Take out the $ref that leads back to where it stands."


def check_of(options: RolloutOptions) -> Check | None:
    """The verifiable reward these options name, None for the learned one. Raises RecipeError for what it lacks."""
    if options.reward == "valid_json":
        return valid_json(options.json_schema)
    if options.reward == "required_words":
        return required_words(options.required_words)
    if options.reward == "length":
        return target_length(options.target_words)
    return None


def valid_json(schema: str) -> Check:
    """1 for JSON that satisfies the schema, 0.5 for any other JSON object or list, 0 for what is none."""
    try:
        wanted = json.loads(schema or "true")
        Draft202012Validator.check_schema(wanted)
        validator = Draft202012Validator(
            wanted, registry=REGISTRY
        )  # that one fetches nothing from the network
        resolver = REGISTRY.with_resource("", DRAFT202012.create_resource(wanted)).resolver()
        for reference in _references(wanted):
            resolver.lookup(reference)
        validator.is_valid({})
    except ValueError as error:
        raise RecipeError(
            f"json_schema is not JSON ({error}). Give a JSON schema, or leave it empty."
        ) from None
    except SchemaError as error:
        raise RecipeError(
            f"json_schema is no JSON schema: {error.message}. Mend it, or leave it empty."
        ) from None
    except Unresolvable:
        raise RecipeError(
            f"json_schema refers to {reference!r}, which is not in it. Put it under $defs."
        ) from None
    except RecursionError:
        raise RecipeError(ENDLESS) from None

    def check(text: str) -> float:
        try:
            value = json.loads(text, parse_constant=_no_json)
        except (ValueError, RecursionError):
            return 0.0
        if not isinstance(value, dict | list):  # "7" is JSON too, and too cheap an answer
            return 0.0
        try:
            return 1.0 if validator.is_valid(value) else 0.5
        except RecursionError:
            raise RecipeError(ENDLESS) from None

    return check


def _no_json(name: str) -> float:
    """NaN and Infinity, which Python reads and JSON does not know."""
    raise ValueError(f"{name} is no JSON")


def _references(schema: Any) -> Iterator[str]:
    """Each $ref within a schema, however deep."""
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
        yield schema["$ref"]
    for part in inner:
        yield from _references(part)


def required_words(words: str) -> Check:
    """The share of the words, given with commas between, that the text holds as whole words, whatever their case."""
    wanted = [word.strip().casefold() for word in words.split(",") if word.strip()]
    if not wanted:
        raise RecipeError(
            "required_words names no word. Give words with commas between, or choose another reward."
        )
    found = [_as_whole_word(word) for word in wanted]
    return lambda text: sum(bool(word.search(text.casefold())) for word in found) / len(wanted)


def _as_whole_word(word: str) -> re.Pattern[str]:
    """Where it is no part of a longer one, as "art" in "party". Signs and unspaced scripts know no such border."""
    letter = rf"[^\W{UNSPACED}]"
    before, after = (rf"(?{where}!{letter})" for where in ("<", ""))
    starts, ends = (bool(re.match(letter, edge)) for edge in (word[0], word[-1]))
    return re.compile((before if starts else "") + re.escape(word) + (after if ends else ""))


def target_length(words: int) -> Check:
    """1 for a text of that many words, falling evenly to 0 for an empty one and for one of twice as many."""
    return lambda text: max(0.0, 1.0 - abs(len(text.split()) - words) / words)
