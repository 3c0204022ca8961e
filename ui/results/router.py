"""What in the router matters? Its ablations, and the trained gate beside untrained ones."""

from pathlib import Path

from ..parts.markup import escaped
from .files import Unmeasured, load, made_of, unreadable
from .sections import made_html, section, unmeasured_html
from .tables import box, cell, group, head, plain, scale_over
from .values import Raw, Span, items, number, span_of, spans_of, table, text

TITLE = "What in the router matters?"
LEAD = (
    "The router weighs the adapters for every token. Each row changes one thing and trains it "
    "again; a rival without training says what the training itself is worth."
)
GROUPS = {
    "dropout": "Leaving adapters out while training",
    "rank": "Rank of the router",
    "share": "Share of the tasks that it is trained on",
    "k": "How many adapters are mixed",
    "iid": "IID: the right adapter may be found",
    "ood": "OOD: the right adapter is hidden",
    "crowded": "Crowded: strangers are in the pool",
}
ABLATIONS = {
    "router_ablations.json": "Ablations of the router",
    "ablations.json": "What each piece of ramole_plus is worth",
}
GATES = {
    "trained": "the trained gate",
    "uniform": "equal weights",
    "random": "a random gate",
    "base": "the base model alone",
    "own_alone": "the right adapter alone",
}
POOLS = {"own": "right adapter present", "others": "right adapter hidden"}
DIGITS = 3


def html(folder: Path) -> str:
    """The section."""
    parts = [ablations_of(folder, file) for file in ABLATIONS]
    gates = load(folder, "router_dev.json")
    if not isinstance(gates, Unmeasured):
        parts.append(gates_html(gates))
    return section("router", TITLE, LEAD, "".join(parts))


def ablations_of(folder: Path, file: str) -> str:
    """One file's table, or why there is none."""
    raw = load(folder, file)
    if isinstance(raw, Unmeasured):
        return unmeasured_html(raw)
    return ablations_html(raw, file) or unmeasured_html(unreadable(file))


def headline(folder: Path) -> tuple[str, str]:
    """(what stands on the tile, its words); the first is empty where nothing is measured."""
    gates = load(folder, "router_dev.json")
    if not isinstance(gates, Unmeasured):
        gaps = [gap for name in POOLS if (gap := gate_gap(table(gates.get(name))))]
        if gaps:
            won = [verdict_of(gap, lower=True) for gap in gaps].count("better")
            words = "tests in which its training beats equal weights (loss, random adapters)"
            return f"{won} of {len(gaps)}", words
    words = "router variants clearly better than their rival"
    ablations = load(folder, "router_ablations.json")
    if not isinstance(ablations, Unmeasured):
        lower = lower_is_better(ablations)
        rows = [table(table(one).get("against")) for one in items(ablations.get("rows"))]
        told = [verdict_of(span, lower=lower) for one in rows if (span := span_of(one))]
        if told:
            return f"{told.count('better')} of {len(told)}", words
    return "", words


def gate_gap(raw: Raw) -> Span | None:
    """The trained gate minus equal weights; its interval is over tasks where the file has that,
    else over sets of adapters, else over rows."""
    gap = table(table(raw.get("trained_minus")).get("uniform"))
    low, high = (
        gap.get(f"task_{end}", gap.get(f"set_{end}", gap.get(end))) for end in ("low", "high")
    )
    return span_of({"mean": gap.get("mean"), "low": low, "high": high})


def lower_is_better(raw: Raw) -> bool:
    """As the measure itself says."""
    return "higher is better" not in text(raw.get("measure"))


def ablations_html(raw: Raw, file: str) -> str:
    """The rows by group, on one scale; nothing where none can be read."""
    rows = [(one, span) for one in map(table, items(raw.get("rows"))) if (span := span_of(one))]
    if not rows:
        return ""
    measure = text(raw.get("measure"))
    digits = DIGITS if lower_is_better(raw) else 1
    scale = scale_over([span for _, span in rows])
    against = [span_of(table(one.get("against"))) for one, _ in rows]
    scale_against = scale_over([span for span in against if span], mark=0)
    groups: dict[str, str] = {}
    for (one, span), gap in zip(rows, against, strict=True):
        seeds = [n for n in map(number, items(one.get("seeds"))) if n is not None]
        rival = text(table(one.get("against")).get("rival"))
        spread = f"{min(seeds):.{digits}f} to {max(seeds):.{digits}f}" if len(seeds) > 1 else "–"
        kind = text(one.get("group"))
        groups[kind] = groups.get(kind, "") + (
            f"<tr>{head(text(one.get('name')))}{cell(span, scale=scale, digits=digits)}"
            f"{plain(spread, kind='number')}{plain(rival)}"
            f"{cell(gap, scale=scale_against, digits=digits, signed=True)}"
            f"{plain(verdict_of(gap, lower=lower_is_better(raw)))}</tr>"
        )
    body = "".join(
        group(GROUPS.get(name, name), lines, columns=6) for name, lines in groups.items()
    )
    heads = [head("what is changed", scope="col")]
    heads.append(head(measure or "measure", scope="col", kind="number"))
    heads += [head("over seeds", scope="col", kind="number"), head("rival", scope="col")]
    heads += [head("minus the rival", scope="col", kind="number"), head("in words", scope="col")]
    notes = escaped(text(raw.get("notes")))
    facts = [("adapters no router was trained on", ", ".join(map(text, items(raw.get("unseen")))))]
    made = made_html(made_of(raw, file, *facts))
    return box(ABLATIONS[file], heads, body, kind="ablations", below=notes) + made


def verdict_of(gap: Span | None, *, lower: bool) -> str:
    """Better or worse than the rival, where the interval leaves zero out."""
    if gap is None:
        return "–"
    if not gap.sure:
        return "no clear difference"
    return "better" if (gap.mean < 0) == lower else "worse"


def gates_html(raw: Raw) -> str:
    """Loss of each gate on tasks that the router never saw; nothing where none can be read."""
    losses = {name: spans_of(table(raw.get(name)).get("loss")) for name in POOLS}
    losses = {name: spans for name, spans in losses.items() if spans}
    if not losses:
        return ""
    scale = scale_over([span for spans in losses.values() for span in spans.values()], zero=True)
    gates = list(dict.fromkeys(gate for spans in losses.values() for gate in spans))
    rows = "".join(
        f"<tr>{head(GATES.get(gate, gate))}"
        + "".join(cell(spans.get(gate), scale=scale, digits=DIGITS) for spans in losses.values())
        + "</tr>"
        for gate in gates
    )
    heads = [head("who weighs the adapters", scope="col")]
    heads += [head(POOLS[name], scope="col", kind="number") for name in losses]
    said = " ".join(
        f"{POOLS[name].capitalize()}: {words}"
        for name in losses
        if (words := text(table(raw.get(name)).get("verdict")))
    )
    facts = [("trained on", ", ".join(map(text, items(raw.get("trained_on")))))]
    facts.append(("measured on", ", ".join(map(text, items(raw.get("unseen"))))))
    facts.append(("adapters mixed", f"k = {text(raw.get('k'))}" if raw.get("k") else ""))
    even = ", ".join(
        f"{name} {span.mean:.2f}" for name, span in spans_of(raw.get("entropy")).items()
    )
    facts.append(("entropy of the weights, 1 is equal ones", even))
    return box(
        "Loss on tasks the router never saw, nats a token, lower is better",
        heads,
        rows,
        kind="narrow",
        below=escaped(said),
    ) + made_html(made_of(raw, "router_dev.json", *facts))
