"""The starter prompts that a new installation can import."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import annotation
from annotation.services.prompts import import_prompts
from tests import cast

FILE = Path(annotation.__file__).parent / "starter" / "prompts.jsonl"
TAGS = {"support", "explain", "rewrite", "extraction", "legal", "medical", "knowledge"}


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def messages(row: dict[str, Any]) -> list[dict[str, str]]:
    prompt = row["prompt"]
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def first_user_turn(row: dict[str, Any]) -> str:
    turn = next(message["content"] for message in messages(row) if message["role"] == "user")
    return " ".join(turn.casefold().split())


def test_there_are_at_least_200_starter_prompts_in_the_import_form() -> None:
    assert len(rows()) >= 200
    for row in rows():
        assert set(row) == {"prompt", "tags", "source"}
        assert row["source"] == "rankloop starter"


def test_no_two_starter_prompts_share_their_first_user_turn() -> None:
    """The split hashes the first user turn: twins would be one prompt in two places."""
    assert [turn for turn, count in Counter(map(first_user_turn, rows())).items() if count > 1] == []


def test_each_starter_prompt_has_one_known_tag_and_every_tag_at_least_20_prompts() -> None:
    assert all(len(row["tags"]) == 1 for row in rows())
    counts = Counter(row["tags"][0] for row in rows())
    assert set(counts) == TAGS
    assert min(counts.values()) >= 20


def test_starter_prompts_are_short_enough_for_a_small_model() -> None:
    for row in rows():
        words = sum(len(message["content"].split()) for message in messages(row))
        assert 5 <= words <= 60, row["prompt"]


def test_message_lists_end_with_a_user_turn_and_alternate() -> None:
    lists = [row["prompt"] for row in rows() if isinstance(row["prompt"], list)]
    assert len(lists) >= 20
    for turns in lists:
        roles = [turn["role"] for turn in turns]
        spoken = roles[1:] if roles[0] == "system" else roles
        assert spoken == ["user", "assistant"] * (len(spoken) // 2) + ["user"]
        assert all(turn["content"].strip() == turn["content"] != "" for turn in turns)


@pytest.mark.parametrize("control", ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "\t", "  "])
def test_starter_prompts_carry_no_control_tokens_and_no_stray_white_space(control: str) -> None:
    assert control not in FILE.read_text(encoding="utf-8")


@pytest.mark.django_db
def test_the_starter_prompts_import_whole_and_give_both_splits_enough() -> None:
    project = cast.assemble().project
    result = import_prompts(project=project, content=FILE.read_bytes(), file=FILE.name)
    assert result.added == result.rows == len(rows())
    held_out = project.prompts.filter(split="held_out").count()
    assert 20 <= held_out <= len(rows()) / 2
