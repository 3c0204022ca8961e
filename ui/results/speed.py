"""How fast is it? Aims beside what was measured, tokens a second beside peers, and many users."""

from pathlib import Path

from .files import Made, Unmeasured, load, made_of, unreadable
from .sections import made_html, section, unmeasured_html
from .tables import box, cell, head, plain, scale_over, verdict
from .values import Raw, Span, items, number, span_of, table, text

TITLE = "How fast is it?"
LEAD = (
    "Every quotient is taken within one run of one machine, so that both sides had the same "
    "minute; brackets hold the smallest and the largest repetition."
)
PARTS = {
    "decode": "Tokens a second while decoding",
    "peers": "Tokens a second beside PEFT's ways of many LoRAs",
}
SPEED = "decode_tokens_per_second"


def html(folder: Path) -> str:
    """The section."""
    raw = load(folder, "speed.json")
    if not isinstance(raw, Unmeasured) and not aims_of(raw):
        raw = unreadable("speed.json")
    many = load(folder, "many_users.json")
    users = "" if isinstance(many, Unmeasured) else users_html(many)
    if isinstance(raw, Unmeasured):
        return section("speed", TITLE, LEAD, unmeasured_html(raw) + users)
    throughput = [shown for part in PARTS if (shown := _throughput(raw, part))]
    kind = "rm-pair even" if len(throughput) > 1 else ""
    body = (
        _aims(raw)
        + f'<div class="{kind}">{"".join(throughput)}</div>'
        + _pool_size(raw)
        + made_html(_made(raw))
    )
    return section("speed", TITLE, LEAD, body + users)


def aims_of(raw: Raw) -> list[tuple[Raw, Span]]:
    """Each aim with what was measured."""
    found = []
    for one in map(table, items(raw.get("aims"))):
        span = span_of({"mean": one.get("measured"), "low": one.get("min"), "high": one.get("max")})
        if span is not None and text(one.get("what")):
            found.append((one, span))
    return found


def reached(folder: Path) -> tuple[int, int] | None:
    """(aims reached, aims)."""
    raw = load(folder, "speed.json")
    aims = [] if isinstance(raw, Unmeasured) else aims_of(raw)
    return (sum(one.get("reached") is True for one, _ in aims), len(aims)) if aims else None


def users_html(raw: Raw) -> str:
    """Many people at once against one after another; nothing where it cannot be read."""
    rows = ""
    for name, told in (
        ("people on the page, each in a browser of the same machine", raw),
        ("clients of the endpoint", table(raw.get("by_clients_of_the_endpoint"))),
    ):
        faster = number(told.get("median_times_faster"))
        if faster is not None:
            alone, at_once = (_range(told.get(f"{k}_s")) for k in ("one_after_another", "at_once"))
            times = cell(alone) + cell(at_once) + cell(Span(faster), emphasis=True)
            rows += f"<tr>{head(name)}{times}</tr>"
    if not rows:
        return ""
    users = text(raw.get("users")) or "Many"
    heads = [head("who", scope="col")]
    for words in ("one after another, s", "at once, s", "times faster"):
        heads.append(head(words, scope="col", kind="number"))
    facts = [("machine", f"{text(raw.get('cores'))} cores, {text(raw.get('system'))}")]
    facts.append(("quantization", text(raw.get("quantization"))))
    return box(f"{users} users at once", heads, rows, kind="narrow") + made_html(
        made_of({"command": raw.get("command")}, "many_users.json", *facts)
    )


def _aims(raw: Raw) -> str:
    rows = ""
    for one, span in aims_of(raw):
        aim, told = number(one.get("aim")), one.get("reached")
        scale = scale_over([span], mark=aim, zero=True)
        word = verdict(told if isinstance(told, bool) else None)
        rows += (
            f"<tr>{head(text(one.get('what')))}<td>{word}</td>"
            f"{cell(span, scale=scale, digits=_digits(span))}"
            f"{plain(text(one.get('aim')), kind='number')}</tr>"
        )
    heads = [head("what", scope="col"), head("reached?", scope="col")]
    heads += [head(words, scope="col", kind="number") for words in ("measured", "aim")]
    below = "Each line has a scale of its own, from zero; the upright tick is the aim."
    return box("Aims of the engine", heads, rows, kind="words", below=below)


def _throughput(raw: Raw, part: str) -> str:
    """Systems x batch sizes."""
    found: dict[str, dict[float, Span]] = {}
    for value in table(table(table(raw.get("parts")).get(part)).get("cells")).values():
        facts, summary = table(table(value).get("facts")), table(table(value).get("summary"))
        batch, span = number(facts.get("batch")), span_of(summary.get(SPEED))
        if batch is not None and span is not None and text(facts.get("system")):
            found.setdefault(text(facts["system"]), {})[batch] = span
    if not found:
        return ""
    batches = sorted({batch for row in found.values() for batch in row})
    rows = "".join(
        f"<tr>{head(system)}{''.join(cell(row.get(b), digits=0) for b in batches)}</tr>"
        for system, row in found.items()
    )
    heads = [head("system", scope="col")]
    heads += [head(f"batch {batch:g}", scope="col", kind="number") for batch in batches]
    return box(PARTS[part], heads, rows, kind="names")


def _pool_size(raw: Raw) -> str:
    """The same requests over more and more adapters (the workload of S-LoRA)."""
    rows = {}
    for name, value in table(table(table(raw.get("parts")).get("slora")).get("cells")).items():
        adapters = number(table(table(value).get("facts")).get("adapters"))
        if name.startswith("closed") and adapters is not None:
            rows[adapters] = table(table(value).get("summary"))
    if not rows:
        return ""
    columns = {
        "requests_per_second": "requests a second",
        "tokens_per_second": "tokens a second",
        "first_token_seconds": "seconds to the first token",
        "distinct_adapters": "adapters used",
    }
    body = "".join(
        f"<tr>{head(f'{adapters:,.0f}')}"
        + "".join(cell(span_of(summary.get(column))) for column in columns)
        + "</tr>"
        for adapters, summary in sorted(rows.items())
    )
    heads = [head("adapters in the pool", scope="col")]
    heads += [head(words, scope="col", kind="number") for words in columns.values()]
    return box("More adapters, same speed? (the workload of S-LoRA)", heads, body)


def machines_of(raw: Raw) -> dict[str, list[str]]:
    """Which parts were measured on which machine, in words; a part may be newer than the rest."""
    found: dict[str, list[str]] = {}
    for part, measured in table(raw.get("parts")).items():
        machine = table(table(measured).get("machine"))
        where = [text(machine.get("card")) or text(machine.get("cpu"))]
        where += [f"{text(machine.get('threads'))} threads", text(machine.get("dtype"))]
        where.append(f"quantization {text(machine.get('quantization'))}")
        if machine:
            found.setdefault(", ".join(filter(None, where)), []).append(part)
    return found


def _made(raw: Raw) -> Made:
    machine = next((table(table(p).get("machine")) for p in table(raw.get("parts")).values()), {})
    usual, *others = machines_of(raw).items() or [("", [])]
    facts = [("machine", usual[0])]
    facts += [(f"machine of {', '.join(parts)}", where) for where, parts in others]
    facts += [("system", text(machine.get("system"))), ("commit", text(machine.get("commit")))]
    kept = {key: machine.get(key) for key in ("versions", "base_checksum")}
    return made_of({**kept, "command": raw.get("command")}, "speed.json", *facts)


def _range(raw: object) -> Span | None:
    """The median of a list, with its smallest and largest."""
    values = sorted(n for n in map(number, items(raw)) if n is not None)
    if not values:
        return None
    middle = len(values) // 2
    median = (values[middle] + values[~middle]) / 2
    return Span(median, values[0], values[-1])


def _digits(span: Span) -> int:
    return 2 if abs(span.mean) < 10 else 1
