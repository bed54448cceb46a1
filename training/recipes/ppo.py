"""Train a policy by proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) against a reward.

    python -m training.recipes.ppo RUN_DIR

As in Ziegler et al. 2019 (1909.08593), Stiennon et al. 2020 (2009.01325) and Ouyang et al. 2022 (2203.02155), with the
details of Huang et al. 2024 (2403.17031). A step samples completions, rewards each, takes off a KL penalty per
token, estimates advantages with a value model, and makes a few clipped updates. Departures from those papers: one
frozen base with LoRA adapters for policy, value and reward (`shared_base.py`); the value model starts fresh with
values of 0, learns alone for a few steps and has a learning rate of its own; learned rewards are centred and scaled
by what the reward model gave its own held-out completions; advantages are whitened, rewards are not; a completion that
was cut is scored as it stands, less a penalty; training ends when the KL to the reference leaves its bounds.

Every random choice is a function of seed and step, so a checkpoint needs no state of random number generators: it holds
adapters, value head, optimizers, the KL coefficient and the history.
"""

import json
import math
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import set_seed

from training.recipes import loading, ppo_math, processes, rollouts, training_loop
from training.recipes.options import parse_options
from training.recipes.options_from_samples import PpoOptions, keeps_graphs
from training.recipes.prompts import prompt_order, read_prompts
from training.recipes.rollouts import Rollouts
from training.recipes.run_dir import UNFINISHED, Interrupted, RecipeError, RunDir, run, write_json
from training.recipes.sampling import derived_seed
from training.recipes.shared_base import POLICY, VALUE, Rows, SharedBase

ADAM = {"eps": 1e-5, "weight_decay": 0.0}  # eps: Huang et al. 2024
# What a run may be resumed with another value of: how far it goes, and what fits the memory.
CHANGEABLE = ("steps", "micro_batch_size", "save_steps", "eval_steps")


def main(run: RunDir) -> dict[str, Any]:
    options: PpoOptions = parse_options("ppo", run.config["options"])
    loading.be_quiet()
    loading.use_threads(run.config["threads"])
    base, parent = Path(run.config["base"]), run.config.get("parent")
    seed = run.config["seed"]
    run.report_progress(0, options.steps, "loading")

    prompts = read_prompts(run.path / run.config["data"]["train"])
    test = read_prompts(run.path / run.config["data"]["held_out"])
    tokenizer = loading.load_tokenizer(base)
    longest = rollouts.longest_row(prompts + test, tokenizer, options)
    order = prompt_order(len(prompts), options.steps * options.batch_size, seed)

    set_seed(seed)
    shared = SharedBase(
        base, tokenizer, Path(parent) if parent else None, options.lora_rank, options.lora_alpha
    )
    shared.temperature = options.temperature
    shared.model.get_base_model().set_attn_implementation(loading.attention_for(longest))
    shared.add_value(options.lora_rank, options.lora_alpha)
    reward = rollouts.open_reward(run.config, options, shared, base)
    held_out = rollouts.HeldOut(test, options, seed)
    learner = Learner(options, shared)
    untrained = training_loop.digest_of_learnt(shared.model)
    latest = run.latest_checkpoint()
    if latest is not None:
        learner.resume(latest[1])
        print(f"resuming from step {latest[0]}", flush=True)

    def evaluate() -> dict[str, Any]:
        return held_out.evaluate(shared, reward, at_start=learner.step == 0)

    with run.clock.phase("loop"):
        while learner.step < options.steps and not learner.stopped:
            step = learner.step
            if training_loop.evaluation_is_due(step, options, learner.evaluated):
                try:
                    found = training_loop.evaluate_held_out(run, step, options.steps, evaluate)
                except Interrupted:
                    if step:
                        save_checkpoint(run, learner)
                    raise
                learner.history.append({"step": step, "held_out": found})
            run.report_progress(step, options.steps, "sampling")
            chosen = [prompts[i] for i in order[step * options.batch_size : (step + 1) * options.batch_size]]
            made = rollouts.collect(
                shared, reward, chosen, options, derived_seed(seed, "rollout", step), keep=learner.keeps()
            )
            run.report_progress(step, options.steps, "training")
            measured = learner.learn(made, seed=derived_seed(seed, "update", step))
            log(run, learner, measured)
            is_last = learner.step == options.steps or bool(learner.stopped)
            interrupted = run.is_interrupted()
            if is_last or learner.step % options.save_steps == 0 or interrupted:
                save_checkpoint(run, learner)
            if not is_last:
                run.stop_if_interrupted()

    shared.wear(POLICY)
    if training_loop.digest_of_learnt(shared.model) == untrained:
        raise RecipeError("The adapter is unchanged after training. Raise learning_rate or steps.")
    final = training_loop.evaluate_held_out(run, learner.step, options.steps, evaluate)
    steps = [entry for entry in learner.history if "reward" in entry]
    metrics = {
        **final,
        "at_start": learner.history[0]["held_out"],
        "first_reward": steps[0]["reward"],
        "last_reward": sum(entry["reward"] for entry in steps[-5:]) / len(steps[-5:]),
        "steps": learner.step,
        "stopped": learner.stopped,
        "train_prompts": len(prompts),
        "resumed_from": latest[0] if latest else None,
    }
    run.report_progress(learner.step, options.steps, "saving")
    shared.wear(POLICY)
    facts = {"method": "ppo", "seed": seed, "options": run.config["options"]}
    training_loop.save_adapter(shared.model, run, facts)
    return metrics


@dataclass
class Learner:
    """Policy and value model with their optimizers: `learn` makes one step of PPO from rollouts."""

    options: PpoOptions
    shared: SharedBase
    step: int = 0
    kl_coefficient: float = field(init=False)
    stopped: str = ""  # why training ended before its last step
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def evaluated(self) -> list[int]:
        """The steps after which held-out prompts were evaluated."""
        return [entry["step"] for entry in self.history if "held_out" in entry]

    def __post_init__(self) -> None:
        self.kl_coefficient = self.options.kl_coefficient
        self.peaks = {POLICY: self.options.learning_rate, VALUE: self.options.value_learning_rate}
        self.weights = {adapter: self.shared.parameters_of(adapter) for adapter in self.peaks}
        self.optimizers = {
            adapter: torch.optim.AdamW(self.weights[adapter].values(), lr=peak, **ADAM)
            for adapter, peak in self.peaks.items()
        }

    def learning(self) -> tuple[str, ...]:
        """The adapters that learn in this step."""
        return (VALUE,) if self.step < self.options.value_warmup_steps else (POLICY, VALUE)

    def keeps(self) -> tuple[str, ...]:
        """Whose answers are asked with the gradients that they lead to, so that the first epoch need not ask again.

        They are the same as long as no weight has moved: in a step of one part, which several processes would divide.
        """
        options = self.options
        in_one_part = keeps_graphs(options.batch_size, options.micro_batch_size, options.mini_batches)
        return self.learning() if in_one_part and processes.COUNT == 1 else ()

    def learn(self, made: Rollouts, seed: int) -> dict[str, float]:
        """One step: advantages, then epochs of clipped updates. Returns what it measured.

        Raises RecipeError, before any weight has moved by it, when a loss or gradient is not finite.
        """
        options, mask = self.options, made.rows.mask
        log_ratio = made.log_probs - made.reference  # (batch, new)
        scores = made.rewards - options.missing_eos_penalty * (~made.finished).float()  # (batch,)
        rewards = ppo_math.token_rewards(scores, log_ratio, mask, self.kl_coefficient)
        advantages, returns = ppo_math.advantages_and_returns(
            rewards, made.values, mask, options.gamma, options.gae_lambda
        )
        kl = float((log_ratio * mask).sum(dim=1).mean())
        measured = {
            **made.describe(),
            "score": float(scores.mean()),
            "kl": kl,
            "kl_coefficient": self.kl_coefficient,
            "explained_variance": explained_variance(made.values, returns, mask),
        }
        if kl > options.kl_ceiling:
            self.stopped = f"the KL to the reference reached {kl:.1f} at step {self.step + 1}"
            made.kept.clear()  # their graphs are large, and prompts are evaluated next
            return self._end_step(measured)
        measured |= self._update(made, ppo_math.whiten(advantages, mask), returns, seed)
        self.kl_coefficient = ppo_math.adapted_kl_coefficient(
            self.kl_coefficient,
            kl,
            target=options.kl_target,
            horizon=options.kl_horizon,
            completions=len(made.rows),
        )
        return self._end_step(measured)

    def _end_step(self, measured: dict[str, float]) -> dict[str, float]:
        self.step += 1
        self.history.append({"step": self.step, **measured})
        return measured

    def _update(self, made: Rollouts, advantages: Tensor, returns: Tensor, seed: int) -> dict[str, float]:
        options = self.options
        shuffled = torch.Generator().manual_seed(seed)
        sums: dict[str, float] = {}
        updates = 0
        for _ in range(options.epochs):
            order = torch.randperm(len(made.rows), generator=shuffled).tolist()
            for mini_batch in rollouts.equal_parts(order, options.mini_batches):
                found: dict[str, float] = {}
                for adapter in self.learning():
                    with self.shared.for_learning():
                        found |= self._gradient(adapter, made, advantages, returns, mini_batch)
                    if found.get("policy_moved", 0.0) > options.kl_stop:
                        # It has moved too far already: this update is not made, nor any further one of the step.
                        return self._means(sums, updates, found)
                for adapter in self.learning():
                    found |= self._apply(adapter)
                updates += 1
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + value
        return self._means(sums, updates, {})

    def _means(self, sums: dict[str, float], updates: int, last: dict[str, float]) -> dict[str, float]:
        means = {name: value / updates for name, value in sums.items()} if updates else last
        return {**means, "updates": updates, "learning_rate": self._share_of_peak() * self.peaks[POLICY]}

    def _gradient(
        self, adapter: str, made: Rollouts, advantages: Tensor, returns: Tensor, mini_batch: list[int]
    ) -> dict[str, float]:
        """Leave the gradient of one adapter's loss over a mini-batch in its weights; what the loss was."""
        options = self.options
        tokens = float(
            made.rows.mask[mini_batch].sum()
        )  # so that the parts add up to the mean over the mini-batch
        self.optimizers[adapter].zero_grad()
        sums = (
            {"policy_loss": 0.0, "policy_moved": 0.0, "clipped_share": 0.0}
            if adapter == POLICY
            else {"value_loss": 0.0}
        )
        for part in processes.share_of(list(made.parts(mini_batch, options.micro_batch_size))):
            rows = made.rows.select(part)
            mask, width = rows.mask, rows.mask.shape[1]
            if adapter == POLICY:
                log_probs, old = self._asked(POLICY, made, rows), made.log_probs[part, :width]
                losses = ppo_math.policy_losses(log_probs, old, advantages[part, :width], options.clip_range)
                share = float(mask.sum()) / tokens
                sums["policy_moved"] += share * float(ppo_math.policy_moved(log_probs.detach(), old, mask))
                sums["clipped_share"] += share * float(
                    ppo_math.clipped_share(log_probs.detach(), old, mask, options.clip_range)
                )
            else:
                losses = ppo_math.value_losses(
                    self._asked(VALUE, made, rows),
                    made.values[part, :width],
                    returns[part, :width],
                    options.value_clip_range,
                )
            loss = (losses * mask).sum() / tokens
            loss.backward()
            sums[f"{adapter}_loss"] += float(loss.detach())
        sums = self._added_up(adapter, sums)
        if not math.isfinite(sums[f"{adapter}_loss"]):
            raise not_finite(f"{adapter}_loss", self.step, options.learning_rate)
        return sums

    def _asked(self, adapter: str, made: Rollouts, rows: Rows) -> Tensor:
        """What an adapter says about each token of the rows, with gradients: what was kept, the first time."""
        kept = made.kept.pop(adapter, None)
        if kept is None:
            return self.shared.policy(rows) if adapter == POLICY else self.shared.values(rows)
        self.shared.wear(adapter)  # what is not worn takes no gradient
        return kept

    def _added_up(self, adapter: str, sums: dict[str, float]) -> dict[str, float]:
        """Gradients and sums over all processes; each had some of the parts, or none."""
        if processes.COUNT == 1:
            return sums
        weights = list(self.weights[adapter].values())
        for weight in weights:
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        totals = torch.tensor(list(sums.values()), device=self.shared.device)
        processes.added_up([totals, *(weight.grad for weight in weights)])
        return dict(zip(sums, totals.tolist(), strict=True))

    def _apply(self, adapter: str) -> dict[str, float]:
        weights = [weight for weight in self.weights[adapter].values() if weight.grad is not None]
        norm = float(torch.nn.utils.clip_grad_norm_(weights, self.options.max_grad_norm or math.inf))
        if not math.isfinite(norm):
            raise not_finite(f"{adapter}_grad_norm", self.step, self.options.learning_rate)
        for group in self.optimizers[adapter].param_groups:
            group["lr"] = self._share_of_peak() * self.peaks[adapter]
        self.optimizers[adapter].step()
        return {"grad_norm" if adapter == POLICY else "value_grad_norm": norm}

    def _share_of_peak(self) -> float:
        """Learning rates of this step, as a share of their peaks: up over the warm-up, then as the schedule says."""
        options, step = self.options, self.step
        if step < options.warmup_steps:
            return (step + 1) / (options.warmup_steps + 1)
        passed = (step - options.warmup_steps) / max(1, options.steps - options.warmup_steps)
        if options.schedule == "linear":
            return 1 - passed
        return 0.5 * (1 + math.cos(math.pi * passed)) if options.schedule == "cosine" else 1.0

    # --- checkpoints ---

    def save(self, folder: Path) -> None:
        """Everything that training goes on from, without pickle."""
        save_file(
            {
                f"{adapter}/{name}": weight.detach().cpu().contiguous()
                for adapter, named in self.weights.items()
                for name, weight in named.items()
            },
            folder / "weights.safetensors",
        )
        save_file(
            {
                f"{adapter}/{name}/{key}": state.detach().cpu().contiguous()
                for adapter, named in self.weights.items()
                for name, weight in named.items()
                for key, state in self.optimizers[adapter].state.get(weight, {}).items()
            },
            folder / "optimizers.safetensors",
        )
        state = {"step": self.step, "kl_coefficient": self.kl_coefficient, "stopped": self.stopped}
        write_json(folder / "state.json", {**state, "options": asdict(self.options), "history": self.history})

    def resume(self, folder: Path) -> None:
        """Go on from what `save` wrote. Raises RecipeError when that was another training."""
        state = json.loads((folder / "state.json").read_text())
        for name, value in asdict(self.options).items():
            if name not in CHANGEABLE and state["options"].get(name) != value:
                raise RecipeError(
                    f"{folder.name} was trained with another {name}. Start a new run for this one, or set it back."
                )
        self.step, self.kl_coefficient = state["step"], state["kl_coefficient"]
        self.stopped, self.history = state["stopped"], state["history"]
        saved, moments = (
            load_file(folder / "weights.safetensors"),
            load_file(folder / "optimizers.safetensors"),
        )
        with torch.no_grad():
            for adapter, named in self.weights.items():
                for name, weight in named.items():
                    weight.copy_(saved[f"{adapter}/{name}"])
                    prefix = f"{adapter}/{name}/"
                    found = {
                        key[len(prefix) :]: value for key, value in moments.items() if key.startswith(prefix)
                    }
                    if found:
                        place = {
                            key: value if key == "step" else value.to(weight.device)
                            for key, value in found.items()
                        }
                        self.optimizers[adapter].state[weight] = place


def log(run: RunDir, learner: Learner, measured: dict[str, float]) -> None:
    run.log_metrics(learner.step, measured)
    run.report_progress(learner.step, learner.options.steps, "training")
    shown = ("reward", "kl", "kl_coefficient", "policy_loss", "value_loss", "length")
    text = "  ".join(f"{name} {measured[name]:.4g}" for name in shown if name in measured)
    print(f"step {learner.step} of {learner.options.steps}  {text}", flush=True)
    if learner.stopped:
        print(f"ends early: {learner.stopped}", flush=True)


def save_checkpoint(run: RunDir, learner: Learner) -> None:
    unfinished = run.path / UNFINISHED / f"checkpoint-{learner.step}"
    if run.is_first:
        with run.clock.phase("saving"):
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            learner.save(unfinished)
    run.publish_checkpoint(learner.step, unfinished)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 when values foretell returns, 0 when they know no more than their mean. (batch, new) each."""
    there = mask.bool()
    spread = returns[there].var(unbiased=False)
    return float(1 - (returns[there] - values[there]).var(unbiased=False) / spread) if spread > 0 else 0.0


def not_finite(name: str, step: int, rate: float) -> RecipeError:
    return RecipeError(
        f"{name} is not finite at step {step + 1}. Duplicate the run with a learning_rate below {rate:g}."
    )


if __name__ == "__main__":
    run("ppo", main)
