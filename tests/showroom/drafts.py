"""Training runs before their launch, in every state of their page, with what a look-over finds."""

from typing import Any

from annotation.models import Project
from rankloop.accounts.models import User
from training.models import Checkpoint, PreferenceDataset, TrainingRun
from training.services.launching import fingerprint, open_draft, write_findings

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
LONG = "Pour off the first water after ten seconds, for it only wakes the leaves. " * 6


def open_drafts(
    project: Project, user: User, dataset: PreferenceDataset, base: Checkpoint
) -> dict[str, TrainingRun]:
    """One that is being looked over, one that can't be launched, one that can."""
    drafts = {}
    for name, title, findings in (
        ("checking", "With a longer answer", None),
        ("problems", "On all the rounds", _problems()),
        ("ready", "Half the learning rate", _ready()),
    ):
        options = {"learning_rate": 2.5e-4, "max_length": 96}
        draft = open_draft(
            project=project,
            user=user,
            method="dpo",
            dataset=dataset,
            parent=base,
            name=title,
            options=options,
        )
        if findings is None:
            progress = {"step": 401, "of": 1204, "phase": "reading train rows"}
            TrainingRun.objects.filter(pk=draft.pk).update(progress=progress)
        else:
            write_findings(run=draft, of=fingerprint(draft), findings=findings)
        drafts[name] = draft
    return drafts


def _problems() -> dict[str, Any]:
    return {
        **_ready(),
        "problems": [
            {
                "what": "A completion is empty, so there is nothing to learn from it.",
                "remedy": "Have the judgment withdrawn or revised and freeze a new dataset, or import the rows "
                "without it.",
                "rows": 2,
                "first": "train row 17 (judgment 40)",
            },
            {
                "what": "1 prompt is both learnt from and held out, so the held-out figures would be too good; one is "
                "“how do i brew green tea?” (train row 3 (judgment 12) and held-out row 9 (judgment 31)).",
                "remedy": "Freeze a dataset from rounds that do not share prompts, or import one that holds none of "
                "them twice.",
                "rows": 1,
                "first": "",
            },
        ],
        "leaked": [
            {
                "prompt": "how do i brew green tea?",
                "train": "train row 3 (judgment 12)",
                "held_out": "held-out row 9 (judgment 31)",
            }
        ],
        "estimates": [],
    }


def _ready() -> dict[str, Any]:
    split = {"rows": 1204, "tokens": 241_905, "mean": 100.5, "p95": 171, "longest": 214, "dropped": 0}
    why = "longer than max_length = 96 tokens: the end is cut off"
    cut = {"how": "truncated", "why": why, "rows": 31, "first": "train row 8 (judgment 21)"}
    memory = {"runtime": 48e7, "weights": 53.8e7, "adapters": 78e6, "activations": 21e8, "logits": 29e7}
    here = {"kind": "cpu", "dtype_bytes": 4, "cores": 2, "dtype": "float32"}
    return {
        "problems": [],
        "notices": [
            "The run is expected to take 3.5 GB of memory, and this machine has 2.0 GB. Lower micro_batch_size."
        ],
        "splits": {
            "train": {**split, "truncated": 31, "cut": [cut]},
            "held_out": {**split, "rows": 301, "tokens": 60_200, "truncated": 0, "cut": []},
        },
        "cut_share": 31 / 1505,
        "cut_without_asking": 0.01,
        "leaked": [],
        "examples": [
            _example("train row 1 (judgment 7)", "Two minutes."),
            _example("train row 8", LONG, cut=True),
        ],
        "fingerprints": {"tokenizer": "5e1f" * 16, "chat_template": "90ab" * 16},
        "estimates": [
            {
                "machine": here,
                "memory": {**memory, "cache": 0, "peak": 3_486_000_000},
                "disk": {"total": 195_000_000},
                "time": {"seconds": 1240, "by": "dpo of First round"},
            },
            {
                "machine": {"kind": "cuda", "dtype_bytes": 2, "cores": 1, "dtype": "bfloat16"},
                "memory": {**memory, "cache": 0, "peak": 1_690_000_000},
                "disk": {"total": 195_000_000},
                "time": {"seconds": 44, "by": None},
            },
        ],
    }


def _example(where: str, answer: str, *, cut: bool = False) -> dict[str, Any]:
    def run(text: str, kind: str = "text", learnt: bool = False, gone: bool = False) -> dict[str, Any]:
        return {"text": text, "kind": kind, "learnt": learnt, "cut": gone}

    def side(name: str, text: str) -> dict[str, Any]:
        kept, gone = (text[:160], text[160:]) if cut else (text, "")
        runs = [
            run("<|im_start|>", "special"),
            run(f"system\n{SYSTEM}", "template"),
            run("<|im_end|>", "special"),
            run("\n", "template"),
            run("<|im_start|>", "special"),
            run("user\n", "template"),
            run("How long should green tea steep?"),
            run("<|im_end|>", "special"),
            run("\n", "template"),
            run("<|im_start|>", "special"),
            run("assistant\n", "template"),
            run(kept, learnt=True),
        ]
        end = [run("<|im_end|>", "special", not cut, cut), run("\n", "template", not cut, cut)]
        return {"name": name, "runs": [*runs, *([run(gone, gone=True)] if gone else []), *end]}

    return {
        "where": where,
        "tokens": 61,
        "sides": [side("chosen", answer), side("rejected", f"Well. {answer}")],
    }
