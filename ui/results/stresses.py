"""The cases that single papers are about, measured as they measure them: one table each."""

from pathlib import Path

from .files import Unmeasured, load, made_of, unreadable
from .sections import made_html, section, unmeasured_html
from .situations import situations_in, table_html
from .tables import box, cell, head
from .values import Raw, span_of, table, text

TITLE = "Do the papers' own cases hold here?"
LEAD = (
    "MeteoRA asks several questions in one prompt; CA-LoRA brings an adapter to a base that was "
    "compressed harder; LLaVA-MoLE trains on tasks that disagree. Each is measured beside what it "
    "replaces."
)
COMPOSITE, RECOVERY, MIXED = "composite_n.json", "ca_lora.json", "llava_mole.json"
WAYS = {"3bit": "rounded to 3 bits", "nf4": "NF4, the control"}
SYSTEMS = {
    "uncompressed": "uncompressed base, its adapter",
    "inherited": "the same adapter",
    "trained_there": "a new adapter, trained there",
    "trained_on": "the adapter, trained on there",
    "ca_lora": "ca_lora",
    "one_lora": "one LoRA",
    "one_lora_twice": "one LoRA, twice the rows",
    "apart": "a LoRA for each task",
    "llava_mole": "llava_mole",
}


def html(folder: Path) -> str:
    """The section."""
    parts = _composite(folder) + _recovery(folder) + _mixed(folder)
    return section("stresses", TITLE, LEAD, parts)


def measured(folder: Path) -> tuple[int, int] | None:
    """(cases with a table, cases); None where there is no table yet."""
    count = sum("<table" in shown(folder) for shown in (_composite, _recovery, _mixed))
    return (count, 3) if count else None


def _composite(folder: Path) -> str:
    raw = load(folder, COMPOSITE)
    if isinstance(raw, Unmeasured):
        return unmeasured_html(raw)
    found = situations_in(raw.get("situations"))
    if not found:
        return unmeasured_html(unreadable(COMPOSITE))
    shown = "".join(table_html(name, one) for name, one in found.items())
    return shown + made_html(made_of(raw, COMPOSITE))


def _recovery(folder: Path) -> str:
    raw = load(folder, RECOVERY)
    if isinstance(raw, Unmeasured):
        return unmeasured_html(raw)
    shown = "".join(
        _paired(f"CA-LoRA, the base {WAYS.get(how, how)}", table(systems), ours="ca_lora")
        for how, systems in table(raw.get("tables")).items()
    )
    return (shown or unmeasured_html(unreadable(RECOVERY))) + made_html(made_of(raw, RECOVERY))


def _mixed(folder: Path) -> str:
    raw = load(folder, MIXED)
    if isinstance(raw, Unmeasured):
        return unmeasured_html(raw)
    tasks = ", ".join(map(text, raw.get("tasks") or ()))
    title = "LLaVA-MoLE, trained on a mixture" + (f" of {tasks}" if tasks else "")
    shown = _paired(title, table(raw.get("table")), ours="llava_mole")
    return (shown or unmeasured_html(unreadable(MIXED))) + made_html(made_of(raw, MIXED))


def _paired(caption: str, systems: Raw, *, ours: str) -> str:
    """Each system's score and loss, and how far ours is ahead of it; nothing where nothing is."""
    rows, count = "", 0
    for name, value in systems.items():
        told = table(value)
        score, loss = table(told.get("score")), table(told.get("loss"))
        count = max(count, len(table(score.get("by_task"))))
        ahead = None if name == ours else span_of(score.get(f"{ours}_minus"))
        rows += (
            f"<tr>{head(SYSTEMS.get(name, name))}{cell(span_of(score))}{cell(ahead, signed=True)}"
            f"{cell(span_of(loss), digits=3)}</tr>"
        )
    if not rows:
        return ""
    names = ["score", f"{ours} minus it", "loss, nats a token"]
    heads = [head("system", scope="col")] + [head(n, scope="col", kind="number") for n in names]
    return box(caption, heads, rows, kind="names", below=f"Intervals are over {count} tasks.")
