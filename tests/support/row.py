"""What a measurement gives, and how much of it is measured."""

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    measured: float
    unit: str
    wanted: str = ""

    def __str__(self) -> str:
        return (
            f"{self.name:<60} {f'{self.measured:,.4g}' if self.measured < 100 else f'{self.measured:,.0f}':>8} "
            + (f"{self.unit:<7} {self.wanted:>10}")
        )


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    added: int
    queued: int
    backlog: int
    samples: int
    idle_seconds: int
    links: int


def latency_rows(name: str, delays: list[float], wanted: str = "") -> list[Row]:
    """Median and 99th percentile of delays in seconds."""
    percentile = statistics.quantiles(delays, n=100)[98]
    return [
        Row(f"{name}, median", 1e3 * statistics.median(delays), "ms", wanted),
        Row(f"{name}, 99 %", 1e3 * percentile, "ms"),
    ]
