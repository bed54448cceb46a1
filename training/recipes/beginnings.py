"""What rows of a batch begin with alike, such as their prompt, is computed once.

Four completions of one prompt repeat it four times, and often it is the longer part. Here the model reads it once and
keeps its keys and values; each completion goes on from a copy of them, and the gradients of all meet there. It is what
generation does with a prompt, with a backward pass: equal up to rounding to the rows computed whole.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

# Layers with keys and values to hand on.
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
WORTH_IT = 0.9  # of the tokens of whole rows: two smaller passes have a price of their own


@dataclass(frozen=True)
class Beginnings:
    """How rows are shared out: those at `rows[i]` stand in group `groups[i]`, groups in ascending order.

    All rows of a group are equal in their first `lengths[group]` columns, and nobody asks for what comes of these.
    `tokens` counts what is computed, with padding.
    """

    rows: list[int]
    groups: list[int]
    lengths: list[int]
    tokens: int


def hidden_states(
    backbone: PreTrainedModel, ids: Tensor, attention: Tensor, wanted: Tensor, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """The last hidden states of each row from a column on that is at most `wanted[row]`, and that column.

    `ids` and `attention` are (batch, seq), `wanted` (batch,); the results (batch, at most seq, width) and (batch,):
    `hidden[i, k]` is of column `first[i] + k`. It is of no use beyond the row's end.
    """
    kwargs |= {"use_cache": False}
    shared = None if _needs_whole_rows(backbone) else find_beginnings(ids, attention, wanted)
    if shared is None:
        output = backbone(input_ids=ids, attention_mask=attention, **kwargs)
        return output.last_hidden_state, torch.zeros_like(wanted)

    order, group, length = (
        torch.tensor(part, device=ids.device) for part in (shared.rows, shared.groups, shared.lengths)
    )
    ids, attention = ids[order], attention[order]
    sizes = torch.bincount(group)
    heads = sizes.cumsum(0) - sizes  # (groups,): the first row of each
    kwargs |= {"use_cache": True}

    # Beginnings of different lengths are padded on the left, so that all end where the rest begins.
    widest = int(length.max())
    places = torch.arange(widest, device=ids.device) - (widest - length)[:, None]  # (groups, widest)
    begun_ids, begun = _at(places, ids[heads], attention[heads])
    cache = backbone(
        input_ids=begun_ids, attention_mask=begun, position_ids=places.clamp(min=0), **kwargs
    ).past_key_values
    even = bool((sizes == sizes[0]).all())
    cache.batch_repeat_interleave(int(sizes[0]) if even else sizes)

    first = length[group]  # (batch,)
    longest = int((ends(attention) - first).max())
    places = first[:, None] + torch.arange(longest, device=ids.device)  # (batch, longest)
    rest_ids, rest = _at(places, ids, attention)
    output = backbone(
        input_ids=rest_ids,
        attention_mask=torch.cat([begun[group], rest], dim=1),
        position_ids=places,
        past_key_values=cache,
        **kwargs,
    )
    back = order.argsort()
    return output.last_hidden_state.index_select(0, back), first[back]


def read_once(backbone: PreTrainedModel, ids: Tensor, attention: Tensor) -> Cache | None:
    """Keys and values of all but the last column of prompts to go on from: of equal prompts computed once.

    `ids` and `attention` are (batch, prompt), padded on the left. None where no two are equal, or where keys and values
    can't be handed on.
    """
    (different, begun), where = different_rows(ids, attention)
    if len(different) == len(ids) or ids.shape[1] == 1 or _needs_whole_rows(backbone):
        return None
    places = (begun.cumsum(dim=1) - 1).clamp(min=0)
    cache = backbone(
        input_ids=different[:, :-1],
        attention_mask=begun[:, :-1],
        position_ids=places[:, :-1],
        use_cache=True,
    ).past_key_values
    cache.batch_select_indices(where)
    return cache


def find_beginnings(ids: Tensor, attention: Tensor, wanted: Tensor) -> Beginnings | None:
    """The sharing that leaves the fewest tokens to compute, or None where it would not pay.

    Sorted rows that begin alike are neighbours; wherever two of them agree on fewer than so many columns, a group ends.
    Every such number of columns that occurs is tried.
    """
    rows = ids.masked_fill(attention == 0, -1).tolist()
    stops, latest = ends(attention).tolist(), wanted.tolist()
    order = sorted(range(len(rows)), key=rows.__getitem__)
    alike = [  # of each row and the one before it
        min(_alike(rows[a], rows[b]), latest[a], latest[b]) for a, b in pairwise(order)
    ]
    best, most = None, WORTH_IT * len(rows) * len(rows[0])
    for least in sorted({columns for columns in alike if columns > 0}):
        groups, lengths = [0], [latest[order[0]]]
        for columns, row in zip(alike, order[1:], strict=True):
            if columns < least:
                lengths.append(latest[row])
            else:
                lengths[-1] = min(lengths[-1], columns)
            groups.append(len(lengths) - 1)
        # A row for itself could be begun at any length: not beyond what others are.
        shared = [length for number, length in enumerate(lengths) if groups.count(number) > 1]
        lengths = [min(length, max(shared)) for length in lengths]
        rest = max(stops[row] - lengths[group] for row, group in zip(order, groups, strict=True))
        tokens = len(lengths) * max(lengths) + len(rows) * rest
        if tokens < (best.tokens if best else most):
            best = Beginnings(order, groups, lengths, tokens)
    return best


def different_rows(*tensors: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """The rows that differ in any of the (batch, seq) `tensors`, and where each row of the batch is among them."""
    rows, where = torch.unique(
        torch.cat(tensors, dim=1), dim=0, return_inverse=True
    )  # (different, n * seq), (batch,)
    if len(rows) == len(where):
        return tensors, torch.arange(len(where), device=where.device)
    return rows.chunk(len(tensors), dim=1), where


def ends(attention: Tensor) -> Tensor:
    """(batch, seq) to (batch,): the column after the last token of each row."""
    return (attention * torch.arange(1, attention.shape[1] + 1, device=attention.device)).amax(dim=1)


def layers_of(model: PreTrainedModel) -> list[GradientCheckpointingLayer]:
    """Those that can be computed anew in the backward pass: they do so in training mode when told to."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _needs_whole_rows(backbone: PreTrainedModel) -> bool:
    """Whether keys and values can't be handed on: to a model with another kind of state, or one that forgets them
    in the forward pass to compute them anew in the backward one.
    """
    kinds = set(getattr(backbone.config, "layer_types", None) or ATTENTION)
    recomputes = any(layer.training and layer.gradient_checkpointing for layer in layers_of(backbone))
    return backbone._is_stateful or not kinds <= ATTENTION or recomputes


def _alike(one: list[int], other: list[int]) -> int:
    return next((column for column, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))


def _at(places: Tensor, ids: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens and attention at (rows, columns) places; no attention where a row has no such place."""
    there = (places >= 0) & (places < ids.shape[1])
    places = places.clamp(0, ids.shape[1] - 1)
    return ids.gather(1, places), attention.gather(1, places) * there
