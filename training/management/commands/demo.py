"""`manage.py demo`: the whole loop once, with a report. `deploy/dev.py demo` starts the stack and calls it."""

import json
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.table import Table

from rankloop.errors import Refused
from training.demo import SMALLEST, Demo, DemoFailed, Sizes, refuse_outside_local, unmet

# Between two lines of progress where the output is no terminal.
QUIET_SECONDS = 15


class Command(BaseCommand):
    help = "Run the whole loop once on the running local stack and write demo/report.json into RANKLOOP_HOME."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--base-url", default="http://127.0.0.1:8000", help="where the site runs")
        parser.add_argument("--no-serve", action="store_true", help="say nothing about signing in afterwards")
        parser.add_argument("--model", type=Path, default=settings.DEFAULT_MODEL, help="a safetensors folder")
        parser.add_argument(
            "--mechanics-only",
            action="store_true",
            help="smallest sizes, and figures are not held against chance: for tests on a tiny random model",
        )

    def handle(
        self, *, base_url: str, no_serve: bool, model: Path, mechanics_only: bool, **options: Any
    ) -> None:
        console = Console()
        progress = _Progress(console)
        demo = Demo(
            base_url=base_url, model=model, sizes=SMALLEST if mechanics_only else Sizes(), tell=progress.tell
        )
        problems: list[str] = []
        try:
            refuse_outside_local()
            report = demo.run()
            problems = [] if mechanics_only else unmet(report)
            report["ok"] = not problems
        except (DemoFailed, Refused) as error:
            report = {"ok": False, "error": str(error), "phases": demo.phases}
            problems = [str(error)]
        finally:
            progress.close()
        file = settings.HOME / "demo" / "report.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(report, indent=2) + "\n")
        _show(console, report, file)
        if problems:
            raise CommandError("\n".join(problems))
        if not no_serve:
            console.print(f"\nSign in at [bold]{base_url}[/bold] as")
            for name, password in demo.passwords.items():
                console.print(f"  {name:<12} {password}", highlight=False)


class _Progress:
    """One line a phase: rewritten in place on a terminal, now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.status = console.status("") if console.is_terminal else None
        self.phase, self.started, self.last = "", 0.0, 0.0
        if self.status:
            self.status.start()

    def tell(self, phase: str, done: int, of: int) -> None:
        now = time.monotonic()
        if phase != self.phase:
            self.phase, self.started, self.last = phase, now, now
            self._line(f"… {phase}") if self.status is None else self.status.update(phase)
        elif done < 0:
            self.console.print(f"[green]✓[/green] {phase} [dim]{now - self.started:.1f} s[/dim]")
        elif of > 0:
            text = f"{phase}: {done} of {of} ({now - self.started:.0f} s)"
            if self.status:
                self.status.update(text)
            elif now - self.last >= QUIET_SECONDS:
                self.last = now
                self._line(f"  {text}")

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False)
        self.console.file.flush()

    def close(self) -> None:
        if self.status:
            self.status.stop()


def _show(console: Console, report: dict[str, Any], file: Path) -> None:
    table = Table(title="The loop, once. All rankings in it are by simulated annotators.")
    table.add_column("phase")
    table.add_column("seconds", justify="right")
    table.add_column("", justify="left")
    for phase in report["phases"]:
        facts = {
            k: v for k, v in phase.items() if k in ("prompts", "completions", "comparisons", "judgments")
        }
        said = ", ".join(f"{value} {name}" for name, value in facts.items())
        table.add_row(phase["name"], f"{phase['seconds']:.1f}", said if phase["ok"] else "[red]failed[/red]")
    console.print(table)
    if "reward_model" in report:
        reward = report["reward_model"]
        length = reward["length_baseline"]
        console.print(
            f"Reward model: accuracy {_figure(reward['accuracy'], reward['interval'])} on {reward['pairs']} held-out "
            f"pairs; by length alone ({length['prefers']}): {_figure(length['accuracy'], length['interval'])}"
        )
        for step, policy in report["policies"].items():
            console.print(
                f"{step.upper()} policy against its parent: win rate "
                f"{_figure(policy['win_rate'], policy['interval'])} over {policy['comparisons']} comparisons of "
                f"{policy['prompts']} held-out prompts"
            )
        console.print(f"{report['seconds_total']:.0f} seconds in all.")
    console.print(f"Report: {file}")


def _figure(value: float, interval: list[float]) -> str:
    return f"{value:.3f} \\[{interval[0]:.3f}, {interval[1]:.3f}]"
