"""Step 10 as a picture: mean scores with their intervals, and what can be said of the differences."""

from pathlib import Path

from ..charts.palette import INKS, NOBODY
from .frames import figure, table
from .measured import FITS, HIDDEN, METHODS, RIVALS, Measured, differences, scores

NOT_YET = (
    "<p>Not measured yet: results/evaluation_dev.json is missing. Results says what makes it.</p>"
)
OURS = "ramole_plus"


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
    drawn = table("Scores", ("method", "an adapter fits", "it is hidden"), rows)
    return figure(
        drawn,
        "Mean score, 0 to 100, with its interval as a line. <code>perfect</code> is never hidden "
        "from: it is what could be had if the right adapter were always there and always found.",
    ) + _told(folder)


def verdicts(folder: Path | None = None) -> list[tuple[str, Measured | None, Measured | None]]:
    """Each rival with the difference in both settings."""
    fits, hidden = differences(FITS, folder), differences(HIDDEN, folder)
    return [(name, fits.get(name), hidden.get(name)) for name in RIVALS]


def _told(folder: Path | None) -> str:
    rows = [
        (f"<code>{name}</code>", _said(fits), _said(hidden))
        for name, fits, hidden in verdicts(folder)
    ]
    heads = ("rival", "an adapter fits", "it is hidden")
    gate = differences(HIDDEN, folder, of="ramole").get("mixture")
    honest = ""
    if gate is not None:
        honest = (
            "<p>The gate of step 5, <code>ramole</code>, against <code>mixture</code> when the adapter "
            f"is hidden: {gate.said(signed=True)} points, so it is {gate.verdict}. On this small base "
            "the trained gate is instructive, but not the best choice.</p>"
            if gate.verdict != "better"
            else "<p>When the adapter is hidden, the gate of step 5 beats <code>mixture</code> by "
            f"{gate.said(signed=True)} points.</p>"
        )
    return (
        "<h3>Is the page's own method better?</h3>"
        + figure(
            table("Differences", heads, rows),
            f"How many points <code>{OURS}</code> is ahead of each rival on the same prompts, with the "
            "interval. “Cannot be told apart” means what it says: that many prompts do not show that "
            "one of the two is better.",
        )
        + honest
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
    return (
        f'{found.said()}<span class="whisker" aria-hidden="true">'
        f'<i style="left:{found.low:.1f}%;width:{found.high - found.low:.1f}%;background:{colour}"></i>'
        f'<b style="left:{found.mean:.1f}%;background:{colour}"></b></span>'
    )
