"""Step 10: scores by method and their differences, from `results/*.json`, and as a picture."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramole_core import shipped

from ..charts.palette import INKS, NOBODY
from .frames import figure, table

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


NOT_YET = "<p>Not measured yet; the tab Results says which command does it.</p>"
OURS = "ramole_plus"
LEVEL = (
    " Mixing can score a little higher where an adapter fits, but there "
    f"<code>{OURS}</code> and <code>perfect</code> cannot be told apart."
)
"""Of mixing and `perfect`, where that is what was measured."""
MEANS = (
    "Mean score, 0 to 100, with its interval as a line. <code>perfect</code> has the right adapter "
    "in both columns."
)
AHEAD = (
    f"How many points <code>{OURS}</code> is ahead of each rival on the same prompts, with the "
    "interval of drawing the tasks again. “Cannot be told apart” means just that: these tasks do "
    "not show that one of the two is better."
)


def scores_html(folder: Path | None = None) -> str:
    """Every method when an adapter fits, and when it is hidden; then the differences in words."""
    fits, hidden = scores(FITS, folder), scores(HIDDEN, folder)
    if not fits or not hidden:
        return NOT_YET
    rows = [
        (
            f'<code>{name}</code><span class="below">{METHODS[name]}</span>',
            _cell(fits.get(name), name),
            _cell(hidden.get(name), name),
        )
        for name in METHODS
        if name in fits or name in hidden
    ]
    ahead = differences(FITS, folder).get("perfect")
    level = LEVEL if ahead and ahead.mean > 0 >= ahead.low else ""
    compared = [
        (f"<code>{name}</code>", _said(ours), _said(others))
        for name, ours, others in verdicts(folder)
    ]
    return (
        figure(table("Scores", ("method", "an adapter fits", "it is hidden"), rows), MEANS + level)
        + f"<h3>Is <code>{OURS}</code>, the page's own choice, better?</h3>"
        + figure(
            table("Differences", ("rival", "an adapter fits", "it is hidden"), compared), AHEAD
        )
        + crowd_html(folder)
        + gate_html(folder)
    )


def verdicts(folder: Path | None = None) -> list[tuple[str, Measured | None, Measured | None]]:
    """Each rival with the difference in both settings."""
    fits, hidden = differences(FITS, folder), differences(HIDDEN, folder)
    return [(name, fits.get(name), hidden.get(name)) for name in RIVALS]


def crowd_html(folder: Path | None = None) -> str:
    """How the page's own choice does among adapters that mislead, in a sentence; empty where
    unmeasured."""
    found, ahead = scores(CROWDED, folder), differences(CROWDED, folder).get("similarity")
    if ahead is None or not {OURS, "similarity"} <= found.keys():
        return ""
    return (
        "<p>A third time 100 adapters stood beside the pool: spoilt copies, which show the same "
        f"examples, and some with random weights. Then <code>similarity</code> has "
        f"{found['similarity'].said()} and <code>{OURS}</code>, which also asks how adapters "
        f"respond, {found[OURS].said()}: {ahead.said(signed=True)}, {ahead.verdict}.</p>"
    )


def gate_html(folder: Path | None = None) -> str:
    """How the trained gate does against equal weights, in a sentence; empty where unmeasured."""
    both = [differences(setting, folder, of="ramole").get("mixture") for setting in (FITS, HIDDEN)]
    if None in both:
        return ""
    fits, hidden = (f"{one.said(signed=True)}, {one.verdict}" for one in both if one)
    return (
        "<p>And the trained gate of step 5? <code>ramole</code> against <code>mixture</code>, equal"
        f" weights: {fits}, when an adapter fits; {hidden}, when it is hidden.</p>"
    )


def _said(found: Measured | None) -> str:
    if found is None:
        return "not measured"
    kind = {"better": "well", "worse": "ill"}.get(found.verdict, "open")
    return f'{found.said(signed=True)} <span class="word {kind}">{found.verdict}</span>'


def _cell(found: Measured | None, name: str) -> str:
    if found is None:
        return "not measured"
    colour = INKS[4].colour if name == OURS else NOBODY.colour
    wide = found.high - found.low
    return (
        f'{found.said()}<span class="whisker" aria-hidden="true">'
        f'<i style="left:{found.low:.1f}%;width:{wide:.1f}%;background:{colour}"></i>'
        f'<b style="left:{found.mean:.1f}%;background:{colour}"></b></span>'
    )
