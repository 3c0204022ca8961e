"""The generated parts of README and of the pages in docs/, each between its marks.

`make readme` writes them; a test fails where a page and the code or results disagree.
"""

import sys
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from docs import code_tables, method_pages, visit_tables  # noqa: E402
from ui.results import adapters, answers, retrieval, router, scores, speed  # noqa: E402
from ui.results.markdown import markdown  # noqa: E402
from ui.results.short import own_words  # noqa: E402

BEGIN, END = "<!-- {name}: written by `make readme` -->", "<!-- end of {name} -->"

RESULTS = "docs/results.md"
PEERS = "python -m ramole_core benchmark --peers"
ASKED = {
    "dev": "Dev rows, looked at while the system was made.",
    "test2": "Test rows, asked once, of the system as it ships.",
}
"""By split of the rows."""
RIVALS = ("similarity",)


def results() -> Path:
    """The folder of measured JSON files."""
    return REPOSITORY / "results"


def short() -> str:
    """The main table for README, of the system that ships where that was measured."""
    found = scores.evaluation(results())
    if not isinstance(found, scores.Evaluation):
        return markdown([found])
    facts = found.made.facts
    table = markdown(answers.main(found, brief=True))
    told = ASKED.get(facts.get("split", ""), "")
    made = f"Measured {facts['date']}: {facts['tasks']} tasks, {facts['rows per task']} rows each, "
    made += f"{facts['quantization'].partition(',')[0]}; the command is in [Results]({RESULTS})."
    return f"{told}\n\n{table}\n\n{found.by_tasks(*RIVALS)} {made}".strip()


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {
        "rooms": lambda: code_tables.rooms(REPOSITORY),
        "results": lambda: f"{short()}\n\n{speed.rates(results())} (`{PEERS}`)",
    },
    "docs/api.md": {"commands": code_tables.commands},
    "docs/hosting.md": {"bases": code_tables.bases, "routes": code_tables.routes},
    "docs/methods.md": {
        "methods": code_tables.methods,
        "equations": lambda: method_pages.equations(results()),
        "serving": lambda: method_pages.serving(results()),
    },
    "docs/results.md": {
        "measured": lambda: markdown(answers.blocks(results(), brief=True)),
        "words": lambda: " ".join(own_words(results())),
        "retrieved": lambda: markdown(retrieval.blocks(results())),
        "adapters": lambda: markdown(adapters.ADAPTERS.blocks(results())),
        "pieces": lambda: markdown(router.blocks(results(), router.PIECES)),
        "router": lambda: markdown(router.blocks(results(), router.CLAIM)),
        "speed": lambda: markdown(speed.blocks(results())),
        "budget": lambda: markdown(speed.costs_blocks(results())),
    },
    "docs/settings.md": {"settings": lambda: code_tables.settings(REPOSITORY)},
    "docs/visits.md": {"visits": lambda: visit_tables.visits(results())},
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
