"""PPO on a tiny random model: it learns what is rewarded, resumes to the same weights, and says what is wrong."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.recipes.runs import (
    checkpoints_of,
    killed_and_resumed,
    make_rollout_run,
    metrics_of,
    run_here,
    steps_evaluated,
    stop_in_evaluation,
    weights_of,
)
from training.recipes import loading, scoring
from training.recipes.prompts import Prompt
from training.recipes.rendering import conversation_ids
from training.recipes.run_dir import RecipeError, explain, open_run
from training.recipes.shared_base import POLICY, REFERENCE, VALUE, SharedBase, rows_of

OPTIONS = {
    "steps": 4,
    "batch_size": 16,
    "micro_batch_size": 8,
    "max_new_tokens": 6,
    "learning_rate": 0.02,
    "value_learning_rate": 0.02,
    "value_warmup_steps": 1,
    "warmup_steps": 0,
    "save_steps": 1,
    "reward": "required_words",
    "required_words": ",".join("!?.;:+-*/=<>()[]{}#$%&@^_|~"),  # such as random bytes hold
    "missing_eos_penalty": 0.0,
    "kl_coefficient": 0.01,
    "max_length": 256,
}
LEARNT = {"reward": "reward_model", "required_words": ""}


def ppo_run(folder: Path, base: Path, **changes) -> Path:
    return make_rollout_run(
        folder, "ppo", base, **changes | {"options": OPTIONS | changes.get("options", {})}
    )


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory) -> tuple[Path, dict]:
    folder = ppo_run(tmp_path_factory.mktemp("finished") / "run", tiny_model)
    return folder, run_here(folder)


def test_it_measures_itself_on_held_out_prompts_beside_its_parent_and_best_of_4(finished):
    folder, metrics = finished
    assert metrics["steps"] == 4
    assert metrics["at_start"]["kl"] == pytest.approx(0.0, abs=1e-4)
    assert (
        metrics["at_start"]["win_rate"] == 0.5
    )  # the same seed gives parent and policy the same completions
    assert abs(metrics["kl"]) > 0.001
    assert (
        metrics["best_of_4_win_rate_interval"][0]
        <= metrics["best_of_4_win_rate"]
        <= metrics["best_of_4_win_rate_interval"][1]
    )
    assert metrics["interval"][0] <= metrics["win_rate"] <= metrics["interval"][1]
    seen = {(line["name"], line["step"]) for line in metrics_of(folder)}
    for name in ("reward", "kl", "kl_coefficient", "length", "repetition", "finished_share", "value_loss"):
        assert {(name, step) for step in range(1, 5)} <= seen
    assert {("policy_loss", 2), ("held_out/kl", 0), ("held_out/best_of_4_reward", 4)} <= seen
    assert ("policy_loss", 1) not in seen  # the value model learns alone for a step

    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    last = [sample["reward"] for sample in samples if sample["step"] == 4]
    assert {sample["step"] for sample in samples} >= {0, 4} and len(last) == 4
    assert sum(last) / 4 == pytest.approx(metrics["reward"])
    assert "samples" not in metrics


@pytest.fixture(scope="module")
def sharper_model(tiny_model, tmp_path_factory) -> Path:
    """The tiny model with larger embeddings: as it comes it can hardly prefer one token to another."""
    from transformers import AutoModelForCausalLM

    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("sharper") / "tiny")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight *= 8
    model.save_pretrained(folder)
    return folder


def test_it_learns_what_is_rewarded(sharper_model, tmp_path):
    options = {
        "steps": 14,
        "batch_size": 64,
        "micro_batch_size": 64,
        "save_steps": 14,
        "epochs": 4,
        "learning_rate": 0.01,
        "kl_coefficient": 0.0,
        "kl_stop": 1.0,
    }
    metrics = run_here(ppo_run(tmp_path / "run", sharper_model, options=options))
    assert metrics["last_reward"] > metrics["first_reward"] * 1.3
    assert metrics["kl"] > 1.0


@pytest.mark.slow
@pytest.mark.parametrize("with_parent", [False, True])
def test_a_run_killed_at_any_moment_resumes_to_the_same_weights(finished, tiny_model, tmp_path, with_parent):
    changes = {"parent": str(finished[0] / "output")} if with_parent else {}
    whole = finished[0]
    if with_parent:
        whole = ppo_run(tmp_path / "whole", tiny_model, **changes)
        run_here(whole)
        assert weights_of(whole) != weights_of(finished[0])
    resumed, _ = killed_and_resumed(lambda name: ppo_run(tmp_path / name, tiny_model, **changes))
    assert weights_of(resumed) == weights_of(whole)


def test_sigterm_ends_an_evaluation_at_once_and_it_is_made_when_the_run_goes_on(
    finished, tiny_model, tmp_path, monkeypatch
):
    folder = ppo_run(tmp_path / "run", tiny_model, options={"eval_steps": 3, "save_steps": 2})
    stop_in_evaluation(folder, 3, monkeypatch)
    assert checkpoints_of(folder)[-1].name == "step-3"
    assert steps_evaluated(folder, "win_rate") == [0]
    assert run_here(folder)["resumed_from"] == 3
    assert steps_evaluated(folder, "win_rate") == [0, 3, 4]
    assert weights_of(folder) == weights_of(finished[0])


def test_the_first_epoch_goes_on_from_the_answers_to_the_rollouts(tiny_model, tmp_path, monkeypatch):
    """Where a step is one part: with fewer passes, and the same weights to the bit as when asked again."""
    from training.recipes import ppo

    whole = {"micro_batch_size": 16, "epochs": 2}
    asked, weights = [], []
    for name in ("policy", "values"):
        original = getattr(SharedBase, name)
        monkeypatch.setattr(
            SharedBase, name, lambda *a, name=name, f=original: asked[-1].append(name) or f(*a)
        )
    for name, keeps in (("kept", ppo.Learner.keeps), ("again", lambda learner: ())):
        monkeypatch.setattr(ppo.Learner, "keeps", keeps)
        asked.append([])
        folder = ppo_run(tmp_path / name, tiny_model, options=whole)
        run_here(folder)
        weights.append(weights_of(folder))
    assert weights[0] == weights[1]
    # The value model learns in all of the four steps, the policy in three.
    saved = [asked[1].count(name) - asked[0].count(name) for name in ("values", "policy")]
    assert saved == [4, 3]


@pytest.mark.parametrize("changes", [{"micro_batch_size": 8}, {"mini_batches": 2}])
def test_nothing_is_kept_of_a_step_in_parts(tiny_model, changes):
    from training.recipes import ppo
    from training.recipes.options import parse_options

    shared = SharedBase(tiny_model, loading.load_tokenizer(tiny_model), None, 4, 8)
    shared.add_value(4, 8)
    one_part = {"micro_batch_size": 16, "mini_batches": 1, "value_warmup_steps": 0}
    assert ppo.Learner(parse_options("ppo", OPTIONS | one_part), shared).keeps() == (POLICY, VALUE)
    assert ppo.Learner(parse_options("ppo", OPTIONS | one_part | changes), shared).keeps() == ()


def test_another_seed_ends_in_other_weights(finished, tiny_model, tmp_path):
    other = ppo_run(tmp_path / "other", tiny_model, seed=8)
    run_here(other)
    assert weights_of(other) != weights_of(finished[0])


def test_a_checkpoint_holds_no_pickle(finished):
    names = {file.name for file in checkpoints_of(finished[0])[-1].iterdir()}
    assert names == {"weights.safetensors", "optimizers.safetensors", "state.json", "manifest.json"}


def test_neither_micro_batches_nor_layers_computed_anew_change_more_than_rounding(tiny_model):
    from training.recipes import ppo, rollouts
    from training.recipes.options import parse_options

    gradients, kept = [], []
    for together, recomputes in ((16, False), (3, False), (16, True)):
        torch.manual_seed(0)
        tokenizer = loading.load_tokenizer(tiny_model)
        shared = SharedBase(tiny_model, tokenizer, None, 4, 8)
        shared.add_value(4, 8)
        shared.recomputes = recomputes
        options = parse_options("ppo", OPTIONS | {"micro_batch_size": together})
        learner = ppo.Learner(options, shared)
        prompts = [Prompt([{"role": "user", "content": f"Say {i}."}], str(i)) for i in range(8)]
        # The same rollouts for both: rounding could choose another token.
        made = rollouts.collect(
            shared, lambda p, t: [float(len(x)) for x in t], prompts, parse_options("ppo", OPTIONS), 5
        )
        advantages = torch.randn(made.rows.mask.shape, generator=torch.Generator().manual_seed(1))
        saved: list[int] = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=saved: s.append(t.numel()) or t, lambda t: t
        )
        with shared.for_learning(), hooks:
            learner._gradient(POLICY, made, advantages, advantages, list(range(8)))
        assert not any(module.training for module in shared.model.modules())
        kept.append(sum(saved))
        weights = shared.parameters_of(POLICY).values()
        gradients.append(torch.cat([w.grad.flatten() for w in weights if w.grad is not None]))
    for other in gradients[1:]:
        assert torch.allclose(gradients[0], other, rtol=0.05, atol=gradients[0].abs().max() * 0.02)
    assert kept[2] < kept[0] / 2


def test_what_rows_begin_with_is_computed_once_which_changes_nothing_but_rounding(tiny_model, monkeypatch):
    """Beside each row alone, where nothing is shared. All prompts begin with the same 21 tokens."""
    prompts = [[1, *range(60, 80), *end] for end in ([7, 8, 9], [7, 5], [30])]
    completions = [[40, 41, 2], [50, 2], [42, 43, 44, 2]]
    found = []
    for together in (3, 1):
        torch.manual_seed(0)
        shared = SharedBase(tiny_model, loading.load_tokenizer(tiny_model), None, 4, 8)
        shared.add_value(4, 8)
        for adapter in (POLICY, VALUE):
            for name, weight in shared.parameters_of(adapter).items():
                weight.data += (
                    torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))) * 0.05
                )
        seen: list[int] = []
        hidden = shared._hidden

        def watched(ids, attention, wanted, seen=seen, hidden=hidden):
            states, first = hidden(ids, attention, wanted)
            seen += first.tolist()
            return states, first

        monkeypatch.setattr(shared, "_hidden", watched)
        said = []
        for start in range(0, 3, together):
            part = slice(start, start + together)
            rows = rows_of(prompts[part], completions[part], shared.tokenizer.pad_token_id, "cpu")
            for ask in (shared.policy, shared.values):
                answers = ask(rows)
                answers.sum().backward()
                said += answers.detach()[rows.mask.bool()].tolist()
        gradients = [w.grad for a in (POLICY, VALUE) for w in shared.parameters_of(a).values()]
        found.append((sorted(said), torch.cat([grad.flatten() for grad in gradients if grad is not None])))
        assert set(seen) == {21 if together == 3 else 0}
    assert found[0][0] == pytest.approx(found[1][0], abs=0.03)
    assert torch.allclose(found[0][1], found[1][1], rtol=0.05, atol=found[1][1].abs().max() * 0.03)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_token_has_the_probability_with_which_it_was_sampled(tiny_model, temperature):
    """Beside transformers' own logits, token by token."""
    shared = SharedBase(tiny_model, loading.load_tokenizer(tiny_model), None, 4, 8)
    shared.temperature = temperature
    prompt, completion = [1, 60, 61, 62], [40, 41, 2]
    rows = rows_of([prompt], [completion], shared.tokenizer.pad_token_id, "cpu")
    with torch.no_grad(), shared._autocast():
        logits = shared.model(input_ids=torch.tensor([prompt + completion])).logits[0].float()
    slow = [
        float(torch.log_softmax(logits[len(prompt) - 1 + place] / temperature, dim=-1)[token])
        for place, token in enumerate(completion)
    ]
    assert shared.policy(rows)[0].tolist() == pytest.approx(slow, abs=0.02)


def test_best_of_4_is_held_against_a_fifth_completion(tiny_model, monkeypatch):
    """Else the best of four would meet one of the four, and win 7 times in 8 whatever the reward."""
    from training.recipes import rollouts
    from training.recipes.options import parse_options

    prompts = [Prompt([{"role": "user", "content": f"Say {n}."}], str(n)) for n in range(3)]
    held_out = rollouts.HeldOut(prompts, parse_options("ppo", OPTIONS), 5)
    of_parent = [[3, 3, 0], [1, 2, 0], [2, 3, 0], [0, 1, 0], [1, 1, 0]]  # first what is met, then the four
    by_seed = dict(zip(held_out.seeds, torch.tensor(of_parent).float().numpy(), strict=True))
    monkeypatch.setattr(held_out, "_rewards_of_parent", lambda shared, reward, seed: by_seed[seed])
    shared = SharedBase(tiny_model, loading.load_tokenizer(tiny_model), None, 4, 8)
    found = held_out.evaluate(shared, lambda p, texts: [5.0 for _ in texts], at_start=False)
    assert found["best_of_4_reward"] == pytest.approx((2 + 3 + 0) / 3)
    assert found["best_of_4_win_rate"] == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert found["win_rate"] == 1.0


def test_the_reward_adapter_on_the_shared_base_scores_as_the_reward_model_does(tiny_model, reward_model):
    tokenizer = loading.load_tokenizer(tiny_model)
    torch.manual_seed(0)
    shared = SharedBase(tiny_model, tokenizer, None, 4, 8)
    shared.add_value(4, 8)
    shared.add_reward(tiny_model, reward_model)
    alone = scoring.load_reward_model(tiny_model, reward_model, tokenizer)
    wanted = scoring.score_conversations(alone, tokenizer, scoring.PROBES)
    found = shared.scores([conversation_ids(tokenizer, c) for c in scoring.PROBES], together=3)
    assert found == pytest.approx(wanted, abs=1e-2)
    assert max(found) - min(found) > 0.05


def test_the_reference_stays_what_the_parent_was(finished, tiny_model):
    tokenizer = loading.load_tokenizer(tiny_model)
    shared = SharedBase(tiny_model, tokenizer, finished[0] / "output", 16, 32)
    rows = rows_of([[1, 5, 9]], [[40, 41, 2]], tokenizer.pad_token_id, "cpu")
    before = shared.policy(rows).detach()
    assert torch.allclose(before, shared.reference(rows))
    with torch.no_grad():
        for weight in shared.parameters_of(POLICY).values():
            weight += 0.1
    assert torch.allclose(before, shared.reference(rows))
    assert not torch.allclose(before, shared.policy(rows))
    assert not any(w.requires_grad for w in shared.parameters_of(REFERENCE).values())


def test_it_learns_from_a_reward_model(tiny_model, reward_model, tmp_path):
    options = LEARNT | {"steps": 2, "missing_eos_penalty": 1.0}
    folder = ppo_run(tmp_path / "run", tiny_model, options=options, reward_model=str(reward_model))
    metrics = run_here(folder)
    assert metrics["steps"] == 2
    assert (folder / "output" / "adapter_model.safetensors").is_file()


def test_without_a_reward_model_it_says_so(tiny_model, tmp_path):
    with pytest.raises(RecipeError, match="the run names none"):
        run_here(ppo_run(tmp_path / "run", tiny_model, options=LEARNT))


def test_it_ends_early_when_the_kl_leaves_its_bounds(tiny_model, tmp_path):
    options = {"kl_ceiling": 0.1, "learning_rate": 0.1, "value_warmup_steps": 0, "steps": 30, "kl_stop": 10.0}
    metrics = run_here(ppo_run(tmp_path / "run", tiny_model, options=options))
    assert metrics["steps"] < 30
    assert "the KL to the reference reached" in metrics["stopped"]


def test_passes_of_a_step_end_once_the_policy_has_moved_too_far(tiny_model, tmp_path):
    options = {"kl_stop": 0.0001, "learning_rate": 0.1, "value_warmup_steps": 0, "steps": 2, "epochs": 5}
    folder = ppo_run(tmp_path / "run", tiny_model, options=options)
    run_here(folder)
    updates = [line["value"] for line in metrics_of(folder) if line["name"] == "updates"]
    assert updates == [1.0, 1.0]


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(tiny_model, tmp_path, monkeypatch):
    from training.recipes import ppo_math

    calls, losses = [], ppo_math.policy_losses

    def poisoned(*args):
        calls.append(1)
        return losses(*args) * (float("nan") if len(calls) > 6 else 1.0)

    monkeypatch.setattr(ppo_math, "policy_losses", poisoned)
    folder = ppo_run(tmp_path / "run", tiny_model)
    with pytest.raises(RecipeError, match=r"policy_loss is not finite at step \d+.*learning_rate"):
        run_here(folder)
    assert 0 < len(checkpoints_of(folder)) < 4
    assert not (folder / "output").exists()


def test_a_full_disk_leaves_the_last_checkpoint_good(tiny_model, tmp_path, monkeypatch):
    from training.recipes import ppo

    save = ppo.save_file

    def fails_in_the_second_checkpoint(tensors, file):
        if file.parent.name == "checkpoint-2" and file.name == "optimizers.safetensors":
            file.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(file))
        save(tensors, file)

    monkeypatch.setattr(ppo, "save_file", fails_in_the_second_checkpoint)
    folder = ppo_run(tmp_path / "run", tiny_model)
    with pytest.raises(OSError) as failure:
        run_here(folder)
    assert "The disk holding run is full" in explain(failure.value, folder)
    assert [checkpoint.name for checkpoint in checkpoints_of(folder)] == ["step-1"]
    assert open_run(folder, "ppo").latest_checkpoint()[0] == 1


def test_prompts_that_leave_no_room_are_named(tiny_model, tmp_path):
    with pytest.raises(RecipeError, match=r"20 prompts have more than 2 tokens.*one is prompt"):
        run_here(ppo_run(tmp_path / "run", tiny_model, options={"max_length": 8}))


def test_a_checkpoint_of_other_options_is_not_gone_on_from(finished, tiny_model, tmp_path):
    folder = ppo_run(tmp_path / "run", tiny_model, options={"gamma": 0.5})
    shutil.copytree(finished[0] / "checkpoints" / "step-3", folder / "checkpoints" / "step-3")
    with pytest.raises(RecipeError, match="step-3 was trained with another gamma"):
        run_here(folder)


def test_out_of_memory_a_run_goes_on_from_its_checkpoint_in_smaller_parts(finished, tiny_model, tmp_path):
    halved = ppo_run(tmp_path / "run", tiny_model, options={"micro_batch_size": 4})
    shutil.copytree(finished[0] / "checkpoints" / "step-3", halved / "checkpoints" / "step-3")
    again = run_here(halved)
    assert (again["resumed_from"], again["steps"]) == (3, 4)
    assert again["last_reward"] == pytest.approx(finished[1]["last_reward"], abs=0.05)


def test_the_output_names_no_path_of_this_machine(finished, tiny_model):
    output = finished[0] / "output"
    for file in ("adapter_config.json", "recipe.json"):
        assert str(tiny_model.parent) not in (output / file).read_text()
    assert json.loads((output / "recipe.json").read_text())["method"] == "ppo"
