"""Look over a run before it is launched: what its data become, what is wrong with them, what the run will take.

    python -m training.recipes.preview RUN_DIR

Reads the config.json and data that the recipe itself would read ("of" names the method, "method" is preview) with the
base's tokenizer; no weights are loaded. The findings are the metrics of result.json: `problems` (which forbid the
launch), `notices`, `splits`, `cut_share`, `examples`, `leaked`, `fingerprints`, `estimates`. Raises RecipeError for
what can't be looked over.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from training.recipes import estimates, loading, model_folders
from training.recipes.answers import refuse_one_class
from training.recipes.estimates import Load, Machine
from training.recipes.findings import (
    CUT_WITHOUT_ASKING,
    Found,
    Learnt,
    Row,
    Side,
    describe_split,
    judge,
    leaked,
    problem,
    tell_problems,
)
from training.recipes.fingerprints import disagreement, fingerprints
from training.recipes.fitting import refuse_unfit, refuse_unshared
from training.recipes.judging import no_room
from training.recipes.loads import answered, load_of, order_of
from training.recipes.options import METHODS, parse_options
from training.recipes.pairs import are_messages
from training.recipes.rendering import (
    Message,
    UnmarkedCompletion,
    completion_row,
    conversation_ids,
    prompt_ids,
)
from training.recipes.rollouts import score_scale
from training.recipes.run_dir import RecipeError, RunDir, run
from training.recipes.token_runs import token_runs

SIDES = {
    "pairs": ("chosen", "rejected"),
    "demonstrations": ("completion",),
    "outcomes": ("completion",),
    "prompts": (),
}
SPLITS = ("train", "held_out")
EXAMPLES = 3
LEAKS_SHOWN = 5
OFTEN = 0.1  # of the steps: rankings cut after more of them are worth a notice
GPU = Machine("cuda", 2)


def main(run: RunDir) -> dict[str, Any]:
    method = run.config["of"]
    chosen = parse_options(method, run.config["options"])
    refuse_unfit(chosen)
    measures = bool(run.config.get("reward_model")) and not METHODS[method].samples
    refuse_unshared(
        chosen,
        processes=run.config.get("processes", 1),
        is_sharded=run.config.get("is_sharded", False),
        samples=METHODS[method].samples or measures,
    )
    options = asdict(chosen)
    loading.be_quiet()
    base = Path(run.config["base"])
    model_config = model_folders.check_model(base)
    shape = estimates.read_shape(base)
    tokenizer = loading.load_tokenizer(base)
    loading.refuse_larger_tokenizer(tokenizer, shape.vocabulary)
    if options.get("weights") == "full":
        loading.dtype_of(base)  # as which the trained weights are saved
    limits = {"max_length": options["max_length"], "max_new_tokens": options.get("max_new_tokens", 0)}

    reader = Reader(run, tokenizer, SIDES[METHODS[method].reads])
    rows = {split: reader.read(split) for split in SPLITS}
    found = {split: judge(method, rows[split], **limits) for split in SPLITS}
    kept = {split: left_over(rows[split], found[split]) for split in SPLITS}
    shared = leaked([*rows["train"], *learnt_before(run)], rows["held_out"])

    problems = disagreements(run, base) + too_long_for(model_config, options["max_length"])
    for split in SPLITS:
        problems += tell_problems(found[split], **limits)
    problems += too_few(kept, run.config.get("fewest", 1))
    if method == "kto":
        problems += one_class(kept["train"])
    if shared:
        problems.append(leak_problem(shared))
    judged = answered(kept["held_out"], options) if measures else []
    if measures and not judged:
        problems.append(problem(*no_room(options["judged_tokens"], options["max_length"])))
    never_ends = endless(tokenizer, base, rows)
    if never_ends and method == "sft":
        problems.append(
            problem(never_ends, "Use a base whose chat template ends each answer with that token.")
        )
    total = sum(map(len, rows.values()))
    told = {
        "problems": problems,
        "notices": ([never_ends] if never_ends and method != "sft" else [])
        + without_effect(options, kept["train"]),
        "splits": {s: describe_split(rows[s], found[s], max_length=options["max_length"]) for s in SPLITS},
        "cut_share": sum(some.cut for some in found.values()) / total if total else 0.0,
        "cut_without_asking": CUT_WITHOUT_ASKING,
        "examples": examples(tokenizer, method, rows["train"] or rows["held_out"], options["max_length"]),
        "leaked": [
            {"prompt": turn, "train": a.where, "held_out": b.where} for turn, a, b in shared[:LEAKS_SHOWN]
        ],
        "fingerprints": fingerprints(base),
        "estimates": [],
    }
    if all(kept.values()) and not any(some.problems for some in found.values()):
        order = order_of(method, options, kept["train"], run.config["seed"])
        for machine in dict.fromkeys((this_machine(run.config["threads"]), GPU)):
            load = load_of(method, options, kept, judged, order, machine)
            told.setdefault("tokens_per_row", load.step / options["batch_size"])
            told["estimates"].append(estimate(method, options, shape, load, machine, run.config))
        told["notices"] += lacking(told["estimates"][0], run.path)
        if METHODS[method].reads == "pairs":
            told["notices"] += cut_rankings(kept["train"], order, options["batch_size"])
    run.report_progress(total, total, "done")
    return told


class Reader:
    """Reads lines and turns them into tokens. A completion that stands in several pairs is turned once."""

    def __init__(self, run: RunDir, tokenizer: PreTrainedTokenizerBase, sides: Sequence[str]) -> None:
        self.run, self.tokenizer, self.sides = run, tokenizer, sides
        self.prompts: dict[str, list[int]] = {}
        self.conversations: dict[str, tuple[tuple[int, ...], bool]] = {}

    def read(self, split: str) -> list[Row]:
        """The rows of a split. Raises RecipeError naming the line that is no row, or that the template refuses."""
        path = self.run.path / self.run.config["data"][split]
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        rows = []
        for number, line in enumerate(lines, 1):
            if number % 200 == 1:
                self.run.stop_if_interrupted()
                self.run.report_progress(number, len(lines), f"reading {split.replace('_', '-')} rows")
            where = f"{split.replace('_', '-')} row {number}"
            rows.append(self._row(line, where))
        return rows

    def _row(self, line: str, where: str) -> Row:
        try:
            given = json.loads(line)
        except ValueError as error:
            raise RecipeError(f"{where}: not JSON ({error}).") from None
        for name in ("prompt", *self.sides):
            if not isinstance(given, dict) or not are_messages(given.get(name)):
                raise RecipeError(f"{where}, {name}: give a list of messages, each with role and content.")
        if "ranking" in given:
            where += (
                f" ({'imported line' if self.run.config.get('imported') else 'judgment'} {given['ranking']})"
            )
        elif "prompt_id" in given:
            where += f" (prompt {given['prompt_id']})"
        try:
            prompt = self._prompt(given["prompt"])
            sides = tuple(self._side(name, given, prompt) for name in self.sides)
        except RecipeError as error:
            raise RecipeError(f"{where}: {error}") from None
        return Row(
            where,
            given["prompt"],
            prompt,
            sides,
            str(given.get("ranking", where)),
            str(given.get("comparison", "")),
            float(given.get("weight", 1)),
            given.get("strength"),
            given.get("label", True),
        )

    def _prompt(self, messages: list[Message]) -> list[int]:
        key = json.dumps(messages)
        if key not in self.prompts:
            self.prompts[key] = prompt_ids(self.tokenizer, messages)
        return self.prompts[key]

    def _side(self, name: str, given: dict[str, Any], prompt: list[int]) -> Side:
        key = json.dumps([given["prompt"], given[name]])
        if key not in self.conversations:
            try:
                row = completion_row(self.tokenizer, given["prompt"], given[name])
                self.conversations[key] = row.ids, True
            except UnmarkedCompletion:
                ids = conversation_ids(self.tokenizer, [*given["prompt"], *given[name]])
                self.conversations[key] = tuple(ids), False
        ids, is_marked = self.conversations[key]
        return Side(name, given[name][-1]["content"], len(prompt), ids, is_marked)


def left_over(rows: Sequence[Row], found: Found) -> list[Row]:
    """The rows that the recipe would learn from."""
    gone = {id(row) for some in (found.dropped, *found.problems.values()) for row in some}
    return [row for row in rows if id(row) not in gone]


def too_few(kept: dict[str, list[Row]], fewest: int) -> list[dict[str, Any]]:
    """Problems of what is left once rows were dropped."""
    told = []
    if len(kept["train"]) < fewest:
        told.append(
            problem(
                f"{len(kept['train'])} train rows are left, and at least {fewest} are needed.",
                "Mend what is said of the others, raise max_length, or collect more judgments.",
            )
        )
    if not kept["held_out"]:
        told.append(
            problem(
                "No held-out row is left, so nothing could be measured.",
                "Raise max_length, or collect judgments of held-out prompts.",
            )
        )
    return told


def one_class(train: Sequence[Row]) -> list[dict[str, Any]]:
    """A problem when all completions that are learnt from are called good, or all bad."""
    try:
        refuse_one_class([row.is_good for row in train], "the train split")
    except RecipeError as error:
        return [problem(str(error), "")]
    return []


def too_long_for(model_config: dict[str, Any], max_length: int) -> list[dict[str, Any]]:
    """A problem when rows may be longer than the base has positions for."""
    window = model_folders.context_window(model_config)
    if not window or max_length <= window:
        return []
    return [
        problem(
            f"max_length is {max_length}, and the base reads {window} tokens at most.",
            f"Set max_length to {window}, or choose another base.",
        )
    ]


def without_effect(options: dict[str, Any], train: Sequence[Row]) -> list[str]:
    """What is asked for and changes nothing with these rows."""
    margin = options.get("margin_per_strength")
    if not margin or any((row.strength or 1) > 1 for row in train):
        return []
    return [
        f"margin_per_strength is {margin:g} and changes nothing: of no pair is it known that one side was preferred "
        "more than slightly."
    ]


def cut_rankings(train: Sequence[Row], order: Sequence[int], batch: int) -> list[str]:
    """Whether a batch size leaves rankings cut in two, although another one would not."""
    borders = [(train[order[at - 1]], train[order[at]]) for at in range(batch, len(order), batch)]
    cut = sum(before.ranking == after.ranking for before, after in borders)
    if cut <= OFTEN * len(borders):
        return []
    pairs = Counter(Counter(row.ranking for row in train).values()).most_common(1)[0][0]
    return [
        f"After {cut} of {len(borders)} steps a ranking is cut, so its completions are learnt from twice a pass. Most "
        f"rankings hold {pairs} pairs: a batch_size of {max(pairs, batch - batch % pairs)} would keep them whole."
    ]


def disagreements(run: RunDir, base: Path) -> list[dict[str, Any]]:
    """Adapters that were trained with another tokenizer or chat template than the base has. Raises RecipeError for one
    that can't be used at all."""
    told = []
    for role, name in (("parent", "parent"), ("reward_model", "reward model")):
        folder = run.config.get(role)
        if folder:
            model_folders.check_adapter(Path(folder), base)
            if role == "reward_model":
                score_scale(Path(folder))
            what = disagreement(base, Path(folder))
            if what:
                told.append(
                    problem(
                        f"The {name} was trained with another {what} than the base has, so it would read other tokens.",
                        f"Choose a {name} that was trained on this base, or train it again.",
                    )
                )
    return told


def learnt_before(run: RunDir) -> Iterator[Learnt]:
    """What parent and reward model have learnt from: what they know must not be held out either."""
    if name := run.config.get("learnt_before"):
        with (run.path / name).open(encoding="utf-8") as lines:
            for line in map(json.loads, lines):
                yield Learnt(line["where"], line["prompt"])


def leak_problem(shared: Sequence[tuple[str, Row | Learnt, Row]]) -> dict[str, Any]:
    turn, learnt, held_out = shared[0]
    are = "prompts are" if len(shared) > 1 else "prompt is"
    return problem(
        f"{len(shared)} {are} both learnt from and held out, so the held-out figures would be too good; one is "
        f"“{turn[:120]}” ({learnt.where} and {held_out.where}).",
        "Freeze a dataset from rounds that do not share prompts, import one that holds none of them twice, or choose a "
        "parent and a reward model that have not seen them.",
        rows=len(shared),
    )


def endless(tokenizer: PreTrainedTokenizerBase, base: Path, rows: dict[str, list[Row]]) -> str | None:
    """What is wrong when no answer holds a token at which generation stops, else None."""
    config = base / "generation_config.json"
    given = json.loads(config.read_text(encoding="utf-8")).get("eos_token_id") if config.is_file() else None
    ends = {tokenizer.eos_token_id, *(given if isinstance(given, list) else [given])}
    sides = [side for some in rows.values() for row in some for side in row.sides if side.text.strip()][:100]
    if not sides or any(ends & set(side.ids[side.prompt :]) for side in sides):
        return None
    return (
        f"The chat template does not end an answer with {tokenizer.eos_token}, the token at which generation stops: a "
        "policy trained on it may not learn to stop."
    )


def examples(
    tokenizer: PreTrainedTokenizerBase, method: str, rows: Sequence[Row], max_length: int
) -> list[dict[str, Any]]:
    """The first row, one of middling length and the longest, as the model sees them; if they are one, its next."""
    by_length = sorted(rows, key=lambda row: row.longest)
    shown = [rows[0], by_length[len(rows) // 2], by_length[-1], *rows[:EXAMPLES]] if rows else []
    different = list({id(row): row for row in shown}.values())[:EXAMPLES]
    return [
        {"where": row.where, "tokens": row.longest, "sides": _shown_sides(tokenizer, method, row, max_length)}
        for row in different
    ]


def _shown_sides(
    tokenizer: PreTrainedTokenizerBase, method: str, row: Row, max_length: int
) -> list[dict[str, Any]]:
    messages = list(row.messages)
    if not row.sides:
        ids = prompt_ids(tokenizer, messages)
        runs = token_runs(tokenizer, messages, ids, learnt=[False] * len(ids), keep=len(ids), asks=True)
        return [{"name": "prompt", "runs": runs}]
    shown = []
    for side in row.sides:
        # A reward model reads its score at the last token; the others learn every token of the completion.
        first = len(side.ids) - 1 if method == "reward" else side.prompt
        keep = len(side.ids) if method == "reward" else max_length
        learnt = [place >= first for place in range(len(side.ids))]
        whole = [*messages, {"role": "assistant", "content": side.text}]
        shown.append(
            {"name": side.name, "runs": token_runs(tokenizer, whole, side.ids, learnt=learnt, keep=keep)}
        )
    return shown


# --- what it will take ---


def this_machine(threads: int | None) -> Machine:
    size = torch.empty((), dtype=loading.compute_dtype()).element_size()
    return Machine("cuda" if loading.has_gpu() else "cpu", size, threads or os.cpu_count() or 1)


def estimate(
    method: str, options: dict[str, Any], shape: Any, load: Load, machine: Machine, config: dict[str, Any]
) -> dict[str, Any]:
    """Memory, disk and time on one machine."""
    measured = config.get("measured") if machine is not GPU else None
    parent, reward_model = (estimates.parameters_in(config.get(role)) for role in ("parent", "reward_model"))
    return {
        "machine": {**asdict(machine), "dtype": {2: "bfloat16", 4: "float32"}.get(machine.dtype_bytes, "?")},
        "memory": estimates.estimate_memory(
            method,
            options,
            shape,
            load,
            machine,
            parent=parent,
            reward_model=reward_model,
        ),
        "disk": estimates.estimate_disk(method, options, shape, parent=parent),
        "time": estimates.estimate_seconds(method, options, shape, load, machine, measured),
    }


def lacking(estimated: dict[str, Any], folder: Path) -> list[str]:
    """Notices when this machine has less memory or disk than the run is expected to take."""
    told = []
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if estimated["machine"]["kind"] == "cpu" and estimated["memory"]["peak"] > memory:
        told.append(
            f"The run is expected to take {estimated['memory']['peak'] / 1e9:.1f} GB of memory, and this machine has "
            f"{memory / 1e9:.1f} GB. Lower micro_batch_size or max_length."
        )
    free = shutil.disk_usage(folder).free
    if estimated["disk"]["total"] > free:
        told.append(
            f"Its checkpoints will take {estimated['disk']['total'] / 1e9:.1f} GB, and {free / 1e9:.1f} GB "
            "are free here."
        )
    return told


if __name__ == "__main__":
    run("preview", main)
