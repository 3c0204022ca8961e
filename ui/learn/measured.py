"""Step 10: scores by method and their differences, as the tab Results reads them."""

from pathlib import Path

from ..charts.palette import INKS, NOBODY
from ..results.files import RESULTS
from ..results.scores import Evaluation, evaluation
from ..results.tables import Column, spoken
from ..results.values import Span
from .frames import figure, table

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


SCORE, GAP = Column(""), Column("", signed=True)
VERDICTS = ("better", "worse", "cannot be told apart")
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


def scores_html(folder: Path = RESULTS) -> str:
    """Every method when an adapter fits, and when it is hidden; then the differences in words."""
    found = evaluation(folder)
    if not isinstance(found, Evaluation) or not {FITS, HIDDEN} <= found.cells.keys():
        return NOT_YET
    settings = FITS, HIDDEN
    rows = [
        (
            f'<code>{name}</code><span class="below">{words}</span>',
            *(_cell(found.cells[setting].get(name), name) for setting in settings),
        )
        for name, words in METHODS.items()
        if any(name in found.cells[setting] for setting in settings)
    ]
    fits, hidden = (found.ahead(setting) for setting in settings)
    perfect = fits.get("perfect")
    level = LEVEL if perfect and perfect.mean > 0 >= perfect.ends[0] else ""
    compared = [
        (f"<code>{name}</code>", _judged(fits.get(name)), _judged(hidden.get(name)))
        for name in RIVALS
    ]
    return (
        figure(table("Scores", ("method", "an adapter fits", "it is hidden"), rows), MEANS + level)
        + f"<h3>Is <code>{OURS}</code>, the page's own choice, better?</h3>"
        + figure(
            table("Differences", ("rival", "an adapter fits", "it is hidden"), compared), AHEAD
        )
        + _crowd_html(found)
        + _gate_html(found)
    )


def _crowd_html(found: Evaluation) -> str:
    """How the page's own choice does among adapters that mislead, in a sentence; empty where
    unmeasured."""
    cells, ahead = found.cells.get(CROWDED, {}), found.ahead(CROWDED).get("similarity")
    if ahead is None or not {OURS, "similarity"} <= cells.keys():
        return ""
    return (
        "<p>A third time 100 adapters stood beside the pool: spoilt copies, which show the same "
        f"examples, and some with random weights. Then <code>similarity</code> has "
        f"{said(cells['similarity'])} and <code>{OURS}</code>, which also asks how adapters "
        f"respond, {said(cells[OURS])}: {said(ahead, GAP)}, {ahead.judged(*VERDICTS)}.</p>"
    )


def _gate_html(found: Evaluation) -> str:
    """How the trained gate does against equal weights, in a sentence; empty where unmeasured."""
    both = [found.ahead(setting, of="ramole").get("mixture") for setting in (FITS, HIDDEN)]
    if None in both:
        return ""
    fits, hidden = (f"{said(one, GAP)}, {one.judged(*VERDICTS)}" for one in both if one)
    return (
        "<p>And the trained gate of step 5? <code>ramole</code> against <code>mixture</code>, equal"
        f" weights: {fits}, when an adapter fits; {hidden}, when it is hidden.</p>"
    )


def said(span: Span, column: Column = SCORE) -> str:
    """`56.8 [49.9, 63.6]`."""
    return " ".join(filter(None, spoken(span, column)))


def _judged(found: Span | None) -> str:
    if found is None:
        return "not measured"
    verdict = found.judged(*VERDICTS)
    kind = {"better": "well", "worse": "ill"}.get(verdict, "open")
    return f'{said(found, GAP)} <span class="word {kind}">{verdict}</span>'


def _cell(found: Span | None, name: str) -> str:
    if found is None:
        return "not measured"
    colour = INKS[4].colour if name == OURS else NOBODY.colour
    low, high = found.ends
    return (
        f'{said(found)}<span class="whisker" aria-hidden="true">'
        f'<i style="left:{low:.1f}%;width:{high - low:.1f}%;background:{colour}"></i>'
        f'<b style="left:{found.mean:.1f}%;background:{colour}"></b></span>'
    )
