"""What each method's file says of itself, under the same headings for all.

A file's docstring begins with the idea, one sentence, then has the equation and how it is read, and
ends with paragraphs that begin with `Trained:`, `Cost:` and `Claimed:`. The scores come from
results/methods_dev.json, else evaluation_dev.json; the rates from method_speed.json; the same
comparison as a paper's from papers.json.
"""

from collections.abc import Iterator, Mapping
from inspect import cleandoc, getmodule
from pathlib import Path

from ramole_core.composition import METHODS
from ramole_core.methods import METHOD_LIST, Method
from ui.results.files import read
from ui.results.markdown import markdown, written
from ui.results.methods import FILE, SCORES
from ui.results.scores import Evaluation, evaluation, read_evaluation
from ui.results.situations import claims_of
from ui.results.speed import served
from ui.results.values import Raw, at, span_of, text

HEADS = ("Trained", "Cost", "Claimed")
"""Paragraphs at the end of a method's docstring."""
PAPERS = {"iid": "IID", "ood": "OOD"}
"""Settings as the papers that a page cites name them."""


def home_of(method: str) -> str:
    """The file that holds a method's equation."""
    return type(METHODS[method]).__module__.replace(".", "/") + ".py"


def equations(results: Path) -> str:
    """A section a file, in the order of every list."""
    files: dict[str, list[Method]] = {}
    for row in METHOD_LIST:
        files.setdefault(home_of(row.name), []).append(row)
    found = read_evaluation(results, SCORES)
    found = found if isinstance(found, Evaluation) else evaluation(results)
    rates = at(read(results, FILE), "methods")
    return "\n\n".join(
        "\n\n".join(_section(rows, found, rates, results)) for rows in files.values()
    )


def serving(results: Path) -> str:
    """The S-LoRA workload's figures, a row a number of adapters."""
    found = served(read(results, "speed.json"))
    return markdown(found) or "Not measured yet."


def _section(rows: list[Method], found: object, rates: Raw, results: Path) -> Iterator[str]:
    words = getattr(getmodule(type(METHODS[rows[0].name])), "__doc__", None) or ""
    idea, equation, told = read_words(cleandoc(words))
    yield f"### {', '.join(f'`{row.name}`' for row in rows)}"
    yield f"**Idea.** {idea}"
    if equation:
        yield f"**Equation.**\n\n```text\n{equation}\n```"
    yield f"**What is trained.** {told['Trained']}"
    options = [words for row in rows if (words := _options(row, alone=len(rows) == 1))]
    yield "\n\n".join(options) if options else "**Options.** None."
    yield f"**Cost.** {told['Cost']}"
    yield f"**Paper.** {'; '.join(dict.fromkeys(row.paper for row in rows))}."
    yield f"**Our numbers.** {'; '.join(_numbers(row, found, rates) for row in rows)}."
    yield f"**Claimed.** {told['Claimed']}"
    if claims := [line for row in rows for line in claims_of(row.name, results)]:
        yield "**Found here.**\n\n" + "\n".join(f"- {line}" for line in claims)


def read_words(text: str) -> tuple[str, str, Mapping[str, str]]:
    """(idea, equation, the last paragraphs by head) of a docstring; raises ValueError where a
    paragraph is missing."""
    first, _, rest = text.partition("\n\n")
    idea, equation = " ".join(first.split()), []
    told: dict[str, str] = {}
    for paragraph in rest.split("\n\n"):
        head, colon, words = paragraph.partition(": ")
        if colon and head in HEADS:
            plain = " ".join(words.split())
            told[head] = plain if plain[1:2] == " " else plain[:1].upper() + plain[1:]
        else:
            equation.append(paragraph)
    if missing := [head for head in HEADS if head not in told]:
        raise ValueError(f"{idea!r} says nothing under {', '.join(missing)}; end it so.")
    return idea, "\n\n".join(equation).strip("\n"), told


def _options(row: Method, *, alone: bool) -> str:
    """A line an option: its default, its range, what it does."""
    if not row.options:
        return ""
    lines = [
        f"- `{one.name}`: {one.help}; "
        + (
            f"a switch, by default {str(one.default).lower()}"
            if isinstance(one.default, bool)
            else f"a number{one.range}, by default {one.default}"
        )
        for one in row.options
    ]
    title = "**Options.**" if alone else f"**Options of `{row.name}`.**"
    return f"{title}\n\n" + "\n".join(lines)


def _numbers(row: Method, found: object, rates: Raw) -> str:
    """Its scores by setting, with their intervals, and its rates; that there are none."""
    cells = found.cells if isinstance(found, Evaluation) else {}
    told = [
        f"{PAPERS.get(s, s)} {written(spans[row.name])}"
        for s, spans in cells.items()
        if row.name in spans
    ]
    if told and isinstance(found, Evaluation):
        rows = text(found.raw.get("rows_per_task"))
        told[-1] += f" ({len(at(found.raw, 'tasks'))} tasks, {rows} dev rows each)"
    each = at(rates, row.name, "tokens_a_second")
    alone, together = span_of(each.get("1")), span_of(each.get("8"))
    if alone and together:
        told.append(f"{alone.mean:.1f} tokens/s alone, {together.mean:.1f} at eight rows")
    shares = [span_of(one) for one in at(rates, row.name, "of_ramole").values()]
    if shares and all(shares):
        each = ", ".join(f"{share.mean:.2f}" for share in shares if share)
        told.append(f"{each} of `ramole` over as many adapters ({at(rates, row.name)['used']})")
    return f"`{row.name}`: " + (", ".join(told) if told else "not in the table yet")
