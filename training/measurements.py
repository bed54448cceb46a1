"""What recipes measure, in words: how curves are grouped and called, and which figures tell how a run ended. Pure.

A name that stands nowhere here is shown all the same, under its own name among the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HELD_OUT = "held_out/"
ON_HELD_OUT = "On held-out prompts"
# Measured while it trains: name in metrics.jsonl -> title, group by group in the order of the page.
GROUPS: dict[str, dict[str, str]] = {
    "Loss": {
        "loss": "Loss",
        "policy_loss": "Policy loss",
        "value_loss": "Value loss",
    },
    "Reward, KL and length": {
        "reward": "Reward",
        "score": "Reward less penalties",
        "reward_spread": "Spread of the reward",
        "kl": "KL to the reference, nats per completion",
        "kl_coefficient": "KL coefficient",
        "length": "Length, tokens",
        "finished_share": "Share that ends by itself",
        "repetition": "Repetition, share of word triples",
        "entropy": "Entropy, nats per token",
    },
    "Preferences": {
        "accuracy": "Accuracy",
        "token_accuracy": "Accuracy of the likeliest token",
        "margin": "Margin",
        "mean_score": "Mean score",
        "chosen_reward": "Reward of chosen",
        "rejected_reward": "Reward of rejected",
        "chosen_log_prob": "Log-probability of chosen",
        "rejected_log_prob": "Log-probability of rejected",
    },
    ON_HELD_OUT: {},  # everything that begins with HELD_OUT
    "Optimisation": {
        "learning_rate": "Learning rate",
        "grad_norm": "Gradient norm",
        "value_grad_norm": "Gradient norm of the value model",
        "clipped_share": "Share of ratios that were clipped",
        "policy_moved": "KL to the policy that sampled, nats per token",
        "explained_variance": "Variance explained by the value model",
        "updates": "Updates in a step",
    },
    "Others": {},  # and whatever else there is
}
HELD_OUT_TITLES = {
    "win_rate": "Win rate over the parent",
    "perplexity": "Perplexity",
    "parent_reward": "Reward of the parent",
    "best_of_4_reward": "Reward of best-of-4",
    "best_of_4_win_rate": "Win rate of best-of-4",
    "score_mean": "Mean score",
    "score_spread": "Spread of the scores",
    "calibration_error": "Calibration error",
}
# Counts that stay the same from one evaluation to the next: no curve.
NO_CURVE = [HELD_OUT + name for name in ("pairs", "prompts", "completions", "answers", "tokens")]


def catalogue() -> dict[str, Any]:
    """For the module that draws curves: `{"groups": [{"title", "prefix", "names": {name: title}}], "no_curve"}`."""
    titles = {name: title for names in GROUPS.values() for name, title in names.items()} | HELD_OUT_TITLES
    held_out = {HELD_OUT + name: titles[name] for name in dict.fromkeys([*HELD_OUT_TITLES, *titles])}
    groups = [
        {"title": group, "prefix": HELD_OUT, "names": held_out}
        if group == ON_HELD_OUT
        else {"title": group, "prefix": "", "names": names}
        for group, names in GROUPS.items()
    ]
    return {"groups": groups, "no_curve": NO_CURVE}


# --- results ---


@dataclass(frozen=True)
class Rate:
    """A share measured on held-out prompts, with its 95 % interval and of how many what it is."""

    name: str
    value: float
    low: float
    high: float
    number: int
    what: str  # pairs or prompts


@dataclass(frozen=True)
class Figure:
    """One number beside it. `value` is a share when `is_share`."""

    name: str
    title: str
    value: Any
    is_share: bool = False
    low: float | None = None
    high: float | None = None


# Where it stands in a result's metrics, what lies within another behind a point -> title, whether it is a share. In the
# order of the page.
_BESIDE: dict[str, tuple[str, bool]] = {
    "human_ceiling.agreement": ("Human ceiling", True),
    "human_ceiling.accuracy": ("The model on the same pairs", True),
    "length_baseline": ("Length alone", True),
    "at_start": ("Before training", True),
    "judged": ("Win rate by the reward model", True),
    "best_of_4_win_rate": ("Best-of-4, untrained", True),
    "calibration_error": ("Calibration error", False),
    "reward": ("Reward", False),
    "parent_reward": ("Reward of the parent", False),
    "best_of_4_reward": ("Reward of best-of-4", False),
    "kl": ("KL, nats per completion", False),
    "length": ("Length, tokens", False),
    "finished_share": ("Ends by itself", True),
    "repetition": ("Repetition", True),
    "loss": ("Held-out loss", False),
    "perplexity": ("Held-out perplexity", False),
    "margin": ("Margin", False),
}
# Some figures come as an object of their own.
_WITHIN = ("accuracy", "win_rate", "rate", "error", "value")


# The shares a run is judged by, as far as it has them.
JUDGED_BY = ("win_rate", "accuracy", "interval")


def main_rate(metrics: Mapping[str, Any]) -> Rate | None:
    """The share a run is judged by: a win rate where there is one, else an accuracy."""
    for name in JUDGED_BY[:2]:
        value, interval = metrics.get(name), metrics.get("interval")
        if (
            is_number(value)
            and isinstance(interval, list)
            and len(interval) == 2
            and all(map(is_number, interval))
        ):
            what = "pairs" if "pairs" in metrics else "prompts" if "prompts" in metrics else "completions"
            return Rate(name, float(value), *map(float, interval), number=metrics.get(what, 0), what=what)
    return None


def beside(metrics: Mapping[str, Any]) -> list[Figure]:
    """What stands beside it, as far as the run measured it: ceilings, baselines, and what it cost."""
    rate = main_rate(metrics)
    found = []
    for path, (title, is_share) in _BESIDE.items():
        name, _, within = path.partition(".")
        value, interval = metrics.get(name), metrics.get(f"{name}_interval")
        if name == "loss" and rate is None:
            interval = metrics.get("interval")  # of a run that is judged by its loss
        if isinstance(value, Mapping):
            interval = (
                None if path == "human_ceiling.accuracy" else value.get("interval")
            )  # that of the agreement
            keys = (within,) if within else (rate.name,) if rate and name == "at_start" else _WITHIN
            value = next((value[key] for key in keys if key in value), None)
        if is_number(value):
            low, high = interval if _is_interval(interval) else (None, None)
            found.append(Figure(path, title, float(value), is_share, low, high))
    return found


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def is_number(value: Any) -> bool:
    """Whether it is a number a page can show; a yes or no is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
