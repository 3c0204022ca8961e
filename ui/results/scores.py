"""The evaluation as plain data: methods x settings, aims, and the paper's table beside it.

The system as it ships is in `results/evaluation_dev.json` (rows) and `situations_dev.json` (chats
and whatever else is no row of a task), on held-out dev rows; `evaluation.json` has the test rows,
which are asked once, of whatever shipped then.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from .files import Made, Unmeasured, load, made_of, unreadable
from .situations import Situation, situations_in
from .values import Raw, Span, items, number, span_of, spans_of, table, text

SHIPPED, FURTHER, TESTED = "evaluation_dev.json", "situations_dev.json", "evaluation.json"
NOT_MIXING = ("base", "perfect", "selection")
"""Rows that use one adapter or none."""
CONTROLS = ("base", "perfect", "uniform_router", "random_router")
LABELS = {"iid": "IID", "ood": "OOD", "crowded": "crowded"}


@dataclass(frozen=True)
class Task:
    domain: str = ""
    metric: str = ""
    rows: str = ""


@dataclass(frozen=True)
class Cell:
    """A method's score in one setting, and by task."""

    span: Span
    by_task: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """How far `method` is ahead of `rival` over the same rows."""

    method: str
    rival: str
    span: Span
    tasks: Span | None = None
    """The same with the interval over tasks; None where the file does not say."""

    def turned(self) -> "Span | None":
        """How far the rival is ahead, over tasks."""
        if self.tasks is None or self.tasks.low is None or self.tasks.high is None:
            return None
        return Span(-self.tasks.mean, -self.tasks.high, -self.tasks.low)


@dataclass(frozen=True)
class Aim:
    what: str
    aim: str
    measured: str
    reached: bool | None


@dataclass(frozen=True)
class Published:
    """A table of the paper."""

    columns: tuple[str, ...]
    rows: dict[str, tuple[float | None, ...]]
    source: str


@dataclass(frozen=True)
class Evaluation:
    """Everything that the section on answers is drawn from."""

    made: Made
    methods: dict[str, str]
    """In the order of the rows, each with one line on what it is."""
    settings: dict[str, str]
    cells: dict[str, dict[str, Cell]]
    """By setting, then by method."""
    tasks: dict[str, Task] = field(default_factory=dict)
    retrieval: dict[str, dict[str, Span]] = field(default_factory=dict)
    differences: dict[str, tuple[Difference, ...]] = field(default_factory=dict)
    lenient: dict[str, dict[str, Span]] = field(default_factory=dict)
    """By setting, then by method: scored after bullets and trailing text are stripped."""
    later: dict[str, dict[str, Span]] = field(default_factory=dict)
    """By setting, then by method: over the tasks of adapters that the router has never seen."""
    later_tasks: tuple[str, ...] = ()
    aims: tuple[Aim, ...] = ()
    published: Published | None = None
    k: str = ""
    situations: dict[str, Situation] = field(default_factory=dict)
    """Those beyond the rows of one task, by name."""
    further: Made | None = None
    """How the situations were made, where they have a file of their own."""
    retriever: str = ""
    """Checksum of the retriever that found the adapters."""
    tuned_on: tuple[str, ...] | None = None
    """Tasks of these that the retriever was tuned on; None where no file says so."""

    @property
    def tuned(self) -> str:
        """One sentence on that; nothing where no file says so."""
        known, every = len(self.tuned_on or ()), len(self.tasks)
        if self.tuned_on is None:
            return ""
        share = "all" if known == every else f"{known} of"
        return f"The retriever was tuned on other rows of {share} these {every} tasks."

    def scores(self, setting: str) -> dict[str, Span]:
        """The setting's scores, in the order of the rows."""
        cells = self.cells.get(setting, {})
        return {name: cells[name].span for name in self.methods if name in cells}

    def best(self, setting: str) -> str | None:
        """The method that mixes best there."""
        mixing = {n: s.mean for n, s in self.scores(setting).items() if n not in NOT_MIXING}
        return max(mixing, key=mixing.__getitem__) if mixing else None


def evaluation(folder: Path) -> tuple[Evaluation | None, Unmeasured | None]:
    """(what there is to draw, else what is said of the file that is not there or not readable): of
    the system as it ships, else of the test."""
    if not (folder / SHIPPED).is_file():
        return read_evaluation(folder, TESTED)
    found, missing = read_evaluation(folder, SHIPPED)
    raw = load(folder, FURTHER)
    if found is None or isinstance(raw, Unmeasured):
        return found, missing
    return replace(
        found,
        situations=found.situations | situations_in(raw.get("situations")),
        aims=(*found.aims, *_aims(raw.get("aims"))),
        further=made_of(raw, FURTHER),
    ), None


def earlier(folder: Path) -> Evaluation | None:
    """The test of an earlier state, where what ships was measured after it."""
    return read_evaluation(folder, TESTED)[0] if (folder / SHIPPED).is_file() else None


def read_evaluation(folder: Path, name: str) -> tuple[Evaluation | None, Unmeasured | None]:
    """(the evaluation in a file, else what is said in its place)."""
    raw = load(folder, name)
    missing = raw
    if not isinstance(raw, Unmeasured):
        found = evaluation_of(raw, name)
        if found is not None:
            known = found.tuned_on
            return replace(
                found, tuned_on=_tuned_on(folder, found) if known is None else known
            ), None
        missing = unreadable(name)
    assert isinstance(missing, Unmeasured)
    return None, missing


def evaluation_of(raw: Raw, name: str = TESTED) -> Evaluation | None:
    """None where no cell can be read."""
    cells = {}
    for setting, row in table(raw.get("cells")).items():
        read = {name: cell for name, value in table(row).items() if (cell := _cell(value))}
        if read:
            cells[setting] = read
    if not cells:
        return None
    methods = {name: text(words) for name, words in table(raw.get("methods")).items()}
    for row in cells.values():
        methods |= {name: "" for name in row if name not in methods}
    said = {name: text(words) for name, words in table(raw.get("settings")).items()}
    settings = {name: said.get(name, "") for name in dict.fromkeys([*said, *cells])}
    rows, split = text(raw.get("rows_per_task")), text(raw.get("split"))
    after = f" after the first {skipped}" if (skipped := text(raw.get("skipped"))) else ""
    k, tuned = text(raw.get("k")), raw.get("retriever_tuned_on")
    tasks = {name: _task(value) for name, value in table(raw.get("tasks")).items()}
    facts = (
        ("rows", f"{rows} rows a task{after}, {split} split" if rows and split else ""),
        ("tasks", str(len(tasks)) if tasks else ""),
        ("adapters mixed", f"k = {k}" if k else ""),
    )
    return Evaluation(
        made=made_of(raw, name, *facts),
        methods={n: w for n, w in methods.items() if any(n in row for row in cells.values())},
        settings={name: words for name, words in settings.items() if name in cells},
        cells=cells,
        tasks=tasks,
        retrieval=_retrieval(raw.get("retrieval")),
        lenient={n: spans_of(value) for n, value in table(raw.get("lenient")).items()},
        later={n: spans_of(v) for n, v in table(table(raw.get("later")).get("cells")).items()},
        later_tasks=tuple(map(text, items(table(raw.get("later")).get("tasks")))),
        differences={
            name: tuple(_differences(value))
            for name, value in table(raw.get("differences")).items()
        },
        aims=tuple(_aims(raw.get("aims"))),
        published=_published(raw.get("published")),
        k=k,
        situations=situations_in(raw.get("situations")),
        retriever=text(raw.get("retriever_checksum")),
        tuned_on=tuple(map(text, items(tuned))) if isinstance(tuned, list) else None,
    )


def _tuned_on(folder: Path, found: Evaluation) -> tuple[str, ...] | None:
    """As the record of the shipped retriever says, if it is that one; else None."""
    raw = load(folder, "retriever.json")
    shipped = {} if isinstance(raw, Unmeasured) else table(raw.get("shipped"))
    if not found.retriever or text(shipped.get("checksum")) != found.retriever:
        return None
    trained = set(map(text, items(shipped.get("trained_on"))))
    return tuple(name for name in found.tasks if name in trained)


def _cell(raw: object) -> Cell | None:
    span = span_of(raw)
    if span is None:
        return None
    by_task = spans_of(table(raw).get("by_task"))
    return Cell(span, {task: score.mean for task, score in by_task.items()})


def _task(raw: object) -> Task:
    told = table(raw)
    return Task(text(told.get("domain")), text(told.get("metric")), text(told.get("rows")))


def _retrieval(raw: object) -> dict[str, dict[str, Span]]:
    """Without the settings whose right adapters are hidden, where nothing can be found."""
    found = {name: spans_of(value) for name, value in table(raw).items()}
    return {n: spans for n, spans in found.items() if any(s.mean > 0 for s in spans.values())}


def _differences(raw: object) -> Iterator[Difference]:
    for one in map(table, items(raw)):
        span, method, rival = span_of(one), text(one.get("method")), text(one.get("rival"))
        if span and method and rival:
            ends = number(one.get("task_low")), number(one.get("task_high"))
            yield Difference(method, rival, span, None if None in ends else Span(span.mean, *ends))


def _aims(raw: object) -> Iterator[Aim]:
    for one in map(table, items(raw)):
        if what := text(one.get("what")):
            reached = one.get("reached")
            told = text(one.get("aim")), text(one.get("measured"))
            yield Aim(what, *told, reached if isinstance(reached, bool) else None)


def _published(raw: object) -> Published | None:
    told = table(raw)
    columns = tuple(text(name) for name in items(told.get("columns")))
    blank = [None] * len(columns)
    rows = {
        name: tuple(number(value) for value in [*items(values), *blank][: len(columns)])
        for name, values in table(told.get("rows")).items()
    }
    return Published(columns, rows, text(told.get("source"))) if columns and rows else None
