"""The file of an evaluation: facts, what was asked, and tables; and the same on a terminal."""

import json
from collections.abc import Mapping, Sequence

from lab.evaluation.cells import Cells
from lab.evaluation.compare import PUBLISHED, make_tables, table_of
from lab.evaluation.evaluate import Rows
from lab.evaluation.questions import Situation
from lab.evaluation.situation_run import read_pace
from lab.evaluation.situation_tables import make_situation_table, show_situation
from lab.evaluation.situations import SITUATIONS
from lab.evaluation.systems import describe
from ramole_core.settings import load_settings


def make_report(
    cells: Cells,
    tasks: Sequence[Rows],
    *,
    systems: Sequence[str],
    places: Sequence[str],
    further: Sequence[Situation],
    hours: Mapping[str, float],
    facts: dict[str, object],
) -> dict:
    """Everything that the file holds; `places` are the row situations, `further` the others, and
    `hours` what each of these takes from the start."""
    tables = make_tables(
        cells,
        tasks=tasks,
        systems=systems,
        situations=places,
        trained_on=_trained_on("_router/router_config.json"),
    )
    others = {one.name: make_situation_table(one, cells, systems=systems) for one in further}
    tuned = set(_trained_on("_retriever/retriever.json"))
    return facts | {
        "rows_per_task": facts["rows"],
        "tasks": {
            t.task: {"domain": t.domain, "metric": t.metric, "rows": len(t.rows)} for t in tasks
        },
        "retriever_tuned_on": [t.task for t in tasks if t.task in tuned],
        "methods": {name: describe(name) for name in systems},
        "settings": {name: SITUATIONS[name] for name in places},
        **tables,
        "situations": others,
        "seconds": read_pace(further, cells, systems=systems).table(),
        "hours": {name: round(value, 3) for name, value in hours.items()},
        "published": PUBLISHED,
    }


def show_report(report: dict) -> None:
    """Print the scores as tables."""
    from rich.console import Console

    console = Console()
    if report["settings"]:
        console.print(table_of(report))
    for name, table in report["situations"].items():
        console.print(show_situation(name, table))
    for situation, row in report["seconds"].items():
        spent = ", ".join(f"{system} {seconds:.2f}" for system, seconds in row.items())
        console.print(f"{situation}, seconds a question: {spent}")
    if hours := report["hours"]:
        each = ", ".join(f"{name} {value:.2f}" for name, value in hours.items())
        print(f"Hours for whole situations at this pace: {each}; {sum(hours.values()):.1f} in all.")


def _trained_on(record: str) -> list[str]:
    """The tasks that trained weights have seen, as their own record says."""
    file = load_settings().adapters_dir / record
    if not file.is_file():
        return []
    groups = json.loads(file.read_text(encoding="utf-8")).get("trained_on", ())
    return [name for group in groups for name in str(group).split("+")]
