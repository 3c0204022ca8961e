"""Numbers, words, tables and intervals out of JSON; whatever else stands there is nothing."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Raw = dict[str, Any]


@dataclass(frozen=True)
class Span:
    """A number and the interval around it, where it has one."""

    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def sure(self) -> bool:
        """Whether the interval is there and leaves zero out."""
        return self.low is not None and self.high is not None and self.low * self.high > 0


def number(raw: object) -> float | None:
    """A finite number, or None."""
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    return float(raw) if math.isfinite(raw) else None


def text(raw: object) -> str:
    """A string as it is, a number in words, nothing for anything else."""
    if isinstance(raw, str):
        return raw
    return f"{raw:g}" if number(raw) is not None else ""


def table(raw: object) -> Raw:
    """The object with its keys as strings, or an empty one."""
    return {str(key): value for key, value in raw.items()} if isinstance(raw, Mapping) else {}


def items(raw: object) -> list[Any]:
    """The list, or an empty one."""
    return list(raw) if isinstance(raw, list | tuple) else []


def span_of(raw: object) -> Span | None:
    """From a plain number, `{mean, low, high}`, `{mean, interval: [low, high]}` or
    `{median, min, max}`."""
    if not isinstance(raw, Mapping):
        mean = number(raw)
        return None if mean is None else Span(mean)
    mean = number(raw.get("mean", raw.get("median")))
    if mean is None:
        return None
    both = items(raw.get("interval"))
    low, high = both if len(both) == 2 else (None, None)
    low = number(raw.get("low", raw.get("min", low)))
    high = number(raw.get("high", raw.get("max", high)))
    return Span(mean, low, high) if low is not None and high is not None else Span(mean)


def spans_of(raw: object) -> dict[str, Span]:
    """Every entry that is a span."""
    found = {key: span_of(value) for key, value in table(raw).items()}
    return {key: span for key, span in found.items() if span is not None}
