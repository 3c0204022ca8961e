"""One colour and one letter for each expert, for readers who cannot tell the colours apart.

Okabe-Ito's eight colours, which colour-blind eyes tell apart; black is left to the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ink:
    """The colour of one expert, and of text upon it."""

    colour: str
    text: str


INKS = (
    Ink("#E69F00", "#000000"),  # orange
    Ink("#56B4E9", "#000000"),  # sky blue
    Ink("#009E73", "#000000"),  # bluish green
    Ink("#CC79A7", "#000000"),  # reddish purple
    Ink("#0072B2", "#ffffff"),  # blue
    Ink("#D55E00", "#000000"),  # vermillion
    Ink("#F0E442", "#000000"),  # yellow
)
NOBODY = Ink("#8a8a8a", "#000000")
"""Colours where no expert stands out."""
BASE, MIXTURE = "#8a8a8a", "#0072B2"
"""The two sides of base against mixture."""


def places_of(names: Sequence[str], before: Sequence[str] = ()) -> list[int]:
    """The number of each adapter, from which letter and colour follow: in a conversation those that
    were met `before` (in that order, each once or more) keep theirs, and new ones come behind."""
    met = list(dict.fromkeys([*before, *names]))
    return [met.index(name) for name in names]


def ink_of(expert: int) -> Ink:
    """The expert's ink; past seven they come round again, and the letter tells them apart."""
    return NOBODY if expert < 0 else INKS[expert % len(INKS)]


def letter_of(expert: int) -> str:
    """A, B, ... Z, then A2, B2, ..."""
    turn, place = divmod(expert, 26)
    return chr(ord("A") + place) + (str(turn + 1) if turn else "")


def chip_html(expert: int) -> str:
    """The expert's letter on its colour."""
    ink = ink_of(expert)
    style = f"background:{ink.colour};color:{ink.text}"
    return f'<span class="chip" style="{style}">{letter_of(expert)}</span>'


def entry_of(name: str, expert: int) -> dict[str, str]:
    """The expert's line of a legend, for a script."""
    ink = ink_of(expert)
    return {"letter": letter_of(expert), "name": name, "colour": ink.colour, "ink": ink.text}


BELOW = "rgba(70,70,70,1)"
"""The most negative weight."""


def scale_of(expert: int, *, low: float = 0.0, high: float = 1.0) -> list[list[float | str]]:
    """A plotly colour scale from nothing at 0 to the expert's colour at `high`; below 0, down to
    `low`, it turns grey."""
    colour = ink_of(expert).colour
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    nothing, all_of_it = f"rgba({red},{green},{blue},0.04)", f"rgba({red},{green},{blue},1)"
    if low >= 0:
        return [[0.0, nothing], [1.0, all_of_it]]
    return [[0.0, BELOW], [-low / (high - low), nothing], [1.0, all_of_it]]
