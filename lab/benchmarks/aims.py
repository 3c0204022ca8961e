"""What the engine must reach, and what it does: ratios of cells of one part, repetition by
repetition."""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich.table import Table

DECODE, PREFILL = "decode_tokens_per_second", "prefill_tokens_per_second"
US = "ramole_k3"


@dataclass(frozen=True)
class Aim:
    """One row: a quantity of one cell, divided by the same of another, is to reach a number."""

    what: str
    part: str
    top: str
    bottom: str
    quantity: str
    aim: float
    at_most: bool = False
    """True: the quotient must not exceed the aim; `bottom` may then be empty (an absolute one)."""


def list_aims(parts: Mapping[str, Mapping]) -> Iterator[Aim]:
    """The issue's table, for the batch sizes that the parts were measured at."""
    for rows in _sizes(parts, "decode", "new_tokens"):
        at = f"batch={rows}"
        yield Aim(f"decode, {US} / base, {at}", "decode", f"{US}/{at}", f"base/{at}", DECODE, 0.7)
        yield Aim(
            f"decode, trace on / off, {at}",
            "decode",
            f"{US}_trace/{at}",
            f"{US}/{at}",
            DECODE,
            0.95,
        )
    if rows := max(_sizes(parts, "decode", "new_tokens"), default=0):
        at = f"batch={rows}"
        peer = f"transformers_generate/{at}"
        yield Aim(f"decode, base / {peer}", "decode", f"base/{at}", peer, DECODE, 1.2)
    if "prefill" in parts:
        rows, length = parts["prefill"]["setup"]["prefill"]
        at = f"batch={rows}"
        what = f"prefill, {US} / base, {rows} x {length} tokens"
        yield Aim(what, "prefill", f"{US}/{at}", f"base/{at}", PREFILL, 0.7)
    sizes = _sizes(parts, "peers", "peer_tokens")
    for rows in sizes:
        at = f"batch={rows}"
        for peer, aim, measured in (
            ("peft_one_each", 4.0, rows == max(sizes)),
            ("peft_arrow", 2.0, rows < max(sizes)),
            ("peft_xlora", 20.0, 1 < rows < max(sizes)),
        ):
            if measured:
                other = f"{peer}/{at}"
                yield Aim(f"decode, {US} / {other}", "peers", f"{US}/{at}", other, DECODE, aim)
    if "requests" in parts:
        rows, length, tokens = parts["requests"]["setup"]["requests"]
        at = f"batch={rows}"
        what = f"{rows} requests of {length} + {tokens} tokens, seconds, peft_one_each / {US}"
        yield Aim(what, "requests", f"peft_one_each/{at}", f"{US}/{at}", "seconds", 6.0)
    yield from _beside_llama(parts)
    if "slora" in parts:
        few, *_, many = parts["slora"]["setup"]["serve_adapters"]
        what = f"S-LoRA workload, requests a second, {many} adapters / {few}"
        top, bottom = f"closed/n={many}", f"closed/n={few}"
        yield Aim(what, "slora", top, bottom, "requests_per_second", 0.95)
    if "together" in parts:
        count = parts["together"]["setup"]["together"]
        what = f"{count} requests, seconds one after another / at once"
        yield Aim(what, "together", "one_after_another", "at_once", "seconds", 4.0)
    if "retrieval" in parts:
        n = max(parts["retrieval"]["setup"]["retrieval"])
        what = f"retrieval among {n} adapters, encoder included, ms"
        yield Aim(what, "retrieval", "milliseconds", "", f"retrieve_{n}_ms", 40.0, at_most=True)


def _beside_llama(parts: Mapping[str, Mapping]) -> Iterator[Aim]:
    """The base in 4 bits against llama.cpp's bare base."""
    sizes = _sizes(parts, "llama_cpp", "llama_tokens")
    for rows in sizes:
        at = f"batch={rows}"
        aims = {"base": 0.6, US: 0.5} if rows == 1 else {US: 1.5 if rows == max(sizes) else 1.0}
        for ours, aim in aims.items():
            what = f"decode, nf4, {ours} / llama.cpp's bare base, {at}"
            yield Aim(what, "llama_cpp", f"{ours}/{at}", f"llama_cpp/{at}", DECODE, aim)
            if rows == 1:
                what, more = what.replace("nf4", "int4"), {"base": 0.8, US: 0.6}
                top, bottom = f"{ours}_int4/{at}", f"llama_cpp/{at}"
                yield Aim(what, "llama_cpp", top, bottom, DECODE, more[ours])
    if sizes:
        length = parts["llama_cpp"]["setup"]["llama_prompt"]
        what = f"prefill, nf4, {US} / llama.cpp's bare base, {length} tokens"
        yield Aim(what, "llama_cpp", f"{US}/prompt", "llama_cpp/prompt", PREFILL, 2.1)


def judge(parts: Mapping[str, Mapping]) -> list[dict[str, object]]:
    """Measured median, smallest and largest for each aim whose cells are there."""
    found = []
    for aim in list_aims(parts):
        values = _values(parts[aim.part]["cells"], aim)
        if not values:
            continue
        measured = statistics.median(values)
        found.append(
            {
                "what": aim.what,
                "measured": _short(measured),
                "min": _short(min(values)),
                "max": _short(max(values)),
                "aim": aim.aim,
                "reached": measured <= aim.aim if aim.at_most else measured >= aim.aim,
            }
        )
    return found


def make_table(rows: list[dict[str, object]]) -> Table:
    """The same for a terminal."""
    table = Table("what", "measured", "spread", "aim", "reached", box=None, pad_edge=False)
    for row in rows:
        reached = "[green]yes[/]" if row["reached"] else "[red]no[/]"
        spread = f"{row['min']} to {row['max']}"
        table.add_row(str(row["what"]), str(row["measured"]), spread, str(row["aim"]), reached)
    return table


def _values(cells: Mapping[str, Mapping], aim: Aim) -> list[float]:
    """The quotient of each repetition of both cells."""
    if aim.top not in cells or (aim.bottom and aim.bottom not in cells):
        return []
    top = [row[aim.quantity] for row in cells[aim.top]["repetitions"] if aim.quantity in row]
    if not aim.bottom:
        return top
    bottom = [row[aim.quantity] for row in cells[aim.bottom]["repetitions"] if aim.quantity in row]
    return [above / below for above, below in zip(top, bottom, strict=False)]


def _sizes(parts: Mapping[str, Mapping], part: str, name: str) -> list[int]:
    """The batch sizes of a part; none where it was not measured."""
    return sorted(int(rows) for rows in parts[part]["setup"][name]) if part in parts else []


def _short(value: float) -> float:
    return float(f"{value:.3g}")
