"""How often is the right adapter found? Each retriever's top-k, plainly and with twins merged."""

from collections.abc import Iterator
from pathlib import Path

from ..parts.markup import escaped
from .answers import label
from .files import Made, Unmeasured, load, made_of, unreadable
from .scores import Evaluation
from .sections import made_html, section, unmeasured_html
from .tables import Scale, box, cell, group, head, plain
from .values import Raw, Span, items, span_of, table, text

TITLE = "Is the right adapter found?"
LEAD = (
    "Percent of prompts whose own adapter is among the first k of the pool, before anything is "
    "mixed; brackets hold the 95 % interval over prompts. Over tasks it is wider: that one says "
    "what to expect of tasks that are not here."
)
FIRST = (1, 3, 5, 8)
PROMPTS = {
    "all": "all prompts",
    "tuned": "tasks it was tuned on",
    "unseen": "tasks it never saw",
    "unseen, untuned": "the same tasks, by the untuned one",
}
PERCENT = Scale(0, 100)
RUN = ("untuned", "shipped")


def html(folder: Path, found: Evaluation | None) -> str:
    """The section; what the evaluation says of retrieval comes along."""
    raw, parts = load(folder, "retriever.json"), []
    if not isinstance(raw, Unmeasured) and not tops_in(raw):
        raw = unreadable("retriever.json")
    if isinstance(raw, Unmeasured):
        parts.append(unmeasured_html(raw))
    else:
        parts += [_paper_pool(raw), *_shipped(table(raw.get("shipped")))]
        if twins := [" and ".join(map(text, items(group))) for group in items(raw.get("twins"))]:
            told = escaped("; ".join(twins))
            parts.append(
                f'<p class="rm-under">Twins are tasks of the same instructions over other rows, so '
                f"no retriever can tell them apart by instructions: {told}.</p>"
            )
    parts.append(_in_evaluation(found))
    if not isinstance(raw, Unmeasured):
        parts.append(made_html(_made(raw)))
    return section("retrieval", TITLE, LEAD, "".join(parts))


def headline(folder: Path) -> Span | None:
    """Top-1 of the shipped retriever over the paper's prompts, or of the untuned one."""
    raw = load(folder, "retriever.json")
    if isinstance(raw, Unmeasured):
        return None
    for name in ("shipped", "untuned"):
        for _, part, tops, _ in tops_in(raw, name):
            if part == "all" and 1 in tops:
                return tops[1]
    return None


def tops_in(
    raw: Raw, only: str | None = None
) -> list[tuple[str, str, dict[int, Span], dict[int, Span]]]:
    """(retriever, part of the prompts, plain top-k, top-k with twins merged) of the summary."""
    found = []
    for name, parts in table(raw.get("summary")).items():
        for part, value in table(parts).items():
            plainly, merged = _tops(table(value).get("plain")), _tops(table(value).get("merged"))
            if (plainly or merged) and only in (None, name):
                found.append((name, part, plainly, merged))
    return found


def over_tasks(raw: Raw, name: str, part: str) -> Span | None:
    """Plain top-1 with its interval over tasks; None in a file that does not have it."""
    parts = table(table(raw.get("summary")).get(name))
    top = table(table(table(parts.get(part)).get("plain")).get("top1"))
    span = span_of({"mean": top.get("mean"), "interval": top.get("tasks")})
    return span if span and span.low is not None else None


def _tops(raw: object) -> dict[int, Span]:
    tops = {k: span_of(table(raw).get(f"top{k}")) for k in FIRST}
    return {k: span for k, span in tops.items() if span is not None}


def _paper_pool(raw: Raw) -> str:
    pool, prompts = text(raw.get("pool")), text(raw.get("prompts"))
    heads = [head("retriever", scope="col"), head("prompts", scope="col")]
    heads += [head(f"top-{k}", scope="col", kind="number") for k in FIRST]
    heads.append(head("top-1", below="twins merged", scope="col", kind="number"))
    heads.append(head("top-1", below="interval over tasks", scope="col", kind="number"))
    size = f": {pool} LoRAs, {prompts} prompts" if pool and prompts else ""
    published = "".join(
        f"<tr>{head(name)}{plain('all prompts')}"
        f"{''.join(cell(span_of(value)) for value in items(values)[: len(FIRST)])}"
        f"{cell(None)}{cell(None)}</tr>"
        for name, values in table(raw.get("published")).items()
        if len(items(values)) >= len(FIRST)
    )
    rows = group("measured here", "".join(_rows(raw)), columns=len(heads))
    if published:
        paper = "as published: LoraRetriever, arXiv 2402.09997, table 2"
        rows += group(paper, published, columns=len(heads))
    return box(f"By the paper's protocol{size}", heads, rows)


def _rows(raw: Raw) -> Iterator[str]:
    for name, part, plainly, merged in tops_in(raw):
        cells = "".join(cell(plainly.get(k), scale=PERCENT) for k in FIRST)
        prompts = plain(PROMPTS.get(part, part))
        cells += cell(merged.get(1), scale=PERCENT)
        cells += cell(over_tasks(raw, name, part), scale=PERCENT)
        yield f"<tr>{head(name)}{prompts}{cells}</tr>"


def _shipped(raw: Raw) -> Iterator[str]:
    """Every group of prompts that holds runs of both retrievers, whatever its name."""
    rows = ""
    for name, value in raw.items():
        runs = {run: _tops(table(table(value).get(run)).get("plain")) for run in RUN}
        if not any(runs.values()):
            continue
        count = text(table(value).get("prompts"))
        lines = "".join(
            f"<tr>{head(run)}{''.join(cell(tops.get(k), scale=PERCENT) for k in FIRST)}</tr>"
            for run, tops in runs.items()
        )
        title = f"{name}, {count} prompts" if count else name
        rows += group(title, lines, columns=1 + len(FIRST))
    if rows:
        heads = [head("retriever", scope="col")]
        heads += [head(f"top-{k}", scope="col", kind="number") for k in FIRST]
        yield box("The shipped retriever against the untuned one", heads, rows)


def _in_evaluation(found: Evaluation | None) -> str:
    if found is None or not any(found.retrieval.values()):
        return ""
    columns = list(dict.fromkeys(n for spans in found.retrieval.values() for n in spans))
    words = {"first": "found first", "found": f"among the first {found.k or 'k'}"}
    heads = [head("setting", scope="col")]
    heads += [head(words.get(name, name), scope="col", kind="number") for name in columns]
    rows = "".join(
        f"<tr>{head(label(setting))}"
        f"{''.join(cell(spans.get(name), scale=PERCENT) for name in columns)}</tr>"
        for setting, spans in found.retrieval.items()
        if spans
    )
    return box("For the prompts of the first section", heads, rows, kind="narrow")


def _made(raw: Raw) -> Made:
    checksums = {
        name: text(table(table(raw.get("runs")).get(name)).get("checksum")) for name in RUN
    }
    facts = [(f"{name} retriever, SHA-256", value) for name, value in checksums.items()]
    return made_of(raw, "retriever.json", *facts)
