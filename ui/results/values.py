"""Read numbers, texts, objects and intervals from JSON; anything else counts as missing."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

Raw = dict[str, Any]
ENDS = (("low", "high"), ("min", "max"), ("least", "most"))


@dataclass(frozen=True)
class Span:
    """A number and the interval around it, where it has one."""

    mean: float
    low: float | None = None
    high: float | None = None
    best: bool = False
    """Whether it is the best of those that it stands among."""

    @property
    def ends(self) -> tuple[float, float]:
        """The interval; twice the mean where there is none."""
        if self.low is None or self.high is None:
            return self.mean, self.mean
        return self.low, self.high

    def judged(self, above: str, below: str, level: str = "no clear difference") -> str:
        """The interval's verdict on a difference: `above` zero, `below` it, or nothing sure."""
        low, high = self.ends
        if self.low is None:
            return "interval not measured"
        if low * high <= 0:
            return level
        return above if self.mean > 0 else below


def number(raw: object) -> float | None:
    """A finite number, or None."""
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    return float(raw) if math.isfinite(raw) else None


def text(raw: object) -> str:
    """A string as it is, a number or yes or no in words, a list's with commas, else nothing."""
    if isinstance(raw, bool):
        return "yes" if raw else "no"
    if isinstance(raw, list):
        return ", ".join(text(one) for one in raw if not isinstance(one, list))
    if isinstance(raw, str | int):
        return str(raw)
    return f"{raw:g}" if number(raw) is not None else ""


def at(raw: object, *keys: str) -> Raw:
    """The object below these keys, its own keys as strings, or an empty one."""
    for key in keys:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
    return {str(key): value for key, value in raw.items()} if isinstance(raw, Mapping) else {}


def items(raw: object) -> list[Any]:
    """The list, or an empty one."""
    return raw if isinstance(raw, list) else []


def span_of(raw: object) -> Span | None:
    """From a plain number, or `mean` or `median` with ENDS or `interval`."""
    if not isinstance(raw, Mapping):
        mean = number(raw)
        return None if mean is None else Span(mean)
    mean = number(raw.get("mean", raw.get("median")))
    if mean is None:
        return None
    pairs = [*([raw.get(end) for end in ends] for ends in ENDS), items(raw.get("interval"))]
    for low, high in ([number(end) for end in pair] for pair in pairs if len(pair) == 2):
        if low is not None and high is not None:
            return Span(mean, low, high)
    return Span(mean)


def range_of(raw: object) -> Span | None:
    """The median of a list, with its smallest and largest."""
    values = [value for value in map(number, items(raw)) if value is not None]
    return Span(median(values), min(values), max(values)) if values else None


def spans_of(raw: object) -> dict[str, Span]:
    """Every entry that is a span."""
    found = {key: span_of(value) for key, value in at(raw).items()}
    return {key: span for key, span in found.items() if span is not None}
