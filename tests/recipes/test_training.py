"""The recipes on frozen data, on a tiny random model: they learn, resume to the same weights, and say what is wrong."""

import errno
import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.recipes.runs import (
    ROWS,
    checkpoints_of,
    killed_and_resumed,
    make_training_run,
    metrics_of,
    result_of,
    run_here,
    some_pairs,
    start,
    steps_evaluated,
    stop_in_evaluation,
    wait_for_checkpoint,
    weights_of,
    write_pairs,
)
from training.recipes.fingerprints import fingerprints
from training.recipes.options import METHODS as described
from training.recipes.run_dir import RecipeError, explain, open_run
from training.recipes.training_loop import evaluate_held_out

METHODS = ("sft", "reward", "dpo", "kto")
# What each measures on held-out rows, and how many rows the usual run has for it.
FIGURES = {"sft": "loss", "reward": "accuracy", "dpo": "accuracy", "kto": "accuracy"}
COUNTS = {
    "sft": {"answers": 8, "train_answers": 16},
    "reward": {"pairs": 24, "train_pairs": 48},
    "dpo": {"pairs": 24, "train_pairs": 48},
    "kto": {"pairs": 16, "train_good": 16, "train_bad": 16},
}


@pytest.fixture(scope="module", params=METHODS)
def finished(request, tiny_model, tmp_path_factory) -> tuple[str, Path, dict]:
    """(method, RUN_DIR, metrics) of an uninterrupted run."""
    folder = make_training_run(tmp_path_factory.mktemp("finished") / "run", request.param, tiny_model)
    return request.param, folder, run_here(folder)


def test_it_learns_and_says_how_well_on_held_out_rows(finished):
    method, _, metrics = finished
    figure, start = FIGURES[method], metrics["at_start"]
    assert metrics[figure] < start[figure] if figure == "loss" else metrics[figure] > start[figure]
    low, high = metrics["interval"]
    assert low <= metrics[figure] <= high
    assert {name: metrics[name] for name in COUNTS[method]} == COUNTS[method]
    assert metrics["last_loss"] < metrics["first_loss"]
    if method != "sft":
        assert metrics["margin"] > start["margin"]
    if method in ("dpo", "kto"):
        assert metrics["first_loss"] == pytest.approx({"dpo": 0.6931, "kto": 0.5}[method], abs=1e-3)
        assert start["accuracy"] == 0.5
    if method == "reward":
        assert metrics["length_baseline"] | {"interval": None} == {
            "accuracy": 1.0,
            "interval": None,
            "pairs": 24,
            "prefers": "shorter",
        }


def test_its_measurements_can_be_followed_live(finished):
    method, folder, _ = finished
    seen = {(line["name"], line["step"]) for line in metrics_of(folder)}
    in_training = {"sft": {"token_accuracy"}, "kto": {"margin", "kl"}}.get(method, {"accuracy", "margin"})
    for name in {"loss", "learning_rate", "grad_norm"} | in_training:
        assert {(name, step) for step in range(1, 7)} <= seen
    figure = FIGURES[method]
    for name in (figure, f"{figure}_low", f"{figure}_high"):
        assert {(f"held_out/{name}", 0), (f"held_out/{name}", 6)} <= seen
    assert json.loads((folder / "progress.json").read_text()) == {"step": 6, "of": 6, "phase": "saving"}


@pytest.mark.parametrize("capabilities", [{}, {"amx_bf16": True}])
def test_a_saved_reward_model_scores_as_the_trained_one_did_to_the_bit(
    tiny_model, tmp_path, monkeypatch, capabilities
):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)  # float32, and bfloat16
    folder = make_training_run(tmp_path / "run", "reward", tiny_model)
    run_here(folder)
    from training.recipes import loading, scoring

    tokenizer = loading.load_tokenizer(tiny_model)
    model = scoring.load_reward_model(tiny_model, folder / "output", tokenizer, "eager")
    trained = json.loads((folder / "output" / "recipe.json").read_text())["probes"]
    assert scoring.score_conversations(model, tokenizer, scoring.PROBES) == trained


def test_its_output_holds_weights_and_no_path_of_this_machine(finished, tiny_model):
    method, folder, _ = finished
    output = folder / "output"
    assert {f.name for f in output.iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "recipe.json",
    }
    for file in ("adapter_config.json", "recipe.json"):
        text = (output / file).read_text()
        assert str(tiny_model.parent) not in text
        assert str(folder.parent) not in text
    assert json.loads((output / "recipe.json").read_text())["method"] == method
    assert not (folder / "unfinished").exists()


@pytest.mark.slow
def test_a_run_killed_at_any_moment_after_a_checkpoint_resumes_to_the_same_weights(
    finished, tiny_model, tmp_path
):
    method, whole, _ = finished
    options = {"save_steps": 1}
    resumed, metrics = killed_and_resumed(
        lambda name: make_training_run(tmp_path / name, method, tiny_model, options=options)
    )
    assert weights_of(resumed) == weights_of(whole)
    assert metrics["at_start"] is not None


def test_a_step_computed_in_parts_learns_the_same(finished, tiny_model, tmp_path):
    method, _, metrics = finished
    parted = make_training_run(tmp_path / "parted", method, tiny_model, options={"micro_batch_size": 5})
    again = run_here(parted)  # 12 pairs a step, in parts of 4
    assert again["first_loss"] == pytest.approx(metrics["first_loss"], abs=2e-3)
    assert again["last_loss"] == pytest.approx(metrics["last_loss"], abs=0.05)
    assert [line["step"] for line in metrics_of(parted) if line["name"] == "loss"] == [1, 2, 3, 4, 5, 6]


def test_a_run_resumed_in_smaller_parts_goes_on_with_the_same_rows(finished, tiny_model, tmp_path):
    method = finished[0]
    options = {"save_steps": 1, "steps": 5}
    halved = make_training_run(
        tmp_path / "halved", method, tiny_model, options=options | {"micro_batch_size": 3}
    )
    first = make_training_run(tmp_path / "first", method, tiny_model, options=options)
    run_here(first)
    shutil.copytree(first / "checkpoints" / "step-4", halved / "checkpoints" / "step-4")
    again = run_here(halved)
    assert (again["resumed_from"], again["steps"]) == (4, 5)

    def losses(folder: Path) -> dict[int, float]:
        return {line["step"]: line["value"] for line in metrics_of(folder) if line["name"] == "loss"}

    assert set(losses(halved)) == {5}
    # Other rows would have another loss: it moves by far more from step to step.
    assert losses(halved)[5] == pytest.approx(losses(first)[5], abs=2e-3)


def test_another_seed_ends_in_other_weights(finished, tiny_model, tmp_path):
    method, whole, _ = finished
    other = make_training_run(tmp_path / "other", method, tiny_model, seed=8)
    run_here(other)
    assert weights_of(other) != weights_of(whole)


def test_a_run_resumed_from_its_last_step_only_evaluates_and_saves(finished, tiny_model, tmp_path):
    method, whole, metrics = finished
    resumed = make_training_run(tmp_path / "resumed", method, tiny_model)
    shutil.copytree(whole / "checkpoints" / "step-6", resumed / "checkpoints" / "step-6")
    again = run_here(resumed)
    assert again == metrics | {"resumed_from": 6}
    assert weights_of(resumed) == weights_of(whole)


def test_what_is_due_after_the_last_step_is_evaluated_once(finished, tiny_model, tmp_path):
    method, whole, _ = finished
    resumed = make_training_run(tmp_path / "resumed", method, tiny_model, options={"eval_steps": 3})
    shutil.copytree(whole / "checkpoints" / "step-6", resumed / "checkpoints" / "step-6")
    run_here(resumed)
    assert steps_evaluated(resumed, FIGURES[method]) == [6]


def test_sigterm_saves_a_checkpoint_and_exits_143(tiny_model, tmp_path):
    folder = make_training_run(tmp_path / "run", "dpo", tiny_model, options={"steps": 2000, "save_steps": 1})
    process = start(folder)
    wait_for_checkpoint(folder, process)
    before = json.loads((folder / "progress.json").read_text())["step"]
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    result = result_of(folder)
    assert (result["ok"], result["kind"]) == (False, "interrupted")
    step = int(checkpoints_of(folder)[-1].name[5:])
    assert step >= before
    assert step == json.loads((folder / "progress.json").read_text())["step"]


def test_sigterm_ends_an_evaluation_at_once_and_it_is_made_when_the_run_goes_on(
    finished, tiny_model, tmp_path, monkeypatch
):
    method, whole, _ = finished
    folder = make_training_run(tmp_path / "run", method, tiny_model, options={"eval_steps": 3})
    stop_in_evaluation(folder, 3, monkeypatch)
    assert checkpoints_of(folder)[-1].name == "step-3"  # between those of every second step
    assert steps_evaluated(folder, FIGURES[method]) == [0]
    assert run_here(folder)["resumed_from"] == 3
    assert steps_evaluated(folder, FIGURES[method]) == [0, 3, 6]
    assert weights_of(folder) == weights_of(whole)


def test_a_full_disk_leaves_the_last_checkpoint_good_and_says_so(tiny_model, tmp_path, monkeypatch):
    import torch

    save, saved = torch.save, []

    def fails_in_the_second_checkpoint(content, path, *args, **kwargs):
        saved.append(path)
        if "checkpoint-4" in str(path):
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return save(content, path, *args, **kwargs)

    monkeypatch.setattr(torch, "save", fails_in_the_second_checkpoint)
    folder = make_training_run(tmp_path / "run", "dpo", tiny_model)
    with pytest.raises(OSError) as failure:
        run_here(folder)
    assert "The disk holding run is full" in explain(failure.value, folder)
    assert [f.name for f in checkpoints_of(folder)] == ["step-2"]
    assert open_run(folder, "dpo").latest_checkpoint()[0] == 2


def test_weights_that_are_not_finite_are_never_an_output(tiny_model, tmp_path, monkeypatch):
    from training.recipes import training_loop

    real = training_loop.get_peft_model_state_dict

    def poisoned(*args, **kwargs):
        return {name: tensor * float("nan") for name, tensor in real(*args, **kwargs).items()}

    train = training_loop.train

    def train_and_break(*args):
        metrics = train(*args)
        monkeypatch.setattr(training_loop, "get_peft_model_state_dict", poisoned)
        return metrics

    monkeypatch.setattr(training_loop, "train", train_and_break)
    folder = make_training_run(tmp_path / "run", "dpo", tiny_model, options={"steps": 2})
    with pytest.raises(RecipeError, match="not finite, so it is not published"):
        run_here(folder)
    assert not (folder / "output").exists()


def test_a_held_out_figure_that_is_not_finite_stops_the_run(tiny_model, tmp_path):
    run = open_run(make_training_run(tmp_path / "run", "dpo", tiny_model), "dpo")
    with pytest.raises(RecipeError, match=r"held_out/margin became nan at step 3.*learning_rate"):
        evaluate_held_out(run, 3, 6, lambda: {"margin": float("nan")})


def test_what_an_adapter_was_trained_to_read_is_written_beside_it(finished, tiny_model, tmp_path):
    method, folder, _ = finished
    facts = json.loads((folder / "output" / "recipe.json").read_text())
    assert facts | fingerprints(tiny_model) == facts
    other = shutil.copytree(tiny_model, tmp_path / "other")
    (other / "chat_template.jinja").write_text("{{ messages[0]['content'] }}{{ eos_token }}")
    child = make_training_run(tmp_path / "child", method, other, parent=str(folder / "output"))
    with pytest.raises(RecipeError, match="trained with another chat template than the base other has"):
        run_here(child)


def test_a_policy_carries_on_from_its_parent_which_is_its_reference(finished, tiny_model, tmp_path):
    method, parent, of_parent = finished
    child = make_training_run(tmp_path / "child", method, tiny_model, parent=str(parent / "output"))
    metrics = run_here(child)
    assert weights_of(child) != weights_of(parent)
    if method in ("dpo", "kto"):
        assert metrics["first_loss"] == pytest.approx({"dpo": 0.6931, "kto": 0.5}[method], abs=1e-3)
        assert metrics["at_start"]["margin"] == pytest.approx(0.0, abs=1e-4)
    else:  # it starts where the parent ended
        figure = FIGURES[method]
        assert metrics["at_start"][figure] == pytest.approx(of_parent[figure], abs=1e-3)
    resumed = make_training_run(tmp_path / "resumed", method, tiny_model, parent=str(parent / "output"))
    shutil.copytree(child / "checkpoints" / "step-4", resumed / "checkpoints" / "step-4")
    run_here(resumed)
    assert weights_of(resumed) == weights_of(child)


def test_a_parent_of_the_other_kind_is_refused(finished, tiny_model, tmp_path):
    kind, parent, _ = finished
    method = "dpo" if kind == "reward" else "reward"
    folder = make_training_run(tmp_path / "run", method, tiny_model, parent=str(parent / "output"))
    with pytest.raises(RecipeError, match="LoRA adapter is needed here"):
        run_here(folder)


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(
    tiny_model, tmp_path, monkeypatch, method
):
    from training.recipes import loading

    folder = make_training_run(tmp_path / "run", method, tiny_model, options={"save_steps": 1})
    name = "load_reward_base" if method == "reward" else "load_policy"
    load = getattr(loading, name)

    def turn_into_nan(module, inputs, output):
        if (folder / "checkpoints" / "step-2").exists():
            output.last_hidden_state = output.last_hidden_state * float("nan")

    def load_poisoned(*args, **how):
        model = load(*args, **how)
        model.base_model.register_forward_hook(turn_into_nan)
        return model

    monkeypatch.setattr(loading, name, load_poisoned)
    with pytest.raises(RecipeError, match=r"loss became nan at step 3.*learning_rate"):
        run_here(folder)
    assert checkpoints_of(folder)[-1].name == "step-2"
    assert not (folder / "output").exists()


def test_an_adapter_that_does_not_change_is_an_error(tiny_model, tmp_path):
    # One step of warm-up is taken at a learning rate of 0.
    options = {"steps": 1, "warmup_steps": 1}
    folder = make_training_run(tmp_path / "run", "dpo", tiny_model, options=options)
    with pytest.raises(RecipeError, match="unchanged after training"):
        run_here(folder)


LONG = [{"role": "assistant", "content": "x" * 300}]


@pytest.mark.parametrize(
    ("method", "changes", "counted"),
    [
        ("sft", {"completion": LONG}, {"dropped": 0, "truncated": 1}),
        ("reward", {"chosen": LONG}, {"dropped": 1, "truncated": 0}),
        ("dpo", {"chosen": LONG}, {"dropped": 0, "truncated": 1}),
        ("kto", {"completion": LONG}, {"dropped": 0, "truncated": 1}),
    ],
)
def test_rows_that_are_too_long_are_counted(tiny_model, tmp_path, method, changes, counted):
    options = {"steps": 1, "max_length": 200}
    folder = make_training_run(tmp_path / "run", method, tiny_model, options=options)
    rows = ROWS[described[method].reads](rankings=9, seed=1)
    write_pairs(folder / "train.jsonl", [rows[0] | changes, *rows[1:]])
    metrics = run_here(folder)
    assert {name: metrics[name] for name in counted} == counted


@pytest.mark.parametrize(("method", "rows"), [("sft", 16), ("dpo", 48), ("kto", 32)])
def test_a_prompt_that_leaves_nothing_of_its_completion_is_an_error(tiny_model, tmp_path, method, rows):
    folder = make_training_run(tmp_path / "run", method, tiny_model, options={"max_length": 40})
    told = rf"In {rows} rows the prompt alone fills max_length = 40.*first is train.jsonl, line 1 .*Raise max_length"
    with pytest.raises(RecipeError, match=told):
        run_here(folder)


def test_pairs_that_are_all_too_long_for_a_reward_model_are_an_error(tiny_model, tmp_path):
    folder = make_training_run(tmp_path / "run", "reward", tiny_model, options={"max_length": 40})
    told = r"0 rows are left.*48 are longer than max_length = 40 tokens, the first is train.jsonl, line 1 .*Raise max"
    with pytest.raises(RecipeError, match=told):
        run_here(folder)


@pytest.mark.parametrize("method", METHODS)
def test_too_few_rows_to_learn_from_are_an_error(tiny_model, tmp_path, method):
    folder = make_training_run(tmp_path / "run", method, tiny_model)
    write_pairs(folder / "train.jsonl", ROWS[described[method].reads](rankings=2, seed=1)[:7])
    with pytest.raises(RecipeError, match=r"\d rows are left.*at least 8 are needed"):
        run_here(folder)


def test_chosen_and_rejected_that_are_equal_once_they_are_cut_are_an_error(tiny_model, tmp_path):
    folder = make_training_run(tmp_path / "run", "dpo", tiny_model, options={"max_length": 200})
    pairs = some_pairs(rankings=8, seed=1)
    ends = [[{"role": "assistant", "content": "x" * 300 + end}] for end in "ab"]
    pairs[4] |= {"chosen": ends[0], "rejected": ends[1]}
    write_pairs(folder / "train.jsonl", pairs)
    told = r"In 1 rows chosen and rejected are the same tokens within max_length = 200.*train.jsonl, line 5 .*Raise"
    with pytest.raises(RecipeError, match=told):
        run_here(folder)


@pytest.mark.parametrize("method", ["sft", "dpo", "kto"])
def test_a_template_that_cannot_mark_the_completion_is_refused(tiny_model, tmp_path, method):
    base = shutil.copytree(tiny_model, tmp_path / "base")
    template = "{% for m in messages %}{{ m['role'] }}{{ m['content'] }}<|im_end|>{% endfor %}"
    (base / "chat_template.jinja").write_text(template + "{% if add_generation_prompt %}Think!{% endif %}")
    folder = make_training_run(tmp_path / "run", method, base)
    with pytest.raises(RecipeError, match=r"answer can't be told from the prompt.*mend its chat_template"):
        run_here(folder)


def test_missing_data_is_named(tiny_model, tmp_path):
    folder = make_training_run(tmp_path / "run", "reward", tiny_model)
    (folder / "held_out.jsonl").unlink()
    with pytest.raises(RecipeError, match=r"held_out.jsonl is missing"):
        run_here(folder)
