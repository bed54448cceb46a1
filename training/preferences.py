"""From frozen rankings to what trainers read. Pure and versioned: the same rows always give the same pairs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

# Each goes up when its derivation changes, and is kept with every run that used it.
PAIRS_VERSION = 3  # 1 had no strength, 2 no comparison
SFT_VERSION = 1
OUTCOMES_VERSION = 1
PROMPTS_VERSION = 1
# The file of a dataset in the store that holds its rows, one JSON object a line.
ROWS_FILE = "rankings.jsonl"
SPLITS = ("train", "held_out")

Row = Mapping[str, Any]


def ranked_pairs(row: Row) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Every (better, worse) pair of completions in one ranking. Ties give none, nor do equal texts."""
    if row["outcome"] != "ranked":
        return []
    completions = sorted(row["completions"], key=lambda c: (c["rank"], c["completion"]))
    return [
        (better, worse)
        for index, better in enumerate(completions)
        for worse in completions[index + 1 :]
        if better["rank"] < worse["rank"] and better["text"] != worse["text"]
    ]


def pair_lines(rows: Sequence[Row], *, texts: Mapping[str, str], split: str) -> Iterator[dict[str, Any]]:
    """TRL's preference form, one object a pair, for the rows of one split, those of a ranking side by side.

    `texts` maps digests to texts. `weight` is that of the ranking, 1 unless an import says otherwise, however many
    pairs it gives, and recipes learn from the pairs of one comparison together (InstructGPT, Ouyang et al. 2022,
    section 3.5).
    """
    for row in rows:
        if row["split"] != split:
            continue
        for better, worse in ranked_pairs(row):
            yield {
                "prompt": _conversation(row, texts),
                "chosen": [{"role": "assistant", "content": texts[better["text"]]}],
                "rejected": [{"role": "assistant", "content": texts[worse["text"]]}],
                "ranking": row["ranking"],
                "comparison": row["comparison"],
                "prompt_id": row["prompt"],
                "weight": row.get("weight", 1.0),
                "strength": row.get("strength"),
            }


def called_good_or_bad(row: Row) -> list[tuple[Mapping[str, Any], bool]]:
    """Completions that one judgment calls good (true) or bad, as KTO reads them.

    Of a ranking: good beats more of the others than beat it, bad the reverse, and what stands in the middle or is tied
    with all is neither. "All bad" calls each of them bad.
    """
    if row["outcome"] == "all_bad":
        return [(completion, False) for completion in row["completions"]]
    if row["outcome"] != "ranked":
        return []
    ranks = [completion["rank"] for completion in row["completions"]]
    balance = [sum(rank < other for other in ranks) - sum(rank > other for other in ranks) for rank in ranks]
    return [
        (completion, won > 0) for completion, won in zip(row["completions"], balance, strict=True) if won != 0
    ]


def outcome_lines(rows: Sequence[Row], *, texts: Mapping[str, str], split: str) -> Iterator[dict[str, Any]]:
    """TRL's unpaired preference form, one object a completion called good or bad, for the rows of one split."""
    for row in rows:
        if row["split"] != split:
            continue
        for completion, is_good in called_good_or_bad(row):
            yield {
                "prompt": _conversation(row, texts),
                "completion": [{"role": "assistant", "content": texts[completion["text"]]}],
                "label": is_good,
                "ranking": row["ranking"],
                "prompt_id": row["prompt"],
                "weight": row.get("weight", 1.0),
            }


def prompt_lines(rows: Sequence[Row], *, texts: Mapping[str, str], split: str) -> Iterator[dict[str, Any]]:
    """Every prompt of one split that somebody judged, once, in the order of the rows."""
    seen = set()
    for row in rows:
        if row["split"] == split and row["prompt"] not in seen:
            seen.add(row["prompt"])
            yield {"prompt": _conversation(row, texts), "prompt_id": row["prompt"]}


def written_answers(row: Row) -> Sequence[Mapping[str, Any]]:
    """What people wrote with one judgment, approved: edited answers, or a demonstration."""
    return row.get("edits", ())  # datasets of the first format have none


def sft_lines(rows: Sequence[Row], *, texts: Mapping[str, str], split: str) -> Iterator[dict[str, Any]]:
    """TRL's prompt and completion form, one object a written answer, for the rows of one split.

    `texts` maps digests to texts. `ranking` tells those of one judgment.
    """
    for row in rows:
        if row["split"] != split:
            continue
        for answer in written_answers(row):
            yield {
                "prompt": _conversation(row, texts),
                "completion": [{"role": "assistant", "content": texts[answer["text"]]}],
                "ranking": row["ranking"],
                "prompt_id": row["prompt"],
                "weight": row.get("weight", 1.0),
            }


def _conversation(row: Row, texts: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"role": message["role"], "content": texts[message["text"]]} for message in row["messages"]]


# What a method reads (`Method.reads`): how its lines are derived, and the version of that.
FORMS: dict[str, tuple[Callable[..., Iterator[dict[str, Any]]], int]] = {
    "pairs": (pair_lines, PAIRS_VERSION),
    "demonstrations": (sft_lines, SFT_VERSION),
    "outcomes": (outcome_lines, OUTCOMES_VERSION),
    "prompts": (prompt_lines, PROMPTS_VERSION),
}


def text_digests(rows: Sequence[Row]) -> set[str]:
    """Digests of every text the rows refer to."""
    return {
        part["text"]
        for row in rows
        for part in [*row["messages"], *row["completions"], *written_answers(row)]
    }


def count_rows(rows: Sequence[Row]) -> dict[str, int]:
    """What a dataset's page tells: judgments, comparisons, ties, all-bad, cannot-judge, and what each split holds.

    Of written answers, `demonstrations` were written from scratch and `edits` from a completion. `<split>_<form>` is
    how many lines that form of FORMS has; `<split>_demonstrations` counts both kinds of written answers, as
    fine-tuning reads them.
    """
    counts = {
        "judgments": len(rows),
        "comparisons": len({row["comparison"] for row in rows}),
        "tied_pairs": 0,
        "all_bad": sum(row["outcome"] == "all_bad" for row in rows),
        "cannot_judge": sum(row["outcome"] == "cannot_judge" for row in rows),
        "demonstrations": 0,
        "edits": 0,
        **{f"{split}_{form}": 0 for split in SPLITS for form in FORMS},
    }
    prompts: dict[str, set[Any]] = {split: set() for split in SPLITS}
    for row in rows:
        split = row["split"]
        prompts[split].add(row["prompt"])
        for answer in written_answers(row):
            counts["demonstrations" if answer["edited_from"] is None else "edits"] += 1
            counts[f"{split}_demonstrations"] += 1
        counts[f"{split}_pairs"] += len(ranked_pairs(row))
        counts[f"{split}_outcomes"] += len(called_good_or_bad(row))
        if row["outcome"] == "ranked":
            ranks = [completion["rank"] for completion in row["completions"]]
            counts["tied_pairs"] += sum(a == b for index, a in enumerate(ranks) for b in ranks[index + 1 :])
    return counts | {f"{split}_prompts": len(seen) for split, seen in prompts.items()}
