"""What the engine does beside others: ratios of cells of one part, repetition by repetition."""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

DECODE, PREFILL = "decode_tokens_per_second", "prefill_tokens_per_second"
US = "ramole_k3"


@dataclass(frozen=True)
class Ratio:
    """One row: a quantity of one cell, divided by the same of another."""

    what: str
    part: str
    top: str
    bottom: str
    """Empty: the quantity itself."""
    quantity: str


def list_ratios(parts: Mapping[str, Mapping]) -> Iterator[Ratio]:
    """Those of the batch sizes that the parts were measured at."""
    for rows in _sizes(parts, "decode", "new_tokens"):
        at = f"batch={rows}"
        ours, traced = f"{US}/{at}", f"{US}_trace/{at}"
        yield Ratio(f"decode, {US} / base, {at}", "decode", ours, f"base/{at}", DECODE)
        yield Ratio(f"decode, trace on / off, {at}", "decode", traced, ours, DECODE)
    if rows := max(_sizes(parts, "decode", "new_tokens"), default=0):
        at = f"batch={rows}"
        peer = f"transformers_generate/{at}"
        yield Ratio(f"decode, base / {peer}", "decode", f"base/{at}", peer, DECODE)
    if "prefill" in parts:
        rows, length = parts["prefill"]["setup"]["prefill"]
        at = f"batch={rows}"
        what = f"prefill, {US} / base, {rows} x {length} tokens"
        yield Ratio(what, "prefill", f"{US}/{at}", f"base/{at}", PREFILL)
    sizes = _sizes(parts, "peers", "peer_tokens")
    for rows in sizes:
        at = f"batch={rows}"
        for peer, measured in (
            ("peft_one_each", rows == max(sizes)),
            ("peft_arrow", rows < max(sizes)),
            ("peft_xlora", 1 < rows < max(sizes)),
        ):
            if measured:
                other = f"{peer}/{at}"
                yield Ratio(f"decode, {US} / {other}", "peers", f"{US}/{at}", other, DECODE)
    if "requests" in parts:
        rows, length, tokens = parts["requests"]["setup"]["requests"]
        at = f"batch={rows}"
        what = f"{rows} requests of {length} + {tokens} tokens, seconds, peft_one_each / {US}"
        yield Ratio(what, "requests", f"peft_one_each/{at}", f"{US}/{at}", "seconds")
    yield from _beside_llama(parts)
    if "slora" in parts:
        few, *more = parts["slora"]["setup"]["serve_adapters"]
        for many in more:
            what = f"S-LoRA workload, requests a second, {many} adapters / {few}"
            top, bottom = f"closed/n={many}", f"closed/n={few}"
            yield Ratio(what, "slora", top, bottom, "requests_per_second")
    if "together" in parts:
        count = parts["together"]["setup"]["together"]
        what = f"{count} requests, seconds one after another / at once"
        yield Ratio(what, "together", "one_after_another", "at_once", "seconds")
    if "retrieval" in parts:
        n = max(parts["retrieval"]["setup"]["retrieval"])
        what = f"retrieval among {n} adapters, encoder included, ms"
        yield Ratio(what, "retrieval", "milliseconds", "", f"retrieve_{n}_ms")


def _beside_llama(parts: Mapping[str, Mapping]) -> Iterator[Ratio]:
    """The base in 4 bits against llama.cpp's bare base."""
    sizes = _sizes(parts, "llama_cpp", "llama_tokens")
    for rows in sizes:
        at = f"batch={rows}"
        for ours in ("base", US) if rows == 1 else (US,):
            for held, end in {"nf4": "", "int4": "_int4"}.items() if rows == 1 else [("nf4", "")]:
                what = f"decode, {held}, {ours} / llama.cpp's bare base, {at}"
                yield Ratio(what, "llama_cpp", f"{ours}{end}/{at}", f"llama_cpp/{at}", DECODE)
    if sizes:
        length = parts["llama_cpp"]["setup"]["llama_prompt"]
        what = f"prefill, nf4, {US} / llama.cpp's bare base, {length} tokens"
        yield Ratio(what, "llama_cpp", f"{US}/prompt", "llama_cpp/prompt", PREFILL)


def measure_ratios(parts: Mapping[str, Mapping]) -> list[dict[str, object]]:
    """Median, smallest and largest of each ratio whose cells are there."""
    return [
        {
            "what": ratio.what,
            "measured": _short(statistics.median(values)),
            "min": _short(min(values)),
            "max": _short(max(values)),
        }
        for ratio in list_ratios(parts)
        if (values := _values(parts[ratio.part]["cells"], ratio))
    ]


def _values(cells: Mapping[str, Mapping], ratio: Ratio) -> list[float]:
    """The quotient of each repetition of both cells."""
    top, bottom = (
        [row[ratio.quantity] for row in cells[name]["repetitions"] if ratio.quantity in row]
        if name in cells
        else []
        for name in (ratio.top, ratio.bottom)
    )
    if not ratio.bottom:
        return top
    return [above / below for above, below in zip(top, bottom, strict=False)]


def _sizes(parts: Mapping[str, Mapping], part: str, name: str) -> list[int]:
    """The batch sizes of a part; none where it was not measured."""
    return sorted(int(rows) for rows in parts[part]["setup"][name]) if part in parts else []


def _short(value: float) -> float:
    return float(f"{value:.3g}")
