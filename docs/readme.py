"""The generated parts of README and of the pages in docs/, each between its marks.

`make readme` writes them; a test fails where a page and the code or results disagree.
"""

import sys
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from docs import code_tables, method_pages, part_tables, score_tables, speed_tables  # noqa: E402

BEGIN, END = "<!-- {name}: written by `make readme` -->", "<!-- end of {name} -->"


def results() -> Path:
    """The folder of measured JSON files."""
    return REPOSITORY / "results"


def measured() -> str:
    """The evaluation on the test rows, and again as shipped; or the command that makes it."""
    return score_tables.measured(results())


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {
        "rooms": lambda: code_tables.rooms(REPOSITORY),
        "results": lambda: "\n\n".join(
            [score_tables.short(results()), speed_tables.sentence(results())]
        ),
    },
    "docs/api.md": {"commands": code_tables.commands},
    "docs/hosting.md": {"bases": code_tables.bases},
    "docs/methods.md": {
        "methods": code_tables.methods,
        "equations": lambda: method_pages.equations(results()),
        "serving": lambda: method_pages.serving(results()),
    },
    "docs/results.md": {
        "measured": measured,
        "retrieved": lambda: score_tables.retrieved(results()),
        "adapters": lambda: part_tables.adapters(results()),
        "pieces": lambda: part_tables.pieces(results()),
        "router": lambda: part_tables.router(results()),
        "gates": lambda: part_tables.gates(results()),
        "speed": lambda: speed_tables.speed(results()),
        "budget": lambda: speed_tables.budget(results()),
    },
    "docs/settings.md": {"settings": lambda: code_tables.settings(REPOSITORY)},
    "docs/tree.md": {"tree": lambda: code_tables.tree(REPOSITORY)},
}
"""By page: each generated part with the function that makes it."""


def generated(page: str, text: str) -> str:
    """A page's text with each of its parts made anew; raises ValueError for a missing mark."""
    for name, make in PAGES[page].items():
        begin, end = BEGIN.format(name=name), END.format(name=name)
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"{page} lacks the marks {begin} ... {end}; put them back.")
        text = f"{before}{begin}\n{make()}\n{end}{after}"
    return text


if __name__ == "__main__":
    for page in PAGES:
        path = REPOSITORY / page
        path.write_text(generated(page, path.read_text(encoding="utf-8")), encoding="utf-8")
