"""Step 8 as a picture: recorded answers as the rows of a batch, a column a step."""

from ..charts.palette import chip_html, ink_of, letter_of, places_of
from ..parts.markup import escaped
from .facts import legible, word
from .frames import box, figure, table
from .kept import alone

STEPS = 24
"""Columns."""


def batch_html() -> str:
    """Each row a request, each cell a token under its leading adapter's letter and colour."""
    met: list[str] = []
    rows, told = [], []
    for run in alone():
        places = places_of(run.experts, met)
        met += run.experts
        cells = []
        for piece, leader in list(zip(run.pieces, run.leaders, strict=True))[:STEPS]:
            place = places[leader] if leader >= 0 else -1
            ink = ink_of(place)
            nobody = "no adapter needed" if run.experts else "the base alone"
            name = run.experts[leader] if leader >= 0 else nobody
            cells.append(
                f'<td style="background:{ink.colour};color:{ink.text}" '
                f'title="{escaped(f"{legible(piece)}: {name}")}">'
                f"{letter_of(place) if place >= 0 else ''}"
                f'<span class="sr"> {escaped(legible(piece))}</span></td>'
            )
        told.append((escaped(run.title), " ".join(map(word, run.pieces[:STEPS]))))
        cells += ["<td></td>"] * (STEPS - len(cells))
        names = " ".join(
            f'<span class="named">{chip_html(place)} {escaped(name)}</span>'
            for place, name in zip(places, run.experts, strict=True)
        )
        rows.append(
            f'<tr><th scope="row">{escaped(run.title)}<br>{names}</th>{"".join(cells)}</tr>'
        )
    heads = "".join(f'<th scope="col">{n}</th>' for n in range(1, STEPS + 1))
    drawn = (
        '<table class="batch"><thead><tr><th scope="col">request, and its adapters</th>'
        f"{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    return figure(
        box("A batch, step by step", drawn),
        f"The first {STEPS} steps of {len(rows)} recorded answers, drawn as if they shared a "
        "batch. A column is one step: every row that still runs gets one token. The letter is the "
        "adapter that made it likelier; letters and colours are given out anew here. Grey without "
        "a letter: no adapter needed, or answers alone. An empty cell: the answer has "
        "ended, and its place is free. All were made with <code>ramole_plus</code>, so the answer "
        "to step 2's prompt differs from step 6's.",
        twin=table("The tokens of each row", ("request", "its tokens, in order"), told),
    )
