"""Supervised fine-tuning: what the loss is on, what is refused, and what is measured on held-out answers."""

import math
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.recipes.runs import make_training_run, run_here, some_answers, write_pairs
from training.recipes import loading
from training.recipes.answers import Answer
from training.recipes.cutting import Row
from training.recipes.rendering import completion_row, conversation_ids, prompt_ids
from training.recipes.run_dir import RecipeError
from training.recipes.sft import loss_per_token, with_labels

ASKED = [{"role": "user", "content": "Who?"}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return loading.load_tokenizer(tiny_model)


def test_the_loss_is_on_the_completion_and_its_end_of_turn_alone(tokenizer):
    fed = with_labels(completion_row(tokenizer, ASKED, said("Me<|im_end|>.")), max_length=1000)
    assert fed["input_ids"] == conversation_ids(tokenizer, ASKED + said("Me<|im_end|>."))
    learnt = [label for label in fed["labels"] if label != -100]
    assert tokenizer.decode(learnt) == "Me< |im_end|>.<|im_end|>\n"
    assert fed["labels"][: -len(learnt)] == [-100] * len(prompt_ids(tokenizer, ASKED))
    assert fed["labels"][-len(learnt) :] == fed["input_ids"][-len(learnt) :]


def test_a_row_that_is_too_long_loses_its_end():
    assert with_labels(Row(2, (5, 6, 7, 8, 9)), max_length=4) == {
        "input_ids": [5, 6, 7, 8],
        "labels": [-100, -100, 7, 8],
    }


def test_the_held_out_loss_is_the_cross_entropy_per_token_of_plain_transformers(
    tiny_model, tokenizer, tmp_path
):
    folder = make_training_run(tmp_path / "run", "sft", tiny_model, options={"steps": 1})
    answers = some_answers(rankings=3, seed=5)
    write_pairs(folder / "held_out.jsonl", answers)
    found = run_here(folder)["at_start"]
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    losses, tokens = [], []
    for answer in answers:
        whole = torch.tensor([conversation_ids(tokenizer, answer["prompt"] + answer["completion"])])
        start = len(prompt_ids(tokenizer, answer["prompt"]))
        with torch.no_grad():
            logits = model(whole).logits[0, start - 1 : -1]
        losses.append(torch.nn.functional.cross_entropy(logits, whole[0, start:], reduction="sum").item())
        tokens.append(whole.shape[1] - start)
    assert found["loss"] == pytest.approx(
        sum(losses) / sum(tokens), abs=0.01
    )  # theirs is in bfloat16 on some CPUs
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert (found["answers"], found["tokens"]) == (6, sum(tokens))


def test_every_token_counts_alike_and_prompts_are_resampled_whole():
    answers = [Answer(ASKED, said("Me"), "r", 1.0, prompt_id) for prompt_id in "pq"]
    found = loss_per_token([2.0, 30.0], [1, 9], answers)
    assert found["loss"] == pytest.approx(3.2)
    assert found["interval"] == pytest.approx([2.0, 30 / 9])


def test_an_empty_answer_is_refused_with_its_line(tiny_model, tmp_path):
    folder = make_training_run(tmp_path / "run", "sft", tiny_model)
    answers = some_answers(rankings=8, seed=1)
    answers[2]["completion"] = said(" ")
    write_pairs(folder / "train.jsonl", answers)
    with pytest.raises(
        RecipeError, match=r"train.jsonl, line 3, completion: the answer is empty. Leave it out"
    ):
        run_here(folder)


def test_a_template_that_never_ends_an_answer_is_refused(tiny_model, tmp_path):
    base = shutil.copytree(tiny_model, tmp_path / "base")
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    (base / "chat_template.jinja").write_text(
        template + "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    folder = make_training_run(tmp_path / "run", "sft", base)
    with pytest.raises(RecipeError, match=r"puts none of <\|im_end\|> after an answer"):
        run_here(folder)
