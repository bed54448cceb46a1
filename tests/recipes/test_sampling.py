"""Completions: the plan, the texts, the adapters, and what a resumed run does again."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LogitsProcessorList

from tests.recipes.runs import result_of, run_here, start
from training.recipes import loading, sampling
from training.recipes.options import DecodingOptions
from training.recipes.run_dir import RecipeError
from training.recipes.sampling import drawing, generate_ids, plan_batches

PROMPTS = [{"id": f"p{i}", "messages": [{"role": "user", "content": "word " * i}]} for i in range(5)]


@pytest.fixture(scope="module")
def adapters(tiny_model, tmp_path_factory) -> list[Path]:
    """Two LoRA adapters of the tiny model with weights that make themselves heard."""
    from peft import TaskType, get_peft_model

    folders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        policy = loading.load_policy(tiny_model, loading.load_tokenizer(tiny_model))
        adapted = get_peft_model(policy, loading.lora_config(4, 32, TaskType.CAUSAL_LM))
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weights, std=0.5)
        folders.append(tmp_path_factory.mktemp("adapter"))
        adapted.save_pretrained(folders[-1])
    return folders


def contestant(name: str, adapter: Path | None = None, **decoding: Any) -> dict[str, Any]:
    return {
        "id": name,
        "adapter": adapter and str(adapter),
        "system_prompt": "",
        "decoding": {"max_new_tokens": 8, **decoding},
    }


def make_run(folder: Path, base: Path, contestants: list[dict[str, Any]], **changes: Any) -> Path:
    folder.mkdir()
    config = {
        "method": "sampling",
        "base": str(base),
        "seed": 5,
        "threads": 1,
        "contestants": contestants,
        "prompts": PROMPTS,
        "samples": 2,
        "options": {"batch_size": 4},
    }
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def completions_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]


def texts_of(folder: Path, contestant: str) -> list[str]:
    rows = [row for row in completions_of(folder) if row["contestant"] == contestant]
    return [row["text"] for row in sorted(rows, key=lambda row: (row["prompt"], row["sample"]))]


def test_the_plan_puts_every_row_in_one_batch_longest_first():
    plan = plan_batches("a", {"short": 3, "long": 30, "middle": 10}, samples=2, batch_size=4, seed=1)
    assert [row for batch in plan for row in batch.rows] == [
        ("long", 0),
        ("long", 1),
        ("middle", 0),
        ("middle", 1),
        ("short", 0),
        ("short", 1),
    ]
    assert [len(batch.rows) for batch in plan] == [4, 2]


def test_the_plan_is_a_pure_function_and_every_batch_has_its_own_seed():
    lengths = {f"p{i}": i % 7 for i in range(50)}
    plan = plan_batches("a", lengths, 2, 8, seed=1)
    assert plan == plan_batches("a", dict(reversed(lengths.items())), 2, 8, seed=1)
    others = plan_batches("b", lengths, 2, 8, seed=1) + plan_batches("a", lengths, 2, 8, seed=2)
    seeds = [batch.seed for batch in plan + others]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_each_contestant_answers_each_prompt_as_often_as_asked(tiny_model, tmp_path):
    folder = make_run(tmp_path / "run", tiny_model, [contestant("a"), contestant("b", temperature=0.0)])
    assert start(folder).wait() == 0
    rows = completions_of(folder)
    assert Counter((row["contestant"], row["prompt"]) for row in rows) == {
        (who, prompt["id"]): 2 for who in "ab" for prompt in PROMPTS
    }
    assert all(1 <= row["tokens"] <= 8 for row in rows)
    assert all(row["finished"] or row["tokens"] == 8 for row in rows)
    metrics = result_of(folder)["metrics"]
    assert (metrics["completions"], metrics["tokens"]) == (20, sum(row["tokens"] for row in rows))
    assert json.loads((folder / "progress.json").read_text()) == {"step": 6, "of": 6, "phase": "sampling"}
    greedy = texts_of(folder, "b")
    assert greedy[0::2] == greedy[1::2]
    sampled = texts_of(folder, "a")
    assert sampled[0::2] != sampled[1::2]


@pytest.mark.parametrize(
    ("decoding", "wanted"),
    [
        ({}, [0.1, 0.0, 0.5, 0.15, 0.25]),
        ({"temperature": 0.5}, [0.01 / 0.345, 0.0, 0.25 / 0.345, 0.0225 / 0.345, 0.0625 / 0.345]),
        ({"top_k": 2}, [0.0, 0.0, 2 / 3, 0.0, 1 / 3]),
        ({"top_p": 0.8}, [0.0, 0.0, 0.5 / 0.9, 0.15 / 0.9, 0.25 / 0.9]),
    ],
)
def test_tokens_are_drawn_by_their_probability(decoding, wanted):
    rows = 40_000
    logits = torch.tensor([0.1, 0.0, 0.5, 0.15, 0.25]).log().expand(rows, -1)  # of probability 0: never
    draw = drawing(DecodingOptions(**{"temperature": 1.0, "max_new_tokens": 1, **decoding}), range(rows))
    left = draw(torch.zeros(rows, 1), logits)
    assert (left.isfinite().sum(dim=1) == 1).all()
    shares = torch.bincount(left.argmax(dim=1), minlength=5) / rows
    error = (torch.tensor(wanted) * (1 - torch.tensor(wanted)) / rows).sqrt()
    assert ((shares - torch.tensor(wanted)).abs() <= 4 * error).all(), shares


@pytest.mark.parametrize("vocabulary", [7, 256, 1000])
def test_the_token_that_is_drawn_is_the_first_whose_running_sum_exceeds_the_number(vocabulary):
    """Beside a plain twin that sums over the whole vocabulary; half the tokens, also first and last, are impossible."""
    rows, tokens = 40, 5
    draw = drawing(DecodingOptions(temperature=1.0, max_new_tokens=tokens), range(rows))
    numbers = [
        torch.rand(tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(i))
        for i in range(rows)
    ]
    noise = torch.Generator().manual_seed(0)
    for at in range(tokens):
        logits = torch.randn(rows, vocabulary, generator=noise) * 3
        logits[:, ::2] = -torch.inf
        logits[:, -1] = -torch.inf
        drawn = draw(torch.zeros(rows, 1), logits).argmax(dim=-1)
        upto = logits.softmax(dim=-1).double().cumsum(dim=-1)
        slow = [int((upto[row] > numbers[row][at] * upto[row, -1]).nonzero()[0]) for row in range(rows)]
        assert drawn.tolist() == slow


@pytest.mark.parametrize("number", [0.0, 1.0 - 2**-53])
@pytest.mark.parametrize("possible", [[0], [255], [256], [999], [255, 256], [3, 997]])
def test_the_least_and_the_greatest_number_draw_no_impossible_token(number, possible):
    draw = drawing(DecodingOptions(temperature=1.0, max_new_tokens=1), [1])[-1]
    draw.numbers = iter([torch.tensor([[number]], dtype=torch.float64)])
    logits = torch.full((1, 1000), -torch.inf)
    logits[0, possible] = torch.tensor([0.3 * place for place in range(len(possible))])
    wanted = possible[-1] if number else possible[0]
    assert draw(torch.zeros(1, 1), logits).argmax().item() == wanted


def test_at_temperature_0_nothing_is_drawn():
    assert not drawing(DecodingOptions(temperature=0.0), [1, 2])


def test_a_row_is_given_the_same_whoever_is_beside_it(tiny_model):
    tokenizer = loading.load_tokenizer(tiny_model)
    model = loading.load_policy(tiny_model, tokenizer, dtype=torch.float32).eval()
    inputs = [list(range(3, 3 + length)) for length in (4, 9, 6, 5, 8)]
    decoding = DecodingOptions(max_new_tokens=12)
    together = generate_ids(model, tokenizer, inputs, decoding, range(5))
    assert together == [generate_ids(model, tokenizer, [inputs[i]], decoding, [i])[0] for i in range(5)]
    assert together != generate_ids(model, tokenizer, inputs, decoding, range(5, 10))


@pytest.mark.parametrize("cached", [{}, {"use_cache": False}, {"cache_implementation": "static"}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_prompt_is_read_once_for_all_its_samples(tiny_model, tmp_path, monkeypatch, dtype, cached):
    base = tmp_path / "base"  # as it may come from elsewhere
    shutil.copytree(tiny_model, base)
    settings = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps(settings | cached))
    tokenizer = loading.load_tokenizer(base)
    model = loading.load_policy(base, tokenizer, dtype=dtype).eval()
    prompts = [[1, 60, 61, 62], [1, 70], [1, 60, 61, 62], [1, 80, 81], [1, 70], [1, 60, 61, 62]]
    read: list[tuple[int, int]] = []  # (rows, columns) of each forward pass
    model.base_model.register_forward_hook(
        lambda _, inputs, output: read.append(tuple(output.last_hidden_state.shape[:2]))
    )
    decoding = DecodingOptions(temperature=1.0, max_new_tokens=5)

    def write(some):
        read.clear()
        return sampling.generate_ids(model, tokenizer, some, decoding, list(range(len(some))))

    found = write(prompts)
    assert read[:2] == [(3, 3), (6, 1)]
    assert {columns for _, columns in read[1:]} == {1}
    write(prompts[:2])  # no two are equal
    assert read[0] == (2, 4)
    monkeypatch.setattr(sampling, "read_once", lambda *_: None)
    assert write(prompts) == found
    assert read[0] == (6, 4)


def test_a_row_ends_with_its_first_end_token_which_counts_or_where_there_is_no_room(tiny_model, monkeypatch):
    forced = [[50, 51, 2, 60, 61], [70, 71, 72, 73, 74], [2, 2, 2, 2, 2]]

    def force(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        at = ids.shape[1] - len(prompt)
        chosen = torch.tensor([[row[at]] for row in forced])
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)

    prompt = [1, 60, 61, 62]
    monkeypatch.setattr(sampling, "drawing", lambda *_: LogitsProcessorList([force]))
    tokenizer = loading.load_tokenizer(tiny_model)
    assert tokenizer.eos_token_id == 2
    model = loading.load_policy(tiny_model, tokenizer, dtype=torch.float32).eval()
    decoding = DecodingOptions(max_new_tokens=5)
    assert generate_ids(model, tokenizer, [prompt] * 3, decoding, range(3)) == [
        [50, 51, 2], [70, 71, 72, 73, 74], [2],
    ]  # fmt: skip
    told = sampling.generate(model, tokenizer, [prompt] * 3, decoding, seed=0)
    assert [(row["tokens"], row["finished"]) for row in told] == [(3, True), (5, False), (1, True)]


def test_the_same_seed_gives_the_same_texts_and_another_seed_others(tiny_model, tmp_path):
    texts = []
    for name, seed in (("first", 5), ("again", 5), ("other", 6)):
        folder = make_run(tmp_path / name, tiny_model, [contestant("a")], seed=seed)
        run_here(folder)
        texts.append(texts_of(folder, "a"))
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_a_resumed_run_skips_whole_batches_and_makes_the_others_again_to_the_same_texts(tiny_model, tmp_path):
    whole = make_run(tmp_path / "whole", tiny_model, [contestant("a")])
    run_here(whole)
    lines = (whole / "completions.jsonl").read_text().splitlines(keepends=True)
    resumed = make_run(tmp_path / "resumed", tiny_model, [contestant("a")])
    stranger = json.dumps(json.loads(lines[0]) | {"seed": 1}) + "\n"
    torn = lines[6][:30]  # of the second batch, which is made again as a whole
    (resumed / "completions.jsonl").write_text("".join([stranger, *lines[:6], torn]))
    metrics = run_here(resumed)
    assert (metrics["resumed_batches"], metrics["made"]) == (1, 6)
    assert completions_of(resumed) == completions_of(whole)


def test_adapters_are_swapped_on_one_base_and_leave_no_trace(tiny_model, tmp_path, adapters):
    first, second = adapters
    everyone = [
        contestant("one", first),
        contestant("base"),
        contestant("two", second),
        contestant("one again", first),
    ]
    together = make_run(
        tmp_path / "together", tiny_model, [dict(c, decoding={"temperature": 0.0}) for c in everyone]
    )
    run_here(together)
    assert texts_of(together, "one") == texts_of(together, "one again")
    texts = {name: texts_of(together, name) for name in ("one", "base", "two")}
    assert texts["one"] != texts["base"] != texts["two"] != texts["one"]
    for name, adapter in (("base", None), ("two", second)):
        alone = make_run(
            tmp_path / name, tiny_model, [contestant(name, adapter) | {"decoding": {"temperature": 0.0}}]
        )
        run_here(alone)
        assert texts_of(alone, name) == texts[name]


def test_a_prompt_that_leaves_no_room_is_refused_by_name(tiny_model, tmp_path):
    long = [{"id": "saga", "messages": [{"role": "user", "content": "x" * 1010}]}]
    folder = make_run(tmp_path / "run", tiny_model, [contestant("a")], prompts=long)
    with pytest.raises(RecipeError, match=r"Prompt saga has \d+ tokens.*1024"):
        run_here(folder)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"contestants": []}, "at least one contestant"),
        ({"samples": 0}, "at least one"),
        ({"prompts": PROMPTS * 2}, "share an id"),
        ({"contestants": [{"adapter": None}]}, "'id'"),
        ({"contestants": [contestant("a", temperature=9.0)]}, "temperature"),
        ({"options": {"batch": 3}}, "no option 'batch'"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(tiny_model, tmp_path, changes, named):
    folder = make_run(tmp_path / "run", tiny_model, **({"contestants": [contestant("a")]} | changes))
    with pytest.raises(RecipeError, match=named):
        run_here(folder)


def test_a_reward_model_cannot_write(tiny_model, tmp_path, adapters):
    config = json.loads((adapters[0] / "adapter_config.json").read_text()) | {"task_type": "SEQ_CLS"}
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "adapter_config.json").write_text(json.dumps(config))
    (wrong / "adapter_model.safetensors").write_bytes(
        (adapters[0] / "adapter_model.safetensors").read_bytes()
    )
    folder = make_run(tmp_path / "run", tiny_model, [contestant("a", wrong)])
    with pytest.raises(RecipeError, match="a reward model"):
        run_here(folder)
