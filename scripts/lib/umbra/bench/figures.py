# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures of a benchmark as text: medians with their spread, times and ratios in fitting units."""

import dataclasses
import statistics
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Spread:
    """A median, and between which values the middle half of the samples lies."""
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Spread":
        """Quartiles are interpolated between samples. There must be one sample at least."""
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0])
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, low, high)

    @classmethod
    def of_summary(cls, summary: dict) -> "Spread":
        """Of what umbra_device_bench writes."""
        return cls(summary["median"], summary["lower_quartile"], summary["upper_quartile"])

    @property
    def relative(self) -> float:
        """Half the distance of the quartiles as a share of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


def duration(nanoseconds: float) -> str:
    """Three significant digits, in the unit that fits."""
    for limit, scale, unit in ((1e3, 1, "ns"), (1e6, 1e3, "µs"), (1e9, 1e6, "ms")):
        if nanoseconds < limit * 0.9995:
            return f"{significant(nanoseconds / scale)} {unit}"
    return f"{significant(nanoseconds / 1e9)} s"


def significant(value: float) -> str:
    """Three significant digits; larger numbers whole, with thousands separated."""
    if value == 0:
        return "0"
    magnitude = abs(value)
    digits = 2 if magnitude < 9.995 else 1 if magnitude < 99.95 else 0
    return f"{value:,.{digits}f}"


def times(ratio: float) -> str:
    return f"{significant(ratio)}×"


def with_spread(text: str, spread: Spread) -> str:
    return f"{text} ±{spread.relative * 100:.0f}%"


def timed(spread: Spread | None) -> str:
    return "-" if spread is None else with_spread(duration(spread.median), spread)


def ratio(spread: Spread | None) -> str:
    return "-" if spread is None else with_spread(times(spread.median), spread)
