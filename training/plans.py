"""Training plans: which methods a round trains, with which options. Pure; refused here, before anything is queued."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rankloop.errors import Refused
from training.recipes.fitting import refuse_unfit
from training.recipes.options import METHODS, parse_options
from training.recipes.run_dir import RecipeError


def checked_plan(plan: Any) -> list[dict[str, Any]]:
    """A plan with every option filled in, or Refused with what to mend.

    `[{"step", "method", "options"}, ...]`, and "reward_model" beside them where a step of the plan trains the reward
    model that this one learns from, or is measured by: the one it names; to learn from, by default the nearest before.
    """
    if not isinstance(plan, list):
        raise Refused("The training plan must be a list of steps; leave it empty to train nothing.")
    steps: list[dict[str, Any]] = []
    for number, item in enumerate(plan, start=1):
        if not isinstance(item, dict) or not set(item) <= {"step", "method", "options", "reward_model"}:
            raise Refused(
                f"Step {number} of the training plan takes `step`, `method`, `options`, `reward_model`, no more."
            )
        method = item.get("method")
        if not isinstance(method, str) or method not in METHODS:
            raise Refused(f"Step {number}: unknown method {method!r}. Known are {', '.join(METHODS)}.")
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
            refuse_unfit(options)
        except RecipeError as error:
            raise Refused(f"Step {name}: {error}") from None
        step = {"step": name, "method": method, "options": asdict(options)}
        judge = _reward_step(name, item.get("reward_model"), step, steps)
        steps.append(step if judge is None else step | {"reward_model": judge})
    return steps


def needs_reward_model(method: str, options: Mapping[str, Any]) -> bool:
    """Whether a method with these options learns from a reward model's scores."""
    return METHODS[method].samples and options["reward"] == "reward_model"


def why_no_reward_model(method: str, options: Mapping[str, Any]) -> str:
    """Why a method with these options has no use for one, with the remedy; empty when it has one."""
    title = METHODS[method].title
    if METHODS[method].samples:
        if needs_reward_model(method, options):
            return ""
        return f"{title} learns from no reward model here. Leave it out, or set reward to reward_model."
    if METHODS[method].makes != "policy":
        return f"{title} learns from no reward model. Leave it out."
    if options.get("weights") == "full":
        return (
            f"{title} trains all weights here, and a reward model to measure it by is worn as an adapter beside the "
            "policy's. Leave it out, or set weights to lora."
        )
    return ""


def _reward_step(
    name: str, named: Any, step: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]
) -> str | None:
    """The step of the plan whose reward model `step` learns from or is measured by, None without one."""
    before = [other["step"] for other in earlier if METHODS[other["method"]].makes == "reward"]
    useless = why_no_reward_model(step["method"], step["options"])
    if named is not None and useless:
        raise Refused(f"Step {name}: {useless}")
    if named is None and not needs_reward_model(step["method"], step["options"]):
        return None
    if named is not None and named not in before:
        raise Refused(
            f"Step {name}: {named!r} is no reward model that an earlier step trains. Name one, or leave it out."
        )
    judge = named or (before[-1] if before else None)
    if any(other["step"] == judge and other["options"]["weights"] == "full" for other in earlier):
        raise Refused(
            f"Step {name} can't use the reward model of step {judge}, which trains all weights: policy and reward "
            f"model share one base in memory, as adapters. Set weights of step {judge} to lora."
        )
    return judge
