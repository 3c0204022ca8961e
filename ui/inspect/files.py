"""Downloads: tables as csv, and all pictures as one HTML page."""

from collections.abc import Sequence
from pathlib import Path

from ..charts.loads import Side, loads_figure, titles_of
from ..charts.plots import Table
from ..charts.standalone import Drawn, page_of
from ..parts.asked import decoding_words, mixed_words
from ..parts.downloads import fresh_folder
from ..parts.spreadsheet import write_csv
from .cuts import CUTS, Seen
from .layout import AGAINST
from .words import origin


def write_table(name: str, table: Table, *, into: Path | None = None) -> Path:
    """A picture's table as `ramole-NAME.csv`, in a new folder."""
    headers, rows = table
    return write_csv(fresh_folder(into) / f"ramole-{name}.csv", headers, rows)


def write_page(seen: Seen, sides: Sequence[Side] = (), *, into: Path | None = None) -> Path:
    """Every picture on a page of its own; `sides`: with the comparison of two runs."""
    run = seen.run
    named = "; ".join(titles_of([seen.side], plain=True).values())
    facts = [
        ("Run", origin(run)),
        ("Prompt", run.request.prompt),
        ("Method", f"{mixed_words(run.request)}; {decoding_words(run.request)}"),
        ("Adapters", named),
        ("Answer", run.answer.text),
    ]
    drawn = [Drawn(cut.title, cut.look, cut.figure(seen)) for cut in CUTS]
    if sides:
        figure = loads_figure(sides, what=seen.grid.what)
        drawn.append(Drawn("Loads of both runs", AGAINST, figure))
    path = fresh_folder(into) / "ramole-inspect.html"
    path.write_text(page_of("RAMoLE: one answer, taken apart", facts, drawn), "utf-8")
    return path
