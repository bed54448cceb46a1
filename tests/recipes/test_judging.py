"""A policy that learns from data and is given a reward model: measured by it, and trained as if it had none."""

import json
from pathlib import Path

import pytest

from tests.recipes.runs import (
    checkpoints_of,
    killed_and_resumed,
    make_training_run,
    metrics_of,
    run_here,
    some_pairs,
    weights_of,
    write_pairs,
)
from training.recipes.run_dir import RecipeError

METHODS = ("sft", "dpo", "kto")
OPTIONS = {"judged_tokens": 6, "max_length": 256}


def judged_run(folder: Path, method: str, base: Path, reward_model: Path, **changes) -> Path:
    options = OPTIONS | changes.pop("options", {})
    return make_training_run(folder, method, base, reward_model=str(reward_model), options=options, **changes)


@pytest.fixture(scope="module")
def judged(tiny_model, reward_model, tmp_path_factory) -> dict[str, tuple[Path, dict]]:
    """(RUN_DIR, metrics) by method, each from the base."""
    place = tmp_path_factory.mktemp("judged")
    folders = {name: judged_run(place / name, name, tiny_model, reward_model) for name in METHODS}
    return {name: (folder, run_here(folder)) for name, folder in folders.items()}


@pytest.mark.parametrize("method", METHODS)
def test_its_training_is_that_of_a_run_without_a_reward_model(method, judged, tiny_model, tmp_path):
    folder, found = judged[method]
    plain = make_training_run(tmp_path / "plain", method, tiny_model, options=OPTIONS)
    of_plain = run_here(plain)
    assert weights_of(folder) == weights_of(plain)
    same = of_plain.keys() - {"at_start"}
    assert {name: found[name] for name in same} == {name: of_plain[name] for name in same}


@pytest.mark.parametrize("method", METHODS)
def test_its_answers_are_measured_beside_its_parents_and_best_of_4(method, judged):
    folder, found = judged[method]
    assert (found["at_start"]["kl"], found["at_start"]["judged"]["win_rate"]) == (0.0, 0.5)
    assert abs(found["kl"]) > 0.001
    assert found["judged"]["prompts"] == 4
    assert found["judged"]["interval"][0] <= found["judged"]["win_rate"] <= found["judged"]["interval"][1]
    assert (
        found["best_of_4_win_rate_interval"][0]
        <= found["best_of_4_win_rate"]
        <= found["best_of_4_win_rate_interval"][1]
    )
    seen = {(line["name"], line["step"]) for line in metrics_of(folder)}
    for name in ("reward", "kl", "length", "win_rate", "win_rate_low", "win_rate_high", "best_of_4_win_rate"):
        assert {step for seen_name, step in seen if seen_name == f"held_out/{name}"} == {0, 6}, name
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [(one["step"], one["prompt_id"]) for one in samples] == [
        (step, f"prompt 2-{number}") for step in (0, 6) for number in range(4)
    ]


@pytest.mark.parametrize("method", METHODS)
def test_its_parent_is_what_it_is_measured_against(method, judged, tiny_model, reward_model, tmp_path):
    parent, of_parent = judged[method]
    child = judged_run(tmp_path / "child", method, tiny_model, reward_model, parent=str(parent / "output"))
    found = run_here(child)
    assert found["at_start"]["reward"] == pytest.approx(of_parent["reward"], abs=1e-3)
    assert found["at_start"]["kl"] == 0.0
    assert found["parent_reward"] != of_parent["parent_reward"]


@pytest.mark.slow
def test_killed_and_resumed_it_has_the_weights_of_a_straight_run(judged, tiny_model, reward_model, tmp_path):
    straight, of_straight = judged["dpo"]
    resumed, metrics = killed_and_resumed(
        lambda name: judged_run(tmp_path / name, "dpo", tiny_model, reward_model)
    )
    assert weights_of(resumed) == weights_of(straight)
    assert metrics["judged"] == of_straight["judged"]
    for checkpoint in checkpoints_of(straight):  # neither reward model nor reference
        assert not [file for file in checkpoint.iterdir() if file.is_dir()]


def test_prompts_without_room_for_an_answer_are_left_out_and_refused_when_all_are(
    tiny_model, reward_model, tmp_path
):
    folder = judged_run(
        tmp_path / "some", "dpo", tiny_model, reward_model, options={"judged_tokens": 100, "steps": 1}
    )
    long = some_pairs(rankings=3, seed=2)
    for pair in long[:6]:
        pair["prompt"] = [{"role": "user", "content": "time " * 30}]
    write_pairs(folder / "held_out.jsonl", long)
    assert run_here(folder)["judged"]["prompts"] == 2
    none = judged_run(tmp_path / "none", "dpo", tiny_model, reward_model, options={"judged_tokens": 256})
    with pytest.raises(RecipeError, match="judged_tokens = 256 within max_length = 256"):
        run_here(none)
