"""Training plans: which methods a round trains, with which options. Pure; refused here, before anything is queued."""

from dataclasses import asdict
from typing import Any

from rankloop.errors import Refused
from training.recipes.options import parse_options
from training.recipes.run_dir import RecipeError

TRAINABLE = ("reward", "dpo")


def checked_plan(plan: Any) -> list[dict[str, Any]]:
    """A plan with every option filled in: `[{"step", "method", "options"}, ...]`, or Refused with what to mend."""
    if not isinstance(plan, list):
        raise Refused("The training plan must be a list of steps; leave it empty to train nothing.")
    steps: list[dict[str, Any]] = []
    for number, item in enumerate(plan, start=1):
        if not isinstance(item, dict) or not set(item) <= {"step", "method", "options"}:
            raise Refused(
                f"Step {number} of the training plan takes `step`, `method` and `options`, nothing else."
            )
        method = item.get("method")
        if method not in TRAINABLE:
            raise Refused(f"Step {number}: unknown method {method!r}. Known are {', '.join(TRAINABLE)}.")
        name = item.get("step", method)
        if not isinstance(name, str) or not name.isidentifier() or len(name) > 40:
            raise Refused(
                f"Step {number}: its name {name!r} must be a word of letters, digits and underscores."
            )
        if any(step["step"] == name for step in steps):
            raise Refused(f"Two steps are called {name!r}. Give each its own name.")
        given = item.get("options", {})
        if not isinstance(given, dict):
            raise Refused(f"Step {name}: its options must be an object of names and values.")
        try:
            options = parse_options(method, given)
        except RecipeError as error:
            raise Refused(f"Step {name}: {error}") from None
        steps.append({"step": name, "method": method, "options": asdict(options)})
    return steps
