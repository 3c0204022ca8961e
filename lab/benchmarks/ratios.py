"""What the engine does beside others: ratios of cells of one part, repetition by repetition."""

import statistics
from collections.abc import Iterator, Mapping

DECODE, PREFILL = "decode_tokens_per_second", "prefill_tokens_per_second"
US = "ramole_k3"
REAL_TIME = "real_time"
"""Requests of the S-LoRA workload that come one by one (`serving.py`), at a rate of their own."""
Parts = Mapping[str, Mapping]
Ratio = tuple[str, str, str, str, str]
"""What it says, the part, the cell above, the cell below (empty: the quantity itself), the
quantity."""


def list_ratios(parts: Parts) -> Iterator[Ratio]:
    """Those of the batch sizes that the parts were measured at."""
    setup = {name: part["setup"] for name, part in parts.items()}
    sizes = _sizes(parts, "decode", "new_tokens")
    for at in (f"batch={rows}" for rows in sizes):
        ours, base = f"{US}/{at}", f"base/{at}"
        yield f"decode, {US} / base, {at}", "decode", ours, base, DECODE
        yield f"decode, trace on / off, {at}", "decode", f"{US}_trace/{at}", ours, DECODE
    for rows in sizes[-1:]:
        peer = f"transformers_generate/batch={rows}"
        yield f"decode, base / {peer}", "decode", f"base/batch={rows}", peer, DECODE
    if "prefill" in parts:
        rows, length = setup["prefill"]["prefill"]
        what, at = f"prefill, {US} / base, {rows} x {length} tokens", f"batch={rows}"
        yield what, "prefill", f"{US}/{at}", f"base/{at}", PREFILL
    sizes = _sizes(parts, "peers", "peer_tokens")
    for rows in sizes:
        most, ours = rows == sizes[-1], f"{US}/batch={rows}"
        for peer in ["peft_one_each"] if most else ["peft_arrow", "peft_xlora"][: 1 + (rows > 1)]:
            other = f"{peer}/batch={rows}"
            yield f"decode, {US} / {other}", "peers", ours, other, DECODE
    if "requests" in parts:
        rows, length, tokens = setup["requests"]["requests"]
        what = f"{rows} requests of {length} + {tokens} tokens, seconds, peft_one_each / {US}"
        at = f"batch={rows}"
        yield what, "requests", f"peft_one_each/{at}", f"{US}/{at}", "seconds"
    yield from _beside_llama(parts)
    if "slora" in parts:
        few, *more = setup["slora"]["serve_adapters"]
        kinds = dict.fromkeys(name.partition("/")[0] for name in parts["slora"]["cells"])
        for kind in (kind for kind in kinds if kind != REAL_TIME):
            for many in more:
                what = f"S-LoRA workload, {kind}, requests a second, {many} adapters / {few}"
                yield what, "slora", f"{kind}/n={many}", f"{kind}/n={few}", "requests_per_second"
    for name in parts["arrivals"]["cells"] if "arrivals" in parts else ():
        kind, _, at = name.partition("/")
        few = f"{kind}/n={min(setup['arrivals']['serve_adapters'])}"
        if kind == "peft":
            what = f"S-LoRA workload, {at[2:]} adapters, requests a second, ours / peft_one_each"
            yield what, "arrivals", f"ours/{at}", name, "requests_per_second"
        elif kind.startswith("small") and name != few:
            what = f"S-LoRA workload, {kind}, requests a second, {at[2:]} adapters / {few[-1]}"
            yield what, "arrivals", name, few, "requests_per_second"
    if "together" in parts:
        what = f"{setup['together']['together']} requests, seconds one after another / at once"
        yield what, "together", "one_after_another", "at_once", "seconds"
    if "retrieval" in parts:
        n = max(setup["retrieval"]["retrieval"])
        what = f"retrieval among {n} adapters, encoder included, ms"
        yield what, "retrieval", "milliseconds", "", f"retrieve_{n}_ms"


def _beside_llama(parts: Parts) -> Iterator[Ratio]:
    """The base in 4 bits against llama.cpp's bare base."""
    part, peer = "llama_cpp", "llama.cpp's bare base"
    sizes = _sizes(parts, part, "llama_tokens")
    for rows in sizes:
        at = f"batch={rows}"
        for ours in ("base", US) if rows == 1 else (US,):
            for held, end in {"nf4": "", "int4": "_int4"}.items() if rows == 1 else [("nf4", "")]:
                what = f"decode, {held}, {ours} / {peer}, {at}"
                yield what, part, f"{ours}{end}/{at}", f"llama_cpp/{at}", DECODE
    if sizes:
        what = f"prefill, nf4, {US} / {peer}, {parts[part]['setup']['llama_prompt']} tokens"
        yield what, part, f"{US}/prompt", "llama_cpp/prompt", PREFILL


def measure_ratios(parts: Parts) -> list[dict[str, object]]:
    """Median, smallest and largest of each ratio whose cells are there."""
    rows = []
    for what, part, top, bottom, quantity in list_ratios(parts):
        values = _values(parts[part]["cells"], top, quantity)
        if bottom:
            below = _values(parts[part]["cells"], bottom, quantity)
            values = [above / one for above, one in zip(values, below, strict=False)]
        if values:
            spread = {"measured": statistics.median(values), "min": min(values), "max": max(values)}
            rows.append(
                {"what": what, **{name: float(f"{one:.3g}") for name, one in spread.items()}}
            )
    return rows


def _values(cells: Mapping[str, Mapping], name: str, quantity: str) -> list[float]:
    """A quantity of each repetition of a cell; none where the cell is not there."""
    rows = cells[name]["repetitions"] if name in cells else ()
    return [row[quantity] for row in rows if quantity in row]


def _sizes(parts: Parts, part: str, name: str) -> list[int]:
    """The batch sizes of a part, rising; none where it was not measured."""
    return sorted(int(rows) for rows in parts[part]["setup"][name]) if part in parts else []
