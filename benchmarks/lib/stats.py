"""Means over seeds with their intervals: Student's t, its test of equivalence, and the bootstrap.

Differences between methods are taken seed by seed before they come here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds and half of its 95 % interval (None from one seed)."""

    mean: float
    half: float | None

    def __str__(self) -> str:
        if self.half is None:
            return digits(self.mean)
        return self.text(min(4, max(0, 1 - math.floor(math.log10(self.half))) if self.half else 2))

    def text(self, places: int, *, sign: str = "") -> str:
        """Mean and half width with so many decimals; `sign` "+" writes the mean's sign."""
        mean = f"{self.mean:{sign}.{places}f}"
        return mean if self.half is None else f"{mean} ± {self.half:.{places}f}"

    def clear(self) -> bool:
        """Whether the interval does not hold 0."""
        return self.half is not None and abs(self.mean) > self.half

    def bold(self, text: str) -> str:
        """The text, bold where the interval does not hold 0."""
        return f"**{text}**" if self.clear() else text


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, min(4, 2 - math.floor(math.log10(abs(value)))))}f}"


def t_975(freedom: int) -> float:
    """The quantile of Student's t that holds 95 % between minus and plus itself."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values))


def estimate(values: Iterable[float], *, least: int = 2) -> Estimate | None:
    """Mean and interval by Student's t, from `least` values on; None of no values."""
    values = list(values)
    if len(values) < least:
        return Estimate(statistics.fmean(values), None) if values else None
    # The committed tables were made with the three decimals of a printed table of t.
    return Estimate(statistics.fmean(values), round(t_975(len(values) - 1), 3) * standard_error(values))


def difference(one: Mapping[Any, float], other: Mapping[Any, float]) -> list[float]:
    """One less the other, seed by seed, over the seeds that both have."""
    return [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]


def equivalence(differences: Sequence[float], margin: float) -> float:
    """The p-value of two one-sided t tests: that the mean difference is not within plus or minus the margin."""
    from scipy.special import stdtr

    inside, spread = margin - abs(statistics.fmean(differences)), standard_error(differences)
    return float(stdtr(len(differences) - 1, -inside / spread)) if spread > 0 else float(inside <= 0)


def bootstrap(values: Any, *, resamples: int = 4000) -> dict[str, float]:
    """The mean of independent draws, and the middle 95 % of the means of their resamples."""
    import numpy as np

    drawn = np.asarray(values, dtype=np.float64)
    random = np.random.default_rng(0)
    means = drawn[random.integers(len(drawn), size=(resamples, len(drawn)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(drawn.mean()), "low": float(low), "high": float(high)}
