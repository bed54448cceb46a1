"""The README.md that goes with exported weights: what they are, what they learned from, how good they are. Pure.

Names come from people and files: each is written so that it can be neither Markdown, nor HTML, nor YAML of its own.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Data:
    """A frozen dataset. `judgments` counts them by who judged, in words."""

    digest: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Measured:
    """What was measured on held-out prompts, with its 95 % interval when it has one."""

    what: str
    value: float
    is_share: bool = True
    low: float | None = None
    high: float | None = None
    number: int | None = None


@dataclass(frozen=True)
class CardFacts:
    """All that a card tells. `lineage` are the runs that led here, the latest first, each in a few words."""

    name: str
    digest: str
    kind: str  # policy or reward
    is_adapter: bool
    base_name: str
    base_digest: str
    project: str
    method: str
    options: Mapping[str, Any]
    seed: int
    threads: int | None
    code_version: str
    rank: int | None
    alpha: float | None
    targets: Sequence[str]
    parameters: int
    data: Sequence[Data] = ()
    judgments: Mapping[str, int] = field(default_factory=dict)
    measured: Sequence[Measured] = ()
    lineage: Sequence[str] = ()


def model_card(facts: CardFacts, *, merged: bool = False) -> str:
    """The card as Markdown with a head of YAML, as model hubs read it. `merged`: the adapter is in the weights."""
    return "\n".join([*_head(facts, merged), *_what_it_is(facts, merged), *_body(facts)]) + "\n"


def _head(facts: CardFacts, merged: bool) -> Iterator[str]:
    is_adapter = facts.is_adapter and not merged
    yield "---"
    yield f"base_model: {_yaml(facts.base_name)}"
    yield f"library_name: {'peft' if is_adapter else 'transformers'}"
    yield f"pipeline_tag: {'text-classification' if facts.kind == 'reward' else 'text-generation'}"
    yield f"tags: [rankloop, {_yaml(facts.method.lower())}{', lora' if is_adapter else ''}]"
    yield "---"
    yield ""


def _what_it_is(facts: CardFacts, merged: bool) -> Iterator[str]:
    yield f"# {_text(facts.name)}"
    yield ""
    what = (
        "reward model, which scores answers," if facts.kind == "reward" else "policy, which writes answers,"
    )
    if merged:
        form = f"whole weights: the adapter is merged into its base {_text(facts.base_name)}"
    elif facts.is_adapter:
        form = f"a LoRA adapter of rank {facts.rank} on {_text(facts.base_name)}, and of use only together with it"
    else:
        form = f"whole weights that began as {_text(facts.base_name)}"
    yield f"A {what} trained by {_text(facts.method)} in the Rankloop project “{_text(facts.project)}”. It is {form}."
    yield ""
    rows = {
        "Digest of the checkpoint": f"`{facts.digest}`",
        "Digest of the base": f"`{facts.base_digest}`",
        "Parameters here": f"{facts.parameters:,}" if not merged else "those of the base",
    }
    if facts.is_adapter:
        rows |= {
            "LoRA rank and alpha": f"{facts.rank} and {facts.alpha:g}" if facts.alpha else str(facts.rank),
            "LoRA targets": _text(", ".join(facts.targets)),
        }
    yield from _table(("", ""), rows.items())


def _body(facts: CardFacts) -> Iterator[str]:
    yield "## How good it is"
    yield ""
    if facts.measured:
        yield "On held-out prompts, never trained on. Intervals hold 95 % and are resampled by prompt."
        yield ""
        yield from _table(
            ("Measured", "Result"), ((_text(each.what), _result(each)) for each in facts.measured)
        )
    else:
        yield from ("Nothing was measured.", "")
    yield "## What it learned from"
    yield ""
    if facts.judgments:
        by = ", ".join(f"{number:,} by {_text(who)}" for who, number in facts.judgments.items())
        yield from (f"Judgments behind it, through all its parents and reward models: {by}.", "")
    if facts.data:
        rows = (
            (
                f"`{each.digest}`",
                _text(", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in each.counts.items() if n)),
            )
            for each in facts.data
        )
        yield from _table(("Dataset", "What is in it"), rows)
    else:
        yield from ("No dataset is known.", "")
    yield "## How it was trained"
    yield ""
    version = _text(facts.code_version) or "of unknown version"
    yield f"Seed {facts.seed}, {facts.threads or 'all'} threads, Rankloop {version}."
    yield ""
    yield from _table(
        ("Option", "Value"), ((_text(name), _text(_value(value))) for name, value in facts.options.items())
    )
    if len(facts.lineage) > 1:
        yield from ("The runs that led here, the latest first:", "")
        yield from (f"{number}. {_text(line)}" for number, line in enumerate(facts.lineage, 1))
        yield ""
    yield "## Licence"
    yield ""
    yield f"These weights derive from {_text(facts.base_name)}: its licence and its terms of use hold for them, too."
    yield "Read both before you pass the weights on. The people whose judgments they learned from may have been"
    yield "promised something as well, and what a model wrote into the training data is bound by that model's terms."


def _table(head: tuple[str, str], rows: Any) -> Iterator[str]:
    yield f"| {head[0]} | {head[1]} |"
    yield "|---|---|"
    yield from (f"| {name} | {value} |" for name, value in rows)
    yield ""


def _result(measured: Measured) -> str:
    form = ".1%" if measured.is_share else ".4g"
    text = f"{measured.value:{form}}"
    if measured.low is not None and measured.high is not None:
        text += f" [{measured.low:{form}}, {measured.high:{form}}]"
    return text + (f" of {measured.number:,}" if measured.number else "")


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _text(text: str) -> str:
    """One line in which nothing is markup."""
    line = re.sub(r"([\\`*_{}\[\]<>|~&$])", r"\\\1", _line(text))
    return re.sub(r"^(\d*)([#+=.)-])", r"\1\\\2", line)


def _yaml(text: str) -> str:
    """A YAML string: JSON's are YAML's."""
    return json.dumps(_line(text), ensure_ascii=False)


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in " ".join(str(text).split()))
