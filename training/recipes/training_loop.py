"""What the recipes share around a TRL trainer: checkpoints, metrics, interruption, evaluation, saving.

The trainer trains; this module writes down what it does in the terms of `run_dir.py`.
"""

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback

from training.recipes import processes
from training.recipes.fingerprints import fingerprints
from training.recipes.loading import compute_dtype, dtype_of, has_gpu
from training.recipes.model_folders import read_json
from training.recipes.run_dir import UNFINISHED, Interrupted, RecipeError, RunDir, write_json
from training.recipes.training_options import TrainingOptions, share_of_step

# Names under which the trainers' numbers go to metrics.jsonl. Others they log are left out.
METRIC_NAMES = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "accuracy": "accuracy",
    "margin": "margin",
    "mean_reward": "mean_score",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
    "logps/chosen": "chosen_log_prob",
    "logps/rejected": "rejected_log_prob",
    "entropy": "entropy",
    "mean_token_accuracy": "token_accuracy",
    "reward": "reward",
    "reward_std": "reward_spread",
    "groups_without_spread": "groups_without_spread",
    "kl": "kl",
    "completions/mean_length": "length",
    "finished_share": "finished_share",
    "repetition": "repetition",
    "clip_ratio/region_mean": "clipped_share",
}
SHOWN = (  # in the log, one line per step
    "loss",
    "accuracy",
    "margin",
    "reward",
    "kl",
    "length",
    "grad_norm",
    "learning_rate",
)
Evaluate = Callable[[], dict[str, Any]]


def trainer_settings(run: RunDir, options: TrainingOptions) -> dict[str, Any]:
    """The arguments of TRL's *Config that are the same for every recipe.

    Several processes divide each step among them: the rows of a step, and so the result, are the same.
    """
    updates = updates_per_step(options)
    together, parts = rows_together(options)
    return {
        "output_dir": str(run.path / UNFINISHED),
        "max_steps": options.steps * updates,
        "per_device_train_batch_size": together,
        "gradient_accumulation_steps": parts,
        "train_sampling_strategy": "sequential",  # the recipe has decided the order
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": options.schedule,
        "warmup_steps": options.warmup_steps * updates,
        "max_grad_norm": options.max_grad_norm,
        "weight_decay": 0.0,
        "seed": run.config["seed"],
        "bf16": compute_dtype() == torch.bfloat16,
        "use_cpu": not has_gpu(),
        "activation_checkpointing": has_gpu(),  # trades time for memory, which a CPU has
        "dataloader_pin_memory": has_gpu(),
        "logging_steps": updates,
        "logging_nan_inf_filter": False,  # else a loss that is not finite is shown as the mean of the others
        "save_strategy": "steps",
        "save_steps": options.save_steps * updates,
        "report_to": "none",
        "disable_tqdm": True,
    }


def rows_together(options: TrainingOptions) -> tuple[int, int]:
    """How many rows of a step are computed together, and in how many parts each of the processes that run now computes
    its share. Raises RecipeError when they can't divide a step into equal shares.
    """
    return share_of_step(options.batch_size, options.micro_batch_size, processes.COUNT)


def updates_per_step(options: TrainingOptions) -> int:
    """How many updates the trainer makes in one of our steps. It counts updates, RUN_DIR counts steps.

    More than one when the completions of a step are learnt from several times: what lies between two steps is never
    saved, so no checkpoint needs completions that only the trainer remembers.
    """
    return getattr(options, "epochs", 1)


class RunCallback(TrainerCallback):
    """Reports a trainer's steps to RUN_DIR, publishes its checkpoints and stops it on SIGTERM."""

    def __init__(self, run: RunDir, options: TrainingOptions, evaluate: Evaluate) -> None:
        self.run, self.options, self.evaluate = run, options, evaluate
        self.updates = updates_per_step(options)

    def on_train_begin(self, args, state, control, **kwargs):
        if self._is_due(state):
            self._evaluate(state)
        self.run.report_progress(state.global_step // self.updates, self.options.steps, "training")

    def on_log(self, args, state, control, logs, **kwargs):
        step = state.global_step // self.updates
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise RecipeError(
                    f"{name} became {logs[name]} at step {step}. Duplicate the run with a learning_rate "
                    f"below {self.options.learning_rate:g}, or look for broken texts in the data."
                )
        named = {METRIC_NAMES[k]: v for k, v in logs.items() if k in METRIC_NAMES and v is not None}
        if (
            "kl" in named and "length" in named
        ):  # of sampled completions: theirs is per token, ours per completion
            named["kl"] *= named["length"]
        self.run.log_metrics(step, named)
        if "loss" in named:
            shown = "  ".join(f"{name} {named[name]:.4g}" for name in SHOWN if name in named)
            print(f"step {step} of {self.options.steps}  {shown}", flush=True)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.updates:
            return
        self.run.report_progress(state.global_step // self.updates, self.options.steps, "training")
        if self.run.is_interrupted():
            control.should_save = control.should_training_stop = True
        elif self._is_due(state):
            try:
                self._evaluate(state)
            except Interrupted:
                control.should_save = control.should_training_stop = True

    def on_save(self, args, state, control, **kwargs):
        written = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self.run.publish_checkpoint(state.global_step // self.updates, written)

    def _is_due(self, state) -> bool:
        done = [entry["step"] // self.updates for entry in state.log_history if "held_out" in entry]
        return evaluation_is_due(state.global_step // self.updates, self.options, done)

    def _evaluate(self, state) -> None:
        step = state.global_step // self.updates
        found = evaluate_held_out(self.run, step, self.options.steps, self.evaluate)
        # The history travels with every checkpoint, so a resumed run still knows how it started.
        state.log_history.append({"step": state.global_step, "held_out": found})


def evaluation_is_due(step: int, options: TrainingOptions, done: Sequence[int]) -> bool:
    """Whether held-out rows are to be evaluated before the next step, `done` being the steps after which they were.

    The last evaluation comes after the last step's checkpoint, for every run.
    """
    between = step == 0 or bool(options.eval_steps and step % options.eval_steps == 0)
    return between and step < options.steps and step not in done


def evaluate_held_out(run: RunDir, step: int, steps: int, evaluate: Evaluate) -> dict[str, Any]:
    """Run `evaluate` outside the clock of the loop and write its numbers to metrics.jsonl as held_out/<name>.

    What it sampled goes to samples.jsonl, and is not returned. Raises Interrupted with nothing written.
    """
    run.report_progress(step, steps, "evaluating")
    with run.clock.phase("evaluating"), run.stopping_at_once():
        found = evaluate()
    numbers = {f"held_out/{name}": value for name, value in found.items() if isinstance(value, int | float)}
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise RecipeError(
                f"{name} became {value} at step {step}. Launch the run again with a lower learning_rate, "
                "or look for broken texts in the held-out data."
            )
    if found.get("interval"):
        figure = next(name for name in ("accuracy", "win_rate", "loss") if name in found)
        numbers[f"held_out/{figure}_low"], numbers[f"held_out/{figure}_high"] = found["interval"]
    if "judged" in found:  # a second figure, by a reward model
        numbers["held_out/win_rate"] = found["judged"]["win_rate"]
        numbers["held_out/win_rate_low"], numbers["held_out/win_rate_high"] = found["judged"]["interval"]
    run.log_metrics(step, numbers)
    run.keep_samples(step, found.pop("samples", []))
    return found


def time_saving(trainer: Trainer, run: RunDir) -> None:
    """Charge the trainer's own writing of checkpoints to the phase `saving` instead of the loop."""
    save = trainer._save_checkpoint

    def save_checkpoint(*args: Any, **kwargs: Any) -> None:
        with run.clock.phase("saving"):
            save(*args, **kwargs)

    trainer._save_checkpoint = save_checkpoint


def train(trainer: Trainer, run: RunDir, options: TrainingOptions, evaluate: Evaluate) -> dict[str, Any]:
    """Train from the last good checkpoint or from the start, evaluate, and return the metrics of result.json.

    Raises Interrupted after SIGTERM (a checkpoint is saved), RecipeError when nothing was learnt.
    """
    if not any(parameter.requires_grad for parameter in trainer.model.parameters()):
        raise RecipeError(
            "Nothing is trainable: the adapter has no layer in this model. Choose another base model."
        )
    # Of a whole model; asked first, for it may refuse.
    saved_as = dtype_of(Path(run.config["base"])) if options.weights == "full" else None
    untrained = digest_of_learnt(trainer.model)
    if run.is_first:
        shutil.rmtree(trainer.args.output_dir, ignore_errors=True)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(RunCallback(run, options, evaluate))
    time_saving(trainer, run)
    # The trainer keeps optimizer.pt, scheduler.pt and rng_state.pth, which are pickles. They are our own: written by
    # this run, checked against the manifest just before they are read, and read by transformers with weights_only; what
    # it writes as training_args.bin is never read. They never leave RUN_DIR: an output has none, and no upload with one
    # is taken in.
    checkpoint = run.latest_checkpoint()
    if checkpoint is not None:
        print(f"resuming from step {checkpoint[0]}", flush=True)
    with run.clock.phase("loop"):
        trainer.train(resume_from_checkpoint=str(checkpoint[1]) if checkpoint else None)
    if run.is_first:
        shutil.rmtree(trainer.args.output_dir, ignore_errors=True)
    steps = trainer.state.global_step // updates_per_step(options)
    if steps < options.steps:
        run.stop_if_interrupted()
    if digest_of_learnt(trainer.model) == untrained:
        raise RecipeError("The weights are unchanged after training. Raise learning_rate or steps.")
    if saved_as is not None:
        round_weights(trainer.model, saved_as)  # so that what is measured is what is saved
    final = evaluate_held_out(run, options.steps, options.steps, evaluate)
    history = trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    return {
        **final,
        "at_start": next((entry["held_out"] for entry in history if "held_out" in entry), None),
        "first_loss": losses[0],
        "last_loss": sum(losses[-5:]) / len(losses[-5:]),
        "steps": steps,
        "resumed_from": checkpoint[0] if checkpoint else None,
    }


def learnt_weights(model: PeftModel | PreTrainedModel) -> dict[str, Tensor]:
    """What training changes, by name: the active adapter, or all weights of a model that wears none."""
    if isinstance(model, PeftModel):
        return get_peft_model_state_dict(model, adapter_name=model.active_adapter)
    return model.state_dict()


def digest_of_learnt(model: PeftModel | PreTrainedModel) -> str:
    """sha256 over `learnt_weights`, in float32."""
    digest = hashlib.sha256()
    for name, weights in sorted(learnt_weights(model).items()):
        digest.update(name.encode() + whole(weights).float().numpy().tobytes())
    return digest.hexdigest()


def whole(weights: Tensor) -> Tensor:
    """Weights on the CPU, all of them, where FSDP2 has given each process a piece: then every process must ask."""
    pieces = weights.detach()
    return (pieces.full_tensor() if hasattr(pieces, "full_tensor") else pieces).cpu().contiguous()


@torch.no_grad()
def round_weights(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Round all weights to what `dtype` can hold; they stay in their own."""
    for weights in model.parameters():
        weights.copy_(weights.to(dtype))


def save_trained(trainer: Trainer, run: RunDir, facts: dict[str, Any]) -> Path:
    """Write output/: an adapter as `save_adapter` does, or a whole model, when all its weights have learnt.

    A whole model is written as `merge` writes one, with its tokenizer and in the number format of the base's own
    weights, and recipe.json beside.
    """
    model, base = trainer.model, Path(run.config["base"])
    if isinstance(model, PeftModel):
        return save_adapter(model, run, facts)

    def write(folder: Path, weights: dict[str, Tensor]) -> None:
        # The trainer has switched off the cache that sampling is quick by.
        model.config.use_cache = read_json(base / "config.json").get("use_cache", True)
        model.save_pretrained(folder, state_dict=weights)
        trainer.processing_class.save_pretrained(folder)

    return _save(model.to(dtype_of(base)), run, facts, write)


def save_adapter(model: PeftModel, run: RunDir, facts: dict[str, Any]) -> Path:
    """Write output/: adapter_model.safetensors, adapter_config.json and recipe.json. Appears at once.

    recipe.json holds `facts` and the digests of tokenizer and chat template.

    Nothing in it depends on the machine: paths are scrubbed and sets are sorted, so that a reproduced run
    gives files of equal digest.
    """

    def write(folder: Path, weights: dict[str, Tensor]) -> None:
        save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        write_json(folder / "adapter_config.json", portable_config(model))

    return _save(model, run, facts, write)


def _save(
    model: PeftModel | PreTrainedModel,
    run: RunDir,
    facts: dict[str, Any],
    write: Callable[[Path, dict[str, Tensor]], None],
) -> Path:
    """Have what was learnt written into output/ by the first process, with recipe.json. Appears at once.

    Raises RecipeError when something of it is not finite.
    """
    unfinished, output = run.path / UNFINISHED / "output", run.path / "output"
    with run.clock.phase("saving"):
        weights = {name: whole(tensor) for name, tensor in learnt_weights(model).items()}
        broken = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
        if broken:
            raise RecipeError(
                f"{len(broken)} tensors of what was trained are not finite, so it is not published; one is "
                f"{broken[0]}. Launch the run again with a lower learning_rate."
            )
        if run.is_first:
            shutil.rmtree(unfinished.parent, ignore_errors=True)
            shutil.rmtree(output, ignore_errors=True)
            unfinished.mkdir(parents=True)
            write(unfinished, weights)
            write_json(unfinished / "recipe.json", {**facts, **fingerprints(Path(run.config["base"]))})
            os.rename(unfinished, output)
            unfinished.parent.rmdir()
        processes.wait_for_all()
    return output


def portable_config(model: PeftModel) -> dict[str, Any]:
    """adapter_config.json without paths of this machine."""
    config = model.peft_config[model.active_adapter].to_dict()
    config.update(base_model_name_or_path=None, revision=None, inference_mode=True, auto_mapping=None)
    return {key: sorted(value) if isinstance(value, set) else value for key, value in sorted(config.items())}
