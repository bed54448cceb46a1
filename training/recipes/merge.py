"""Merge a LoRA adapter into its base model: whole weights that need neither peft nor the base beside them.

    python -m training.recipes.merge RUN_DIR

config.json names `base` and `adapter`; output/ becomes a model folder with tokenizer and chat template, in the number
format of the base's own weights. It is summed up in float32 and rounded once. Before it is given out it is read
back and asked what base and adapter together were asked: its answers may differ by rounding, and by nothing else. Where
rounding would move them by more than it should, as it does those of reward models, the weights stay in float32.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, TaskType
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from training.recipes import loading
from training.recipes.rendering import conversation_ids
from training.recipes.run_dir import UNFINISHED, RecipeError, RunDir, run
from training.recipes.scoring import PROBES

MODELS: dict[str, Any] = {"CAUSAL_LM": AutoModelForCausalLM, "SEQ_CLS": AutoModelForSequenceClassification}
# How far answers may move, as a share of their own spread. In float32 they differ by the order of sums alone.
WITHIN = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.01}


def main(run: RunDir) -> dict[str, Any]:
    loading.be_quiet()
    loading.use_threads(run.config["threads"])
    base, adapter = Path(run.config["base"]), Path(run.config["adapter"])
    run.report_progress(0, 3, "loading")
    tokenizer = loading.load_tokenizer(base)
    task = task_of(adapter)
    together = open_both(base, adapter, task, tokenizer)
    before = answers(together, tokenizer)
    without = answers_without(together, tokenizer) if task == TaskType.CAUSAL_LM else None

    unfinished, output = run.path / UNFINISHED / "output", run.path / "output"
    shutil.rmtree(output, ignore_errors=True)
    for dtype in dict.fromkeys((loading.dtype_of(base), torch.float32)):
        run.report_progress(1, 3, "merging")
        shutil.rmtree(unfinished.parent, ignore_errors=True)
        unfinished.mkdir(parents=True)
        together = together or open_both(base, adapter, task, tokenizer)
        merged = together.merge_and_unload().to(dtype)
        merged.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        together = merged = None  # room for what is read back

        run.report_progress(2, 3, "reading back")
        moved = distance(before, answers(open_whole(unfinished, task, tokenizer), tokenizer))
        if moved <= WITHIN[dtype]:
            break
    else:
        raise RuntimeError(f"the merged model answers otherwise: by {moved:.3g} of the spread of its answers")
    os.rename(unfinished, output)
    unfinished.parent.rmdir()
    run.report_progress(3, 3, "saving")
    return {
        "moved": moved,
        "adapter_moves": None if without is None else distance(before, without),
        "probe_tokens": sum(len(conversation_ids(tokenizer, probe)) for probe in PROBES),
        "dtype": str(dtype).removeprefix("torch."),
    }


def task_of(adapter: Path) -> TaskType:
    """Whether the adapter is a policy's or a reward model's. Raises RecipeError when it is neither."""
    config = loading.check_folder(adapter, "adapter_config.json")
    if config.get("task_type") not in MODELS:
        raise RecipeError(
            f"{adapter} is an adapter for {config.get('task_type')}: neither a policy nor a reward model."
        )
    task = TaskType(config["task_type"])
    loading.check_adapter(adapter, task)
    return task


def open_whole(folder: Path, task: TaskType, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model in float32, on the processor: memory is cheaper there, and sums are exact enough."""
    loading.check_folder(folder, "config.json")
    head = {"num_labels": 1} if task == TaskType.SEQ_CLS else {}
    model = MODELS[task.value].from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, **head, **loading.FROM_FOLDER
    )
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model.eval()


def open_both(base: Path, adapter: Path, task: TaskType, tokenizer: PreTrainedTokenizerBase) -> PeftModel:
    try:
        return PeftModel.from_pretrained(open_whole(base, task, tokenizer), adapter).eval()
    except RuntimeError as error:
        raise RecipeError(f"The adapter {adapter} does not fit the base model {base}: {error}") from error


@torch.no_grad()
def answers(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """What the model says to the probes, one after the other: logits of each token, or one score each. (answers,)"""
    found = []
    for probe in PROBES:
        ids = torch.tensor([conversation_ids(tokenizer, probe)])  # (1, seq)
        found.append(model(input_ids=ids, use_cache=False).logits.flatten())
    return torch.cat(found)


def answers_without(model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    with model.disable_adapter():
        return answers(model, tokenizer)


def distance(before: Tensor, after: Tensor) -> float:
    """Root mean square of how far answers moved, as a share of how much the first ones spread.

    Not the farthest: of eight million logits of a policy one moved by a tenth where all together moved by a hundredth.
    """
    spread = float(before.std())
    return float((before - after).square().mean().sqrt()) / (spread or 1.0)


if __name__ == "__main__":
    run("merge", main)
