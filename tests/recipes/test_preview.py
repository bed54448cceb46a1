"""Looking a run over before its launch: each finding, on a tiny tokenizer, without weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.recipes.runs import make_training_run, some_outcomes, some_pairs, write_pairs
from training.recipes.findings import first_turn
from training.recipes.fingerprints import fingerprints
from training.recipes.options import METHODS
from training.recipes.presets import PRESETS
from training.recipes.preview import main
from training.recipes.run_dir import RecipeError, open_run

PAIRS = some_pairs(rankings=8, seed=1)


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def question(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def preview(
    folder: Path, base: Path, method: str = "dpo", train: list[Any] | None = None, held_out: list[Any] | None = None,
    learnt_before: list[Any] | None = None, **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    """What is found of a run of `method` on these rows; by default 48 pairs and 24 held out."""
    if METHODS[method].samples:
        asked = [{"prompt": question(f"Say {n}."), "prompt_id": f"p{n}"} for n in range(20)]
        train, held_out = train or asked[:16], held_out or asked[16:]
    run_dir = make_training_run(
        folder / "run", "preview", base, learnt_before=learnt_before and "learnt_before.jsonl",
        **{"of": method, "fewest": 8, "options": {}} | changes,
    )  # fmt: skip
    for name, rows in (("train", train), ("held_out", held_out), ("learnt_before", learnt_before)):
        if rows is not None:
            write_pairs(run_dir / f"{name}.jsonl", rows)
    return main(open_run(run_dir, "preview"))


def demonstrations(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "prompt": question(f"What is {n}?"),
            "completion": answer(f"A number, {n}."),
            "ranking": n,
            "prompt_id": n,
        }
        for n in range(start, start + count)
    ]


def told(found: dict[str, Any]) -> str:
    return " ".join(f"{one['what']} {one['remedy']} {one['first']}" for one in found["problems"])


def shown(found: dict[str, Any], side: int = 0, **where: Any) -> str:
    """The text of the first example's runs that are so."""
    runs = found["examples"][0]["sides"][side]["runs"]
    return "".join(run["text"] for run in runs if all(run[key] == value for key, value in where.items()))


# --- what is fine ---


def test_rows_and_tokens_of_each_split_are_counted_and_nothing_stands_in_the_way(tiny_model, tmp_path):
    found = preview(tmp_path, tiny_model)
    assert (found["problems"], found["notices"], found["leaked"], found["cut_share"]) == ([], [], [], 0.0)
    train, held_out = found["splits"]["train"], found["splits"]["held_out"]
    assert (train["rows"], held_out["rows"]) == (48, 24)
    assert train["longest"] >= train["p95"] >= train["mean"] > 0
    assert train["mean"] == train["tokens"] / 96  # two completions a pair
    assert len(found["examples"]) == 3


def test_an_example_shows_the_template_and_colours_what_is_learnt(tiny_model, tmp_path):
    rows = [dict(PAIRS[0], prompt=question("Say tea."), chosen=answer("Tea."), rejected=answer("No."))]
    found = preview(tmp_path, tiny_model, train=rows * 8)
    assert shown(found) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nSay tea.<|im_end|>\n<|im_start|>assistant\n"
        "Tea.<|im_end|>\n"
    )
    assert shown(found, learnt=True) == "Tea.<|im_end|>\n"
    assert shown(found, kind="text") == "Say tea.Tea."
    assert shown(found, kind="special").count("<|im_start|>") == 3
    assert "system\nBe brief." in shown(found, kind="template")
    assert shown(found, side=1, learnt=True, kind="text") == "No."


def test_a_reward_model_reads_its_score_at_the_last_token(tiny_model, tmp_path):
    found = preview(tmp_path, tiny_model, "reward")
    assert shown(found, learnt=True) == "\n"
    assert found["problems"] == []


def test_of_a_method_that_samples_prompts_are_shown_up_to_where_it_writes(tiny_model, tmp_path):
    found = preview(tmp_path, tiny_model, "ppo", options={"reward": "length"})
    assert shown(found).endswith("<|im_start|>assistant\n")
    assert shown(found, learnt=True) == ""
    assert (found["problems"], found["splits"]["train"]["rows"]) == ([], 16)


def test_what_is_typed_like_a_control_token_is_shown_without_its_power(tiny_model, tmp_path):
    rows = demonstrations(8)
    rows[0]["completion"] = answer("Stop <|im_end|> here.")
    found = preview(tmp_path, tiny_model, "sft", train=rows, held_out=demonstrations(2, start=90))
    assert "Stop < |im_end|> here." in shown(found, kind="text")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_looked_over_and_estimated(tiny_model, tmp_path, method):
    rows: dict[str, Any] = {}
    if METHODS[method].reads in ("demonstrations", "outcomes"):
        rows = {"train": demonstrations(12), "held_out": demonstrations(3, start=50)}
        rows = {
            split: [row | {"label": n % 2 == 0} for n, row in enumerate(some)] for split, some in rows.items()
        }
    found = preview(tmp_path, tiny_model, method, **rows, options=PRESETS["cpu-smoke"].options(method))
    assert found["problems"] == []
    here, gpu = found["estimates"]
    assert here["machine"]["kind"] == "cpu"
    assert here["memory"]["peak"] > here["memory"]["runtime"] > 0
    assert here["disk"]["total"] > here["disk"]["output"] > 0
    assert here["time"] | {"seconds": 0} == {"seconds": 0, "by": None}
    assert gpu["machine"]["kind"] == "cuda"


# --- what is cut ---


def test_what_is_longer_than_max_length_is_counted_shown_and_the_first_row_named(tiny_model, tmp_path):
    rows = demonstrations(8)
    rows[2]["completion"] = answer("A very long answer that goes on and on. " * 8)
    found = preview(
        tmp_path,
        tiny_model,
        "sft",
        train=rows,
        held_out=demonstrations(2, start=90),
        options={"max_length": 150},
    )
    assert found["problems"] == []
    assert found["splits"]["train"]["truncated"] == 1
    (cut,) = found["splits"]["train"]["cut"]
    assert (cut["how"], cut["rows"], cut["first"]) == ("truncated", 1, "train row 3 (judgment 2)")
    assert found["cut_share"] == 0.1
    longest = found["examples"][-1]["sides"][0]["runs"]
    gone = "".join(run["text"] for run in longest if run["cut"])
    assert gone.endswith("<|im_end|>\n")
    assert not any(run["learnt"] for run in longest if run["cut"])


def test_a_reward_model_drops_what_is_too_long_and_too_few_may_be_left(tiny_model, tmp_path):
    rows = [dict(pair, chosen=answer("word " * 60)) if n < 41 else pair for n, pair in enumerate(PAIRS)]
    found = preview(tmp_path, tiny_model, "reward", train=rows, options={"max_length": 250})
    assert found["splits"]["train"]["dropped"] == 41
    assert found["splits"]["train"]["cut"][0]["first"] == "train row 1 (judgment ranking 1-0)"
    assert "7 train rows are left, and at least 8 are needed" in told(found)
    assert found["estimates"] != []


# --- what forbids a launch ---


@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_an_empty_completion_is_named_with_its_row_and_the_remedy(tiny_model, tmp_path, method):
    rows = [*PAIRS[:9], dict(PAIRS[9], rejected=answer(" \n")), *PAIRS[10:]]
    found = preview(tmp_path, tiny_model, method, train=rows)
    assert "A completion is empty" in told(found)
    assert found["problems"][0]["rows"] == 1
    assert found["problems"][0]["first"] == "train row 10 (judgment ranking 1-1)"
    assert "freeze a new dataset" in found["problems"][0]["remedy"]
    found = preview(tmp_path / "imported", tiny_model, method, train=rows, imported=True)
    assert found["problems"][0]["first"] == "train row 10 (imported line ranking 1-1)"


def test_a_prompt_that_leaves_nothing_of_its_completion_is_refused(tiny_model, tmp_path):
    rows = [dict(PAIRS[0], prompt=question("Why? " * 60)), *PAIRS[1:]]
    found = preview(tmp_path, tiny_model, train=rows, options={"max_length": 300})
    assert "The prompt alone fills max_length = 300 tokens" in told(found)
    assert "Raise max_length" in told(found)


def test_completions_that_are_the_same_once_cut_are_refused(tiny_model, tmp_path):
    begun = "It begins the same way, word by word by word, "
    rows = [
        dict(PAIRS[0], chosen=answer(begun + "and ends."), rejected=answer(begun + "and goes on.")),
        *PAIRS[1:],
    ]
    length = preview(tmp_path / "whole", tiny_model, train=rows)["splits"]["train"]["longest"]
    found = preview(tmp_path / "cut", tiny_model, train=rows, options={"max_length": length - 18})
    assert f"the same tokens once they are cut to max_length = {length - 18}" in told(found)


def test_texts_that_the_template_makes_equal_are_refused_for_a_reward_model(tiny_model, tmp_path):
    rows = [dict(PAIRS[0], chosen=answer("Same."), rejected=answer("Same."), weight=1.0), *PAIRS[1:]]
    assert "Chosen and rejected are the same tokens" in told(
        preview(tmp_path, tiny_model, "reward", train=rows)
    )


def test_a_prompt_without_room_for_a_sample_is_refused(tiny_model, tmp_path):
    found = preview(tmp_path, tiny_model, "rloo", options={"reward": "length", "max_length": 90})
    assert "more than 42 tokens" in told(found)
    assert found["problems"][0]["first"] == "train row 1 (prompt p0)"


def test_a_prompt_that_is_learnt_from_and_held_out_is_refused_however_it_is_spelt(tiny_model, tmp_path):
    held_out = [dict(some_pairs(1, seed=9)[0], prompt=question("  SAY   something ")), *some_pairs(1, seed=9)]
    train = [
        *PAIRS,
        dict(PAIRS[0], prompt=[*question("Say something"), *answer("Well."), *question("More.")]),
    ]
    found = preview(tmp_path, tiny_model, train=train, held_out=held_out)
    assert "1 prompt is both learnt from and held out" in told(found)
    (leak,) = found["leaked"]
    assert leak["prompt"] == "say something"
    assert (leak["train"][:12], leak["held_out"][:14]) == ("train row 49", "held-out row 1")


def test_a_prompt_that_the_parent_has_learnt_from_is_refused_as_held_out(tiny_model, tmp_path):
    known = [
        {"prompt": question(text), "where": "a prompt of dataset 12ab, which is behind sft"}
        for text in ("A", "b")
    ]
    held_out = [*some_pairs(2, seed=9), dict(some_pairs(1, seed=9)[0], prompt=question("a"))]
    found = preview(tmp_path, tiny_model, held_out=held_out, learnt_before=known)
    assert "1 prompt is both learnt from and held out" in told(found)
    assert found["leaked"][0]["train"] == "a prompt of dataset 12ab, which is behind sft"


def test_the_first_turn_is_normalised_as_the_split_is():
    from annotation.splits import first_user_turn, normalised

    for text in ("  Ａ  Tea\n\tor Ⅳ cups ", "ﬁne", "x"):
        messages = [{"role": "system", "content": "s"}, {"role": "user", "content": text}]
        assert first_turn(messages) == normalised(first_user_turn(messages))


def with_template(tiny_model: Path, folder: Path, template: str) -> Path:
    """The tiny model with another chat template."""
    folder.mkdir()
    for file in tiny_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_a_template_that_rewrites_the_prompt_can_not_mark_the_completion(tiny_model, tmp_path):
    template = (
        "{{ messages|length }}{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
    )
    base = with_template(tiny_model, tmp_path / "base", template)
    found = preview(tmp_path, base)
    assert "it cannot mark the completion" in told(found)
    assert "add_generation_prompt" in told(found)
    # A reward model scores the whole and needs no mark.
    assert preview(tmp_path / "reward", base, "reward")["problems"] == []


def test_a_template_that_refuses_a_conversation_names_the_row(tiny_model, tmp_path):
    template = "{{ raise_exception('no assistant here') if messages|length > 1 else messages[0]['content'] }}"
    base = with_template(tiny_model, tmp_path / "base", template)
    with pytest.raises(RecipeError, match=r"train row 1 .*no assistant here"):
        preview(tmp_path, base)


def test_a_template_without_an_end_token_is_worth_a_notice(tiny_model, tmp_path):
    turns = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    template = turns + "{% if add_generation_prompt %}[assistant]{% endif %}"
    base = with_template(tiny_model, tmp_path / "base", template)
    found = preview(tmp_path, base)
    assert "does not end an answer with <|im_end|>" in found["notices"][0]
    rows = {"train": demonstrations(9), "held_out": demonstrations(2, start=90)}
    assert "ends each answer with that token" in told(preview(tmp_path / "sft", base, "sft", **rows))


def adapter(folder: Path, rank: int = 4, **facts: Any) -> str:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(
        f'{{"peft_type": "LORA", "task_type": "SEQ_CLS", "r": {rank}}}'
    )
    queries = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({queries: torch.zeros(rank, 32)}, folder / "adapter_model.safetensors")
    (folder / "recipe.json").write_text(json.dumps({"score_mean": 0.1, "score_spread": 1.5} | facts))
    return str(folder)


def test_a_reward_model_that_read_other_tokens_is_refused(tiny_model, tmp_path):
    own = fingerprints(tiny_model)
    assert len(own["tokenizer"]) == len(own["chat_template"]) == 64
    options = {"reward": "reward_model"}
    same = adapter(tmp_path / "same", **own)
    assert preview(tmp_path / "1", tiny_model, "ppo", options=options, reward_model=same)["problems"] == []
    old = adapter(tmp_path / "old")  # made before digests were kept
    assert preview(tmp_path / "2", tiny_model, "ppo", options=options, reward_model=old)["problems"] == []
    other = adapter(tmp_path / "other", **{**own, "chat_template": "0" * 64})
    found = preview(tmp_path / "3", tiny_model, "ppo", options=options, reward_model=other)
    assert "The reward model was trained with another chat template" in told(found)
    found = preview(
        tmp_path / "4", tiny_model, parent=adapter(tmp_path / "parent", **{**own, "tokenizer": "0" * 64})
    )
    assert "The parent was trained with another tokenizer" in told(found)


def test_a_reward_model_that_gives_everything_the_same_score_is_refused(tiny_model, tmp_path):
    flat = adapter(tmp_path / "flat", score_spread=0.0)
    with pytest.raises(RecipeError, match="the same score, so nothing can be learnt from it"):
        preview(tmp_path / "run", tiny_model, "ppo", options={"reward": "reward_model"}, reward_model=flat)


def test_what_a_reward_model_is_to_measure_is_estimated_and_refused_without_room(tiny_model, tmp_path):
    judge = adapter(tmp_path / "judge")
    plain = preview(tmp_path / "plain", tiny_model)["estimates"][0]
    judged = preview(tmp_path / "judged", tiny_model, reward_model=judge)["estimates"][0]
    assert plain["memory"]["cache"] == 0 < judged["memory"]["cache"]
    assert (
        judged["memory"]["adapters"] - plain["memory"]["adapters"] == 4 * 32 * 4
    )  # frozen: rank, width, bytes
    found = preview(tmp_path / "long", tiny_model, reward_model=judge, options={"judged_tokens": 2000})
    assert "leaves room for an answer of judged_tokens = 2000 within max_length = 1024" in told(found)


def test_a_base_that_is_no_safetensors_model_is_refused(tiny_model, tmp_path):
    with pytest.raises(RecipeError, match=r"no config\.json"):
        preview(tmp_path / "1", tmp_path / "nowhere")
    base = with_template(tiny_model, tmp_path / "base", "x")
    (base / "model.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(RecipeError, match="not whole safetensors"):
        preview(tmp_path / "2", base)
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(RecipeError, match="pickle"):
        preview(tmp_path / "3", base)


@pytest.mark.parametrize(
    "row", ["{", "[]", '{"prompt": "text"}', '{"prompt": [{"role": "user", "content": "x"}]}']
)
def test_a_line_that_is_no_row_is_named(tiny_model, tmp_path, row):
    run_dir = make_training_run(tmp_path / "run", "preview", tiny_model, of="dpo")
    with (run_dir / "held_out.jsonl").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(RecipeError, match="held-out row 25"):
        main(open_run(run_dir, "preview"))


# --- options and estimates ---


def test_completions_that_are_all_called_bad_are_refused_before_the_launch(tiny_model, tmp_path):
    bad = [row | {"label": False} for row in some_outcomes(8, seed=1)]
    found = preview(tmp_path / "bad", tiny_model, "kto", train=bad, held_out=some_outcomes(4, seed=2))
    assert "All 32 completions in the train split are called bad, none good" in told(found)
    bad_alone_held_out = [row | {"label": False} for row in some_outcomes(4, seed=2)]
    both = preview(
        tmp_path / "both", tiny_model, "kto", train=some_outcomes(8, seed=1), held_out=bad_alone_held_out
    )
    assert both["problems"] == []


def test_rows_longer_than_the_base_can_read_are_refused(tiny_model, tmp_path):
    found = preview(tmp_path / "more", tiny_model, options={"max_length": 1025})
    assert "the base reads 1024 tokens at most. Set max_length to 1024" in told(found)
    assert preview(tmp_path / "as many", tiny_model, options={"max_length": 1024})["problems"] == []


def test_options_that_do_not_go_together_are_found_in_a_duplicate_too(tiny_model, tmp_path):
    with pytest.raises(RecipeError, match="warmup_steps is 9, more than the 8 steps"):
        preview(tmp_path, tiny_model, options={"steps": 8, "warmup_steps": 9})


def test_a_tokenizer_that_knows_more_than_the_model_is_refused(tiny_model, tmp_path):
    base = shutil.copytree(tiny_model, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] - 200}))
    with pytest.raises(RecipeError, match="they do not belong together"):
        preview(tmp_path, base)


@pytest.mark.parametrize(("strength", "notices"), [(None, 1), (1, 1), (2, 0)])
def test_a_margin_that_no_strength_asks_for_is_worth_a_notice(tiny_model, tmp_path, strength, notices):
    train = [row | {"strength": strength} for row in PAIRS]
    options = {"margin_per_strength": 0.5}
    found = preview(tmp_path, tiny_model, "reward", train=train, options=options)["notices"]
    assert len([one for one in found if "margin_per_strength is 0.5 and changes nothing" in one]) == notices


@pytest.mark.parametrize(("batch_size", "notices"), [(16, 1), (18, 0)])
def test_a_batch_size_that_cuts_rankings_is_worth_a_notice(tiny_model, tmp_path, batch_size, notices):
    options = {"batch_size": batch_size, "steps": 12}
    found = preview(tmp_path, tiny_model, "reward", train=PAIRS, options=options)["notices"]
    assert len([one for one in found if "a batch_size of 12 would keep them whole" in one]) == notices


def test_three_different_rows_are_shown_where_there_are_three(tiny_model, tmp_path):
    found = preview(tmp_path, tiny_model, "sft", train=demonstrations(10), held_out=demonstrations(3, 20))
    assert len({one["where"] for one in found["examples"]}) == 3


@pytest.mark.parametrize(
    ("method", "changes", "said"),
    [
        (
            "dpo",
            {"processes": 5},
            "batch_size is 24, which 5 processes can't divide into equal shares. Set it to 20",
        ),
        ("kto", {"processes": 24}, "KTO computes no fewer than 2"),
        ("rloo", {"processes": 2, "is_sharded": True}, "each card needs the whole model"),
    ],
)
def test_what_several_processes_can_not_do_is_refused_before_the_launch(
    tiny_model, tmp_path, method, changes, said
):
    options = {"batch_size": 24} | ({"reward": "length"} if method == "rloo" else {})
    with pytest.raises(RecipeError, match=said):
        preview(tmp_path, tiny_model, method, options=options, **changes)


def test_a_run_that_goes_on_is_as_large_as_its_parent_whatever_its_own_rank(tiny_model, tmp_path):
    parents = [adapter(tmp_path / str(rank), rank) for rank in (4, 8)]
    small, large = (
        preview(tmp_path / f"of-{name}", tiny_model, parent=folder, options={"lora_rank": 16})["estimates"][0]
        for name, folder in zip("ab", parents, strict=True)
    )
    more = 4 * 32  # numbers of the larger one's more
    # Itself, its gradient, two moments, and the frozen reference; the numbers and moments in each of three checkpoints.
    assert large["memory"]["adapters"] - small["memory"]["adapters"] == more * (16 + 4)
    assert large["disk"]["checkpoints"] - small["disk"]["checkpoints"] == more * 12 * 3
    assert small["disk"]["output"] == 4 * 4 * 32
