"""Does each adapter earn its place? Its score against the base, chance and the commonest answer."""

from pathlib import Path

from .files import Made, Unmeasured, load, made_of, unreadable
from .sections import made_html, section, unmeasured_html
from .tables import box, cell, head, plain, scale_over
from .values import Raw, Span, span_of, spans_of, table, text

TITLE = "Do the adapters themselves help?"
LEAD = (
    "Each adapter of the sample pool on dev rows of its own task, that it was not trained on, "
    "against the base, a fair guess and always giving the commonest answer."
)
RIVALS = ("base", "chance", "commonest")


def html(folder: Path) -> str:
    """The section."""
    raw = load(folder, "adapters_dev.json")
    entries = {} if isinstance(raw, Unmeasured) else entries_of(raw)
    if not isinstance(raw, Unmeasured) and not entries:
        raw = unreadable("adapters_dev.json")
    if isinstance(raw, Unmeasured):
        return section("adapters", TITLE, LEAD, unmeasured_html(raw))
    return section("adapters", TITLE, LEAD, _table(entries) + made_html(_made(raw, entries)))


def entries_of(raw: Raw) -> dict[str, Raw]:
    """The adapters that have a score."""
    entries = {name: table(value) for name, value in table(raw.get("adapters")).items()}
    return {n: e for n, e in entries.items() if span_of(table(e.get("scores")).get("adapter"))}


def helping(folder: Path) -> tuple[int, int] | None:
    """(adapters whose gain over the base is certain, by lenient scoring too; adapters measured)."""
    raw = load(folder, "adapters_dev.json")
    entries = {} if isinstance(raw, Unmeasured) else entries_of(raw)
    clear = 0
    for entry in entries.values():
        gains = [_gain(entry, scoring) for scoring in ("scores", "lenient") if scoring in entry]
        clear += all(gain is not None and gain.sure and gain.mean > 0 for gain in gains)
    return (clear, len(entries)) if entries else None


def _gain(entry: Raw, scoring: str) -> Span | None:
    return spans_of(table(entry.get(scoring)).get("gain_over")).get("base")


def _table(entries: dict[str, Raw]) -> str:
    gains = {name: (_gain(e, "scores"), _gain(e, "lenient")) for name, e in entries.items()}
    scale = scale_over([gain for both in gains.values() for gain in both if gain], mark=0)
    rows = ""
    for name, entry in entries.items():
        scores = spans_of(entry.get("scores"))
        cells = "".join(cell(_mean(scores.get(rival))) for rival in RIVALS)
        strict, lenient = gains[name]
        rows += (
            f"<tr>{head(name)}{plain(text(entry.get('metric')))}"
            f"{plain(text(entry.get('rows')), kind='number')}{cells}"
            f"{cell(_mean(scores.get('adapter')), emphasis=True)}"
            f"{cell(strict, scale=scale, signed=True)}"
            f"{cell(lenient, scale=scale, signed=True)}</tr>"
        )
    heads = [head("adapter", scope="col"), head("metric", scope="col")]
    heads += [head(name, scope="col", kind="number") for name in ("rows", *RIVALS, "with it")]
    heads.append(head("gain over the base", scope="col", kind="number"))
    heads.append(head("the same, lenient", scope="col", kind="number"))
    return box(
        "Sample adapters on their own dev rows",
        heads,
        rows,
        kind="adapters",
        below="em: exact match; rouge and bleu: overlap with the right answer; each from 0 to 100. "
        "Lenient scoring strips bullets and trailing text from both answers first, so that a base "
        "that knows the answer but not the form is not counted as wrong. – : the task lists no "
        "options to guess from.",
    )


def _mean(span: Span | None) -> Span | None:
    return None if span is None else Span(span.mean)


def _made(raw: Raw, entries: dict[str, Raw]) -> Made:
    """The file keeps a command for each adapter; without their names they are mostly one."""
    commands = {}
    for name, entry in entries.items():
        commands[text(entry.get("command")).removesuffix(f" {name}")] = None
    told = [command for command in commands if command]
    facts = [
        (f"{name}, SHA-256", text(entry.get("adapter_sha256"))) for name, entry in entries.items()
    ]
    return made_of({**raw, "command": "\n".join(told)}, "adapters_dev.json", *facts)
