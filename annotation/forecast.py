"""When the work will be done, at the pace of the last days. Pure; the tests hold it against a slow twin."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from math import ceil

import numpy as np

DAYS_LOOKED_AT = 7
FEWEST_DAYS = 3
FARTHEST_DAYS = 3650  # a date beyond ten years says nothing
RESAMPLES = 2000


@dataclass(frozen=True)
class Forecast:
    """The day on which the work will probably be done, with a range; else `why_not` says why there is none."""

    remaining: int
    on: date | None = None
    earliest: date | None = None
    latest: date | None = None
    per_day: float | None = None  # judgments on a day with judgments
    days: int = 0  # how many days that is the mean of
    why_not: str = ""


def forecast(
    *, remaining: int, per_day: Mapping[date, int], today: date, seed: int = 0, resamples: int = RESAMPLES
) -> Forecast:
    """From the last seven days with judgments before today; today is not over, so it is left out.

    What remains is divided by their mean, and spread over days off as those seven were. The range is the middle 90 %
    of that figure over resamples of the seven days, drawn with replacement: it is wide when the pace was uneven.
    """
    recent = sorted(day for day, judgments in per_day.items() if judgments and day < today)[-DAYS_LOOKED_AT:]
    if not remaining:
        return Forecast(remaining=0, why_not="Nothing is left to judge.")
    if len(recent) < FEWEST_DAYS:
        return Forecast(
            remaining=remaining,
            days=len(recent),
            why_not=f"No forecast yet: it takes {FEWEST_DAYS} full days with judgments, and there "
            + ("is 1." if len(recent) == 1 else f"are {len(recent)}."),
        )
    judgments = np.array([per_day[day] for day in recent])
    calendar_days = (today - recent[0]).days / len(recent)  # for each day with judgments

    def days_at(pace: float) -> int:
        return ceil(remaining / pace * calendar_days)

    mean = float(judgments.mean())
    if days_at(mean) > FARTHEST_DAYS:
        why_not = "At the pace of the last days this takes more than ten years."
        return Forecast(remaining=remaining, per_day=mean, days=len(recent), why_not=why_not)
    draws = np.random.default_rng(seed).choice(judgments, size=(resamples, len(judgments)))
    slow, fast = np.quantile(draws.mean(axis=1), [0.05, 0.95])
    return Forecast(
        remaining=remaining,
        on=today + timedelta(days=days_at(mean)),
        earliest=today + timedelta(days=days_at(fast)),
        latest=today + timedelta(days=min(days_at(slow), FARTHEST_DAYS)),
        per_day=mean,
        days=len(recent),
    )
