"""Measurements of `results/*.json`: scores by method, and their differences."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramole_core import shipped

RESULTS = shipped("results")
SCORES = ("test2.json", "evaluation_dev.json")
"""Test rows of what ships, else dev rows."""
FITS, HIDDEN, CROWDED = "iid", "ood", "crowded"
"""The settings: an adapter fits, it is hidden, and a hundred that mislead are beside the pool."""
METHODS = {
    "base": "no adapter at all",
    "selection": "the nearest adapter alone, with weight 1",
    "mixture": "the nearest three, each with weight 1/3",
    "similarity": "the nearest three, weighted by similarity",
    "ramole": "the nearest three, weighted by the gate of step 5",
    "ramole_plus": "similarity and responses; used unless you choose another",
    "moe": "all adapters, weighted by a gate that was trained over them",
    "perfect": "the right adapter alone, told from outside",
}
RIVALS = ("base", "selection", "mixture", "similarity", "ramole", "moe", "perfect")
"""What `ramole_plus` is compared with."""


@dataclass(frozen=True)
class Measured:
    """A mean and its interval."""

    mean: float
    low: float
    high: float

    def said(self, digits: int = 1, *, signed: bool = False) -> str:
        """`56.8 [49.9, 63.6]`."""
        sign = "+" if signed else ""
        mean, low, high = (f"{n:{sign}.{digits}f}" for n in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}]".replace("-", "−")

    @property
    def verdict(self) -> str:
        """The verdict on a difference: the side of 0 where its interval lies."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "cannot be told apart"


def read(name: str, folder: Path | None = None) -> dict[str, Any]:
    """The object in a file of results; empty where it is missing or broken."""
    try:
        raw = json.loads(((folder or RESULTS) / name).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return raw if isinstance(raw, dict) else {}


def measured(raw: dict[str, Any]) -> Measured:
    """From `{mean, low, high}`."""
    return Measured(float(raw["mean"]), float(raw["low"]), float(raw["high"]))


def evaluation(folder: Path | None = None) -> dict[str, Any]:
    """The object in the first file of SCORES that can be read."""
    return next((raw for name in SCORES if (raw := read(name, folder))), {})


def scores(setting: str, folder: Path | None = None) -> dict[str, Measured]:
    """Each method's mean score there, in the order of METHODS."""
    cells = evaluation(folder).get("cells", {}).get(setting, {})
    return {name: measured(cells[name]) for name in METHODS if name in cells}


def differences(
    setting: str, folder: Path | None = None, *, of: str = "ramole_plus"
) -> dict[str, Measured]:
    """The method's lead over each rival on the same prompts, with the interval over tasks."""
    rows = evaluation(folder).get("differences", {}).get(setting, [])
    found = {
        row["rival"]: Measured(float(row["mean"]), float(row["task_low"]), float(row["task_high"]))
        for row in rows
        if row["method"] == of
    }
    return {name: found[name] for name in RIVALS if name in found}
