"""The whole loop through real processes: PostgreSQL, web server, workers, beat, recipes, and annotators over HTTP."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.stack import Stack
from tests.environment import ROOT

# What tests/environment.py set for this process; the stack makes its own.
OWN_TO_THE_TESTS = (
    "DATABASE_URL",
    "CELERY_BROKER_URL",
    "RANKLOOP_ARTIFACTS_URL",
    "SECRET_KEY",
    "RANKLOOP_HOME",
    "DJANGO_SETTINGS_MODULE",
)


@pytest.mark.slow
def test_the_demo_carries_a_tiny_model_through_two_rounds_and_a_second_demo_finds_all_done(
    tiny_model: Path, tmp_path: Path
) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in OWN_TO_THE_TESTS}
    environ |= {"RANKLOOP_DEFAULT_MODEL": str(tiny_model), "RANKLOOP_TRAINING_THREADS": "1"}
    with Stack(tmp_path / "home", 0, environ=environ) as stack:
        first = run_demo(stack)
        assert [phase["name"] for phase in first["phases"] if not phase["ok"]] == []
        assert first["judgments"]["simulated"] > 0
        assert first["judgments"]["human"] == 0
        assert set(first["policies"]) == {"dpo", "ppo"}
        for policy in first["policies"].values():
            assert policy["prompts"] >= 80

        second = run_demo(stack)
        same = ("judgments", "policies", "reward_model", "prompts")
        assert {key: second[key] for key in same} == {key: first[key] for key in same}


def run_demo(stack: Stack) -> dict:
    """Run the demo's command against the stack; its report."""
    command = [sys.executable, "manage.py", "demo", "--base-url", stack.url, "--no-serve", "--mechanics-only"]
    done = subprocess.run(command, cwd=ROOT, env=stack.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((stack.home.path / "demo" / "report.json").read_text())
