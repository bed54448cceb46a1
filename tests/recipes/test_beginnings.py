"""What rows begin with alike is computed once, and each row still gets what it would get alone."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, PreTrainedModel

from training.recipes.beginnings import WORTH_IT, ends, find_beginnings, hidden_states

PAD = 0


@pytest.fixture
def backbone(tiny_model) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).base_model


def batch(prompts: list[int], completions: list[int], *, padding: str = "right") -> dict[str, torch.Tensor]:
    """Rows of random tokens: for each prompt (so many tokens) each completion (so many tokens), shuffled."""
    chance = random.Random(3)
    rows = []
    for length in prompts:
        prompt = [chance.randrange(5, 90) for _ in range(length)]
        rows += [(prompt, [chance.randrange(5, 90) for _ in range(new)]) for new in completions]
    chance.shuffle(rows)
    width = max(len(prompt) + len(completion) for prompt, completion in rows)
    ids = torch.full((len(rows), width), PAD)
    wanted = torch.zeros(len(rows), dtype=torch.long)
    for number, (prompt, completion) in enumerate(rows):
        # As samples of TRL's trainers have it: prompts end in one column.
        start = max(prompts) - len(prompt) if padding == "left" else 0
        stop = start + len(prompt) + len(completion)
        ids[number, start:stop] = torch.tensor(prompt + completion)
        wanted[number] = start + len(prompt) - 1
    return {"ids": ids, "attention": (ids != PAD).long(), "wanted": wanted}


def without_last(rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: part[:-1] for name, part in rows.items()}


def whole_rows(backbone: PreTrainedModel, rows: dict[str, torch.Tensor]) -> torch.Tensor:
    return backbone(
        input_ids=rows["ids"], attention_mask=rows["attention"], use_cache=False
    ).last_hidden_state


def watched(backbone: PreTrainedModel) -> list[tuple[int, int]]:
    """(rows, columns) of each forward pass from now on."""
    computed: list[tuple[int, int]] = []
    backbone.register_forward_hook(
        lambda _, inputs, output: computed.append(tuple(output.last_hidden_state.shape[:2]))
    )
    return computed


def in_columns(hidden: torch.Tensor, first: torch.Tensor, width: int) -> torch.Tensor:
    """(batch, seq, width) with zeros where nothing was computed."""
    found = hidden.new_zeros(len(hidden), width, hidden.shape[2])
    for row, start in enumerate(first.tolist()):
        part = hidden[row, : width - start]
        found[row, start : start + len(part)] = part
    return found


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("prompts", "completions", "padding"),
    [
        ([9, 14, 11], [5, 3, 7, 4], "right"),
        ([9, 14, 11], [5, 3, 7, 4], "left"),
        ([12], [2, 6, 1], "right"),
    ],
)
def test_states_and_gradients_equal_those_of_whole_rows(backbone, attention, prompts, completions, padding):
    backbone.set_attn_implementation(attention)
    rows = without_last(batch(prompts, completions, padding=padding))  # groups of unequal size
    asked = torch.arange(rows["ids"].shape[1]) >= rows["wanted"][:, None]
    asked &= rows["attention"].bool()
    expected = whole_rows(backbone, rows)
    weights = torch.rand_like(expected) * asked[..., None]  # each place another: no mix-up cancels out
    (expected * weights).sum().backward()
    due = {name: weight.grad.clone() for name, weight in backbone.named_parameters()}
    backbone.zero_grad()

    computed = watched(backbone)
    hidden, first = hidden_states(backbone, **rows)
    assert (first <= rows["wanted"]).all()
    assert [count for count, _ in computed] == [len(prompts), len(rows["ids"])]
    found = in_columns(hidden, first, rows["ids"].shape[1])
    torch.testing.assert_close(found[asked], expected[asked], rtol=1e-4, atol=1e-5)
    (found * weights).sum().backward()
    for name, weight in backbone.named_parameters():
        torch.testing.assert_close(weight.grad, due[name], rtol=1e-3, atol=1e-4)


def test_each_prompt_is_computed_once(backbone):
    rows = batch([10, 10], [4, 4, 4])
    computed = watched(backbone)
    hidden_states(backbone, **rows)
    assert computed == [(2, 9), (6, 5)]  # its last token predicts the completion, so each row has that itself


def test_rows_that_begin_differently_are_computed_whole(backbone):
    rows = batch([9, 8, 7], [3])
    hidden, first = hidden_states(backbone, **rows)
    torch.testing.assert_close(hidden, whole_rows(backbone, rows))
    assert first.tolist() == [0, 0, 0]


def test_a_model_that_recomputes_its_forward_gets_whole_rows(backbone):
    rows = batch([12], [2, 3, 4])
    backbone.activation_checkpointing_enable()
    assert hidden_states(backbone.train(), **rows)[1].tolist() == [0, 0, 0]
    assert hidden_states(backbone.eval(), **rows)[1].tolist() == [11, 11, 11]


@given(
    st.lists(st.lists(st.integers(1, 2), min_size=2, max_size=7), min_size=2, max_size=6),
    st.randoms(use_true_random=False),
)
def test_a_sharing_is_true_and_no_other_one_has_fewer_tokens(rows, chance):
    width = max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
    attention = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    wanted = torch.tensor([chance.randrange(len(row)) for row in rows])
    found = find_beginnings(ids, attention, wanted)
    fewest = WORTH_IT * len(rows) * width
    if found is not None:
        assert sorted(found.rows) == list(range(len(rows)))
        for number, length in enumerate(found.lengths):
            members = [row for row, group in zip(found.rows, found.groups, strict=True) if group == number]
            assert len({tuple(rows[row][:length]) for row in members}) == 1
            assert all(length <= wanted[row] for row in members)
        rest = max(
            len(rows[row]) - found.lengths[group] for row, group in zip(found.rows, found.groups, strict=True)
        )
        fewest = len(found.lengths) * max(found.lengths) + len(rows) * rest
    # Its slow plain twin on the only sharing that has one group.
    same = min(len(_common(rows)), int(wanted.min()))
    assert fewest <= max(WORTH_IT * len(rows) * width, 0)
    if same and len(rows) * (width - same) + same < WORTH_IT * len(rows) * width:
        assert fewest <= len(rows) * (width - same) + same


def _common(rows: list[list[int]]) -> list[int]:
    length = next(
        (i for i, tokens in enumerate(zip(*rows, strict=False)) if len(set(tokens)) > 1), min(map(len, rows))
    )
    return rows[0][:length]


def test_a_row_ends_after_its_last_token():
    attention = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1]])
    assert ends(attention).tolist() == [2, 3, 4]
