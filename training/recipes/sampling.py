"""Make completions: every contestant answers every prompt, several times, in batches of like length.

    python -m training.recipes.sampling RUN_DIR

Plain `generate` of transformers, in bfloat16 where the machine has it, on left-padded batches. The base model
is loaded once; adapters are put on and taken off. Which row is in which batch, and each batch's seed, is a
pure function of the configuration (`plan_batches`): a resumed run skips the batches it finds whole in
completions.jsonl and makes the others again, to the same texts.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, TaskType
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from training.recipes import loading
from training.recipes.beginnings import read_once
from training.recipes.lora_layers import for_sampling
from training.recipes.model_folders import context_window
from training.recipes.options import DecodingOptions, parse_options
from training.recipes.rendering import prompt_ids, with_system_prompt
from training.recipes.run_dir import RecipeError, RunDir, run

BLOCK = 256  # tokens whose probabilities are summed together


@dataclass(frozen=True)
class Batch:
    """Rows made side by side: `rows` are (prompt id, sample number), seeded together by `seed`."""

    contestant: str
    number: int
    seed: int
    rows: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Contestant:
    """A source of completions: the base model, or an adapter on it, under a system prompt and a decoding."""

    id: str
    adapter: Path | None
    system_prompt: str
    decoding: DecodingOptions


def plan_batches(
    contestant: str, lengths: dict[str, int], samples: int, batch_size: int, seed: int
) -> list[Batch]:
    """The batches of one contestant. `lengths` maps prompt ids to prompt tokens; the longest prompts come
    first, so that a batch too large for the memory fails at once, and rows of like length waste little
    padding.
    """
    by_length = sorted(lengths, key=lambda prompt: (-lengths[prompt], prompt))
    rows = [(prompt, sample) for prompt in by_length for sample in range(samples)]
    return [
        Batch(
            contestant,
            number,
            derived_seed(seed, contestant, number),
            tuple(rows[start : start + batch_size]),
        )
        for number, start in enumerate(range(0, len(rows), batch_size))
    ]


def derived_seed(seed: int, purpose: str, number: int) -> int:
    """A seed of 31 bits for one purpose of a run, such as a batch, that no other shares, but by chance."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def main(run: RunDir) -> dict[str, Any]:
    options = parse_options("sampling", run.config.get("options", {}))
    loading.be_quiet()
    loading.use_threads(run.config["threads"])
    contestants, prompts, samples = read_request(run.config)
    base = Path(run.config["base"])
    run.report_progress(0, 1, "loading")
    tokenizer = loading.load_tokenizer(base)

    # Plan: prompts rendered per contestant, since each has its own system prompt.
    rendered: dict[tuple[str, str], list[int]] = {}
    plan: list[Batch] = []
    for contestant in contestants:
        for prompt, messages in prompts.items():
            messages = with_system_prompt(messages, contestant.system_prompt)
            rendered[contestant.id, prompt] = prompt_ids(tokenizer, messages)
        lengths = {prompt: len(rendered[contestant.id, prompt]) for prompt in prompts}
        plan += plan_batches(contestant.id, lengths, samples, options.batch_size, run.config["seed"])
    check_room(loading.check_folder(base, "config.json"), contestants, rendered)
    completions = run.path / "completions.jsonl"
    kept = keep_whole_batches(completions, plan)
    waiting = [batch for batch in plan if (batch.contestant, batch.number) not in kept]

    # Make: contestants without an adapter first, while the model is still free of LoRA layers.
    model = loading.load_policy(base, tokenizer).eval()
    made = tokens = finished = 0
    started = time.monotonic()
    with run.clock.phase("loop"), completions.open("a", encoding="utf-8") as file:
        for contestant in sorted(contestants, key=lambda c: c.adapter is not None):
            batches = [batch for batch in waiting if batch.contestant == contestant.id]
            if not batches:
                continue
            if contestant.adapter is not None:
                model = put_on_adapter(model, contestant.adapter, contestant.id)
            with for_sampling(model):
                for batch in batches:
                    run.stop_if_interrupted()
                    run.report_progress(len(kept) + made, len(plan), "sampling")
                    inputs = [rendered[contestant.id, prompt] for prompt, _ in batch.rows]
                    outputs = generate(model, tokenizer, inputs, contestant.decoding, batch.seed)
                    for (prompt, sample), output in zip(batch.rows, outputs, strict=True):
                        line = {"prompt": prompt, "contestant": contestant.id, "sample": sample, **output}
                        file.write(json.dumps(line | {"batch": batch.number, "seed": batch.seed}) + "\n")
                        tokens += output["tokens"]
                        finished += output["finished"]
                    file.flush()
                    made += 1
                    run.log_metrics(
                        len(kept) + made, {"tokens_per_second": tokens / (time.monotonic() - started)}
                    )
    seconds = time.monotonic() - started
    run.report_progress(len(plan), len(plan), "sampling")
    rows = sum(len(batch.rows) for batch in waiting)
    return {
        "completions": sum(len(batch.rows) for batch in plan),
        "made": rows,
        "resumed_batches": len(kept),
        "tokens": tokens,
        "tokens_per_second": tokens / seconds if seconds else 0.0,
        "finished_share": finished / rows if rows else None,
    }


def read_request(config: dict[str, Any]) -> tuple[list[Contestant], dict[str, list[dict[str, str]]], int]:
    """Contestants, prompts by id and samples per prompt. Raises RecipeError naming what is wrong."""
    try:
        contestants = [
            Contestant(
                id=str(given["id"]),
                adapter=Path(given["adapter"]) if given.get("adapter") else None,
                system_prompt=given.get("system_prompt") or "",
                decoding=parse_options("decoding", given.get("decoding", {})),
            )
            for given in config["contestants"]
        ]
        prompts = {str(given["id"]): given["messages"] for given in config["prompts"]}
        samples = config["samples"]
    except (KeyError, TypeError) as error:
        raise RecipeError(
            f"config.json lacks what sampling needs: {error!r}. See run_dir.py for its form."
        ) from None
    if not contestants or not prompts or not isinstance(samples, int) or samples < 1:
        raise RecipeError("Sampling needs at least one contestant, one prompt and one sample per prompt.")
    if len({c.id for c in contestants}) < len(contestants) or len(prompts) < len(config["prompts"]):
        raise RecipeError("Two contestants or two prompts share an id. Give each its own.")
    return contestants, prompts, samples


def check_room(
    model_config: dict[str, Any],
    contestants: Sequence[Contestant],
    rendered: dict[tuple[str, str], list[int]],
) -> None:
    """Refuse a prompt that leaves the model no room for max_new_tokens; it would be cut without a word."""
    window = context_window(model_config)
    for contestant in contestants if window else ():
        for (who, prompt), ids in rendered.items():
            if who == contestant.id and len(ids) + contestant.decoding.max_new_tokens > window:
                raise RecipeError(
                    f"Prompt {prompt} has {len(ids)} tokens; with max_new_tokens = "
                    f"{contestant.decoding.max_new_tokens} that exceeds the model's {window}. "
                    "Shorten the prompt or lower max_new_tokens."
                )


def keep_whole_batches(completions: Path, plan: Sequence[Batch]) -> set[tuple[str, int]]:
    """Reduce completions.jsonl to the batches of `plan` that are wholly in it, and return their names.

    Lines that are torn, or from another plan, go; so does a batch of which a row is missing.
    """
    if not completions.exists():
        return set()
    wanted = {(b.contestant, b.number, b.seed, *row): b for b in plan for row in b.rows}
    lines: dict[tuple[Any, ...], str] = {}
    for line in completions.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
            key = (row["contestant"], row["batch"], row["seed"], row["prompt"], row["sample"])
        except (ValueError, KeyError, TypeError):
            continue
        if key in wanted:
            lines[key] = line
    whole = [b for b in plan if all((b.contestant, b.number, b.seed, *row) in lines for row in b.rows)]
    unfinished = completions.with_suffix(".unfinished")
    kept = [lines[b.contestant, b.number, b.seed, *row] for b in whole for row in b.rows]
    unfinished.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(unfinished, completions)
    return {(b.contestant, b.number) for b in whole}


def put_on_adapter(model: PreTrainedModel | PeftModel, adapter: Path, contestant: str) -> PeftModel:
    """`model` answering through `adapter`; the adapter it wore before is dropped, the base stays in memory."""
    loading.check_adapter(adapter, TaskType.CAUSAL_LM)
    name = "worn_" + hashlib.sha256(contestant.encode()).hexdigest()[:12]  # peft forbids dots in names
    how = {
        "is_trainable": False,
        "autocast_adapter_dtype": False,
    }  # LoRA in the dtype of the base, as autocast trained it
    try:
        if not isinstance(model, PeftModel):
            return PeftModel.from_pretrained(model, adapter, adapter_name=name, **how).eval()
        before = model.active_adapter
        model.load_adapter(adapter, adapter_name=name, **how)
        model.set_adapter(name)
        model.delete_adapter(before)
    except (RuntimeError, ValueError) as error:
        raise RecipeError(f"The adapter {adapter} does not fit the base model: {error}") from error
    return model.eval()


def generate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    inputs: Sequence[list[int]],
    decoding: DecodingOptions,
    seed: int,
) -> list[dict[str, Any]]:
    """{"text", "tokens", "finished"} per row. Tokens count up to and including end-of-sequence."""
    ends = end_tokens(model, tokenizer)
    seeds = [derived_seed(seed, "row", number) for number in range(len(inputs))]
    return [
        {"text": text_of(tokenizer, row), "tokens": len(row), "finished": row[-1] in ends}
        for row in generate_ids(model, tokenizer, inputs, decoding, seeds)
    ]


@torch.no_grad()
def generate_ids(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    inputs: Sequence[list[int]],
    decoding: DecodingOptions,
    seeds: Sequence[int],
) -> list[list[int]]:
    """The tokens of one completion per row of `inputs`, up to and including end-of-sequence where it came.

    What a row is given depends on its own seed, not on the rows beside it, but for how sums are rounded.
    """
    padded = tokenizer.pad({"input_ids": list(inputs)}, padding_side="left", return_tensors="pt").to(
        model.device
    )
    ends = end_tokens(model, tokenizer)
    rows = model.generate(
        input_ids=padded["input_ids"],  # (batch, prompt)
        attention_mask=padded["attention_mask"],
        past_key_values=read_once(
            loading.without_adapter(model).base_model, padded["input_ids"], padded["attention_mask"]
        ),
        logits_processor=drawing(decoding, seeds),
        generation_config=GenerationConfig(
            do_sample=False,  # the processors have drawn already
            max_new_tokens=decoding.max_new_tokens,
            eos_token_id=sorted(ends),
            pad_token_id=tokenizer.pad_token_id,
        ),
    )[:, padded["input_ids"].shape[1] :].tolist()  # (batch, new)
    found = []
    for row in rows:
        end = next((i for i, token in enumerate(row) if token in ends), None)
        found.append(row if end is None else row[: end + 1])
    return found


def drawing(decoding: DecodingOptions, seeds: Sequence[int]) -> LogitsProcessorList:
    """What makes of logits the choice of a token: none at temperature 0, where the likeliest is taken."""
    if not decoding.temperature:
        return LogitsProcessorList()
    warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(decoding.temperature)]
    if decoding.top_k:
        warpers.append(TopKLogitsWarper(decoding.top_k))
    if decoding.top_p < 1:
        warpers.append(TopPLogitsWarper(decoding.top_p))
    return LogitsProcessorList([*warpers, Draw(seeds, decoding.max_new_tokens)])


class Draw(LogitsProcessor):
    """Draws one token a row by its probability and leaves only that one.

    It takes one random number a row. `torch.multinomial` takes one for each token of the vocabulary, which was a
    quarter of the time that sampling takes on a CPU. Running sums are of blocks of tokens, then of the tokens of the
    one that was drawn: over the whole vocabulary they were a tenth.
    """

    def __init__(self, seeds: Sequence[int], tokens: int) -> None:
        """At most so many `tokens` are drawn for each row."""
        of_rows = [
            torch.rand(tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        self.numbers = iter(
            torch.stack(of_rows, dim=1)[..., None]
        )  # at each token (batch, 1), from 0 up to 1

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        likely = scores.softmax(dim=-1, dtype=torch.float32)
        padded = torch.nn.functional.pad(likely, (0, -likely.shape[1] % BLOCK))
        blocks = padded.unflatten(1, (-1, BLOCK))  # (batch, blocks, BLOCK)
        upto = blocks.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)  # (batch, blocks)
        drawn = next(self.numbers).to(scores.device) * upto[:, -1:]
        block = _first_beyond(upto, drawn)
        within = blocks.take_along_dim(block[..., None], dim=1)[:, 0].cumsum(dim=-1, dtype=torch.float64)
        before = torch.nn.functional.pad(upto, (1, 0)).gather(1, block)  # at most `drawn`
        token = block * BLOCK + _first_beyond(within, drawn - before)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)


def _first_beyond(upto: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Of each row the first place whose running sum `upto` exceeds `drawn`, (batch, 1): never one that adds nothing."""
    # Rounding may have brought `drawn` up to the sum.
    last = torch.nextafter(upto[:, -1:], torch.zeros_like(drawn))
    return torch.searchsorted(upto, torch.minimum(drawn, last), right=True)


def text_of(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The text of a completion. A model of bytes can write NUL, which no database takes as text: it is left out."""
    return tokenizer.decode(ids, skip_special_tokens=True).replace("\0", "").strip()


def end_tokens(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Every token that ends a completion: the tokenizer's and those the model's own configuration names."""
    named = model.generation_config.eos_token_id
    return {
        tokenizer.eos_token_id,
        *(named if isinstance(named, list) else [named] if named is not None else []),
    }


if __name__ == "__main__":
    run("sampling", main)
