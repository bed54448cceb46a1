"""SFT, reward models and DPO with all weights: they learn, resume to the same weights, and leave a whole model."""

import json
import shutil
from pathlib import Path

import pytest

from tests.recipes.runs import killed_and_resumed, make_training_run, metrics_of, run_here
from training.recipes.fingerprints import fingerprints
from training.recipes.model_folders import check_model, tensors_of
from training.recipes.run_dir import RecipeError

METHODS = ("sft", "reward", "dpo")
FULL = {"weights": "full", "learning_rate": 0.002}


def make_full_run(folder: Path, method: str, base: Path, **changes) -> Path:
    return make_training_run(folder, method, base, **changes | {"options": FULL | changes.get("options", {})})


def whole_weights_of(folder: Path) -> bytes:
    return (folder / "output" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module", params=METHODS)
def finished(request, tiny_model, tmp_path_factory) -> tuple[str, Path, dict]:
    """(method, RUN_DIR, metrics) of an uninterrupted run."""
    folder = make_full_run(tmp_path_factory.mktemp("finished") / "run", request.param, tiny_model)
    return request.param, folder, run_here(folder)


def test_it_learns(finished):
    method, _, metrics = finished
    start = metrics["at_start"]
    if method == "sft":
        assert metrics["loss"] < start["loss"]
    else:
        assert metrics["margin"] > start["margin"]
    assert metrics["last_loss"] < metrics["first_loss"]


def test_its_output_is_a_whole_model_of_which_everything_has_learnt(finished, tiny_model):
    from safetensors.torch import load_file

    method, folder, _ = finished
    output = folder / "output"
    check_model(output)
    assert {"tokenizer.json", "tokenizer_config.json", "recipe.json"} <= {f.name for f in output.iterdir()}
    assert (output / "generation_config.json").is_file() == (method != "reward")
    for file in output.glob("*.json"):
        text = file.read_text()
        assert str(tiny_model.parent) not in text and str(folder.parent) not in text
    facts = json.loads((output / "recipe.json").read_text())
    assert facts | fingerprints(tiny_model) == facts
    assert (facts["method"], facts["options"]["weights"]) == (method, "full")
    if method != "reward":
        for file in ("config.json", "generation_config.json"):
            assert json.loads((output / file).read_text()) == json.loads((tiny_model / file).read_text())
    # The language head is tied to the embeddings, so a reward model has all of them, and a score head besides.
    assert set(tensors_of(output)) - set(tensors_of(tiny_model)) == (
        {"score.weight"} if method == "reward" else set()
    )
    before, after = load_file(tiny_model / "model.safetensors"), load_file(output / "model.safetensors")
    assert all((after[name] != before[name]).any() for name in before)
    assert {tensor.dtype for tensor in after.values()} == {tensor.dtype for tensor in before.values()}


@pytest.mark.slow
def test_a_run_killed_at_any_moment_after_a_checkpoint_resumes_to_the_same_weights(
    finished, tiny_model, tmp_path
):
    method, whole, _ = finished
    options = {"save_steps": 1}
    resumed, metrics = killed_and_resumed(
        lambda name: make_full_run(tmp_path / name, method, tiny_model, options=options)
    )
    assert whole_weights_of(resumed) == whole_weights_of(whole)
    assert metrics["at_start"] is not None


def test_a_run_resumed_from_its_last_step_only_evaluates_and_saves(finished, tiny_model, tmp_path):
    method, whole, metrics = finished
    resumed = make_full_run(tmp_path / "resumed", method, tiny_model)
    shutil.copytree(whole / "checkpoints" / "step-6", resumed / "checkpoints" / "step-6")
    assert run_here(resumed) == metrics | {"resumed_from": 6}
    assert whole_weights_of(resumed) == whole_weights_of(whole)


def test_a_step_computed_in_parts_learns_the_same(finished, tiny_model, tmp_path):
    method, _, metrics = finished
    again = run_here(make_full_run(tmp_path / "parted", method, tiny_model, options={"micro_batch_size": 5}))
    assert again["first_loss"] == pytest.approx(metrics["first_loss"], abs=2e-3)
    assert again["last_loss"] == pytest.approx(metrics["last_loss"], abs=0.05)


def test_the_reference_of_dpo_is_a_frozen_copy_of_what_it_started_from(tiny_model, tmp_path):
    """The held-out margin again, plainly: log-probabilities of the saved policy against those of the base."""
    import torch

    from training.recipes import dpo, loading

    folder = make_full_run(tmp_path / "run", "dpo", tiny_model)
    metrics = run_here(folder)
    assert metrics["first_loss"] == pytest.approx(0.6931, abs=1e-3)
    assert metrics["at_start"]["margin"] == 0.0
    # Both compute alike, down to the last bit.
    assert [m["value"] for m in metrics_of(folder) if (m["name"], m["step"]) == ("margin", 1)] == [0.0]

    tokenizer = loading.load_tokenizer(tiny_model)
    _, rows, _ = dpo.read(folder / "held_out.jsonl", tokenizer, 1024, 1)
    models = [
        loading.load_policy(place, tokenizer, dtype=torch.float32)
        for place in (folder / "output", tiny_model)
    ]

    @torch.no_grad()
    def gained(row) -> float:
        ids = torch.tensor([row.ids])  # (1, seq)
        found = []
        for model in models:
            with torch.autocast("cpu", torch.bfloat16, enabled=loading.compute_dtype() == torch.bfloat16):
                log_probs = (
                    model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
                )  # (seq - 1, vocabulary)
            of_labels = log_probs.gather(1, ids[0, 1:, None])[:, 0]
            found.append(float(of_labels[row.prompt - 1 :].sum()))
        return found[0] - found[1]

    margins = [0.1 * (gained(chosen) - gained(rejected)) for chosen, rejected in rows]
    assert metrics["margin"] > 0.1
    assert metrics["margin"] == pytest.approx(sum(margins) / len(margins), rel=0.05)


def test_weights_are_held_in_float32_and_rounded_once_to_what_the_base_is_stored_as(half_model, tmp_path):
    import torch
    from safetensors.torch import load_file

    folder = make_full_run(tmp_path / "run", "sft", half_model)
    run_here(folder)
    held = load_file(folder / "checkpoints" / "step-6" / "model.safetensors")
    saved = load_file(folder / "output" / "model.safetensors")
    assert {tensor.dtype for tensor in held.values()} == {torch.float32}
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}
    assert held.keys() == saved.keys()
    assert all(torch.equal(held[name].to(torch.bfloat16), saved[name]) for name in held)
    assert json.loads((folder / "output" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_reward_model_scores_after_it_was_saved_as_it_was_measured(half_model, tmp_path):
    """Its weights are rounded to the base's bfloat16 before they are measured."""
    from training.recipes import loading, reward, scoring

    folder = make_full_run(tmp_path / "run", "reward", half_model)
    metrics = run_here(folder)
    tokenizer = loading.load_tokenizer(half_model)
    model = scoring.load_reward_model(half_model, folder / "output", tokenizer, "eager")
    facts = json.loads((folder / "output" / "recipe.json").read_text())
    probes = scoring.score_conversations(model, tokenizer, scoring.PROBES)
    assert probes == pytest.approx(facts["probes"], abs=1e-4)
    _, rows, _ = reward.read(folder / "held_out.jsonl", tokenizer, 1024, 1)
    scores = reward.score_pairs(model, tokenizer, rows)
    margin = sum(chosen - rejected for chosen, rejected in scores) / len(scores)
    assert margin == pytest.approx(metrics["margin"], abs=1e-4)


def test_a_folder_without_a_score_head_is_no_reward_model(tiny_model):
    from training.recipes import loading, scoring

    with pytest.raises(RecipeError, match="no score head"):
        scoring.load_reward_model(tiny_model, tiny_model, loading.load_tokenizer(tiny_model))


def test_it_carries_on_from_whole_weights_with_all_of_them_or_with_an_adapter(finished, tmp_path):
    method, parent, of_parent = finished
    figure = "loss" if method == "sft" else "margin"
    for weights in ("full", "lora"):
        child = make_full_run(
            tmp_path / weights,
            method,
            parent / "output",
            options={"weights": weights, "learning_rate": 0.002},
        )
        metrics = run_here(child)
        if method == "dpo":  # the parent is its reference
            assert metrics["first_loss"] == pytest.approx(0.6931, abs=1e-3)
        else:  # it starts where the parent ended
            assert metrics["at_start"][figure] == pytest.approx(of_parent[figure], rel=0.05, abs=0.02)
        assert (child / "output" / "model.safetensors").is_file() == (weights == "full")


def test_an_adapter_to_go_on_from_is_refused(tiny_model, tmp_path):
    adapter = make_training_run(tmp_path / "adapter", "dpo", tiny_model, options={"steps": 1})
    run_here(adapter)
    folder = make_full_run(tmp_path / "run", "dpo", tiny_model, parent=str(adapter / "output"))
    with pytest.raises(
        RecipeError, match=r"weights is full.*LoRA adapter.*Merge the adapter.*set weights to lora"
    ):
        run_here(folder)


def test_weights_that_do_not_change_are_an_error(tiny_model, tmp_path):
    # One step of warm-up is taken at a learning rate of 0.
    folder = make_full_run(tmp_path / "run", "sft", tiny_model, options={"steps": 1, "warmup_steps": 1})
    with pytest.raises(RecipeError, match="unchanged after training"):
        run_here(folder)


def test_weights_that_are_not_finite_are_not_published(tiny_model, tmp_path, monkeypatch):
    from training.recipes import training_loop

    train = training_loop.train

    def train_and_break(trainer, *args):
        metrics = train(trainer, *args)
        next(iter(trainer.model.parameters())).data.fill_(float("inf"))
        return metrics

    monkeypatch.setattr(training_loop, "train", train_and_break)
    folder = make_full_run(tmp_path / "run", "dpo", tiny_model, options={"steps": 2})
    with pytest.raises(RecipeError, match="not finite, so it is not published"):
        run_here(folder)
    assert not (folder / "output").exists()
