"""What max_length leaves of completions, decided on their tokens before anything is trained. Pure, no torch.

A judged completion that is empty is left out and counted: annotators do see such completions, and one of them must not
stop a run. What is refused is what whoever launched the run can mend.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from training.recipes.answers import Answer
from training.recipes.pairs import Pair
from training.recipes.run_dir import RecipeError
from training.recipes.training_options import FEWEST

Item = TypeVar("Item", Pair, Answer)


class Row(NamedTuple):
    """A prompt with its completion, as the model reads them."""

    prompt: int  # how many of the tokens come before the completion
    ids: tuple[int, ...]


class Tokens(Protocol):
    """What is asked of a row here, whoever holds it."""

    @property
    def prompt(self) -> int: ...

    @property
    def ids(self) -> tuple[int, ...]: ...


@dataclass
class Cutting:
    """What becomes of the items of one file: places of those learnt from, and where the others stand."""

    kept: list[int] = field(default_factory=list)
    truncated: list[str] = field(default_factory=list)  # learnt from all the same, without their end
    too_long: list[str] = field(default_factory=list)  # left out, because their end must not be cut
    empty: list[str] = field(default_factory=list)  # left out
    cut_away: list[str] = field(default_factory=list)  # refused: of a completion nothing is left
    equal: list[str] = field(
        default_factory=list
    )  # refused: chosen and rejected are the same once they are cut

    @property
    def counts(self) -> dict[str, int]:
        """What result.json tells of it."""
        return {"truncated": len(self.truncated), "dropped": len(self.too_long) + len(self.empty)}


def sort_out(
    items: Sequence[Item], rows: Sequence[tuple[Row, ...]], max_length: int, *, whole: bool = False
) -> Cutting:
    """Decide on each of `items`; `rows` are its completions, chosen before rejected in a pair.

    `whole`: a row that is too long is left out rather than cut, as a reward model's is.
    """
    cut = Cutting()
    for place, (item, sides) in enumerate(zip(items, rows, strict=True)):
        fate = fate_of(item.texts, sides, max_length, whole=whole)
        if fate in ("kept", "truncated"):
            cut.kept.append(place)
        if fate != "kept":
            getattr(cut, fate).append(f"{item.where} (prompt {item.prompt_id}, ranking {item.ranking})")
    return cut


def fate_of(texts: Sequence[str], sides: Sequence[Tokens], max_length: int, *, whole: bool) -> str:
    """What becomes of one item: the name of its list in Cutting. `texts` and `sides` are its completions."""
    longest = max(len(side.ids) for side in sides)
    if not all(text.strip() for text in texts):
        return "empty"
    if whole and longest > max_length:
        return "too_long"
    if not whole and any(side.prompt >= max_length for side in sides):
        return "cut_away"
    if len({side.ids[:max_length] for side in sides}) < len(sides):
        return "equal"
    return "truncated" if longest > max_length else "kept"


def refuse(cut: Cutting, max_length: int, *, fewest: int) -> None:
    """Raise RecipeError, with a row and the remedy, when a file can't be learnt from as it is."""
    if cut.cut_away:
        raise RecipeError(
            f"In {len(cut.cut_away)} rows the prompt alone fills max_length = {max_length} tokens, so nothing of the "
            f"completion would be learnt; the first is {cut.cut_away[0]}. Raise max_length, or leave them out of the "
            "dataset."
        )
    if cut.equal:
        raise RecipeError(
            f"In {len(cut.equal)} rows chosen and rejected are the same tokens within max_length = {max_length}; the "
            f"first is {cut.equal[0]}. Raise max_length so that their difference is kept, or leave them out of the "
            "dataset."
        )
    if len(cut.kept) >= fewest:
        return
    reasons = [
        f"{len(cut.too_long)} are longer than max_length = {max_length} tokens, the first is {cut.too_long[0]}"
        if cut.too_long
        else "",
        f"{len(cut.empty)} hold an empty completion, the first is {cut.empty[0]}" if cut.empty else "",
    ]
    told = "; ".join(reason for reason in reasons if reason)
    raise RecipeError(
        f"{len(cut.kept)} rows are left to learn from or to measure with, and at least {fewest} are needed"
        f"{f' ({told})' if told else ''}. {'Raise max_length, or collect' if cut.too_long else 'Collect'} more "
        "judgments."
    )


def learnable(
    items: Sequence[Item],
    rows: Sequence[tuple[Row, ...]],
    max_length: int,
    *,
    whole: bool = False,
    fewest: int = FEWEST,
) -> tuple[list[Item], list[tuple[Row, ...]], dict[str, int]]:
    """(items, their rows, counts of what was cut) of what a recipe learns from. Raises RecipeError as `refuse` does."""
    cut = sort_out(items, rows, max_length, whole=whole)
    refuse(cut, max_length, fewest=fewest)
    for where in cut.too_long + cut.empty:
        print(f"left out: {where}", flush=True)
    return [items[i] for i in cut.kept], [rows[i] for i in cut.kept], cut.counts
