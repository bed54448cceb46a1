"""What tests of launching by hand share: findings, a draft, and the text of a page."""

import re
from typing import Any

from tests.cast import Cast
from training.models import Checkpoint, PreferenceDataset, TrainingRun
from training.services.launching import (
    fingerprint,
    open_draft,
    write_findings,
)

RUNS = "/api/v1/projects/tea/runs"
FINE = {"problems": [], "cut_share": 0.0}
CUT = {"problems": [], "cut_share": 0.02}
LEAK = {
    "problems": [{"what": "It leaks.", "remedy": "Mend it.", "rows": 1, "first": "train row 3"}],
    "cut_share": 0.0,
}


def drafted(cast: Cast, dataset: PreferenceDataset, base: Checkpoint, **changes: Any) -> TrainingRun:
    given = {"method": "dpo", "options": {}, "dataset": dataset, "parent": base, **changes}
    return open_draft(project=cast.project, user=cast.researcher, **given)


def look_over(run: TrainingRun, findings: dict[str, Any]) -> TrainingRun:
    """Have that found of a draft."""
    assert write_findings(run=run, of=fingerprint(run), findings=findings)
    run.refresh_from_db()
    return run


def text_of(answer: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode()))
