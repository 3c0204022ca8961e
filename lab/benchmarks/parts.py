"""The parts that measure generation: decode, prefill, peers, sweeps, many at once, retrieval."""

from collections.abc import Mapping, Sequence

from lab.benchmarks.interleave import Cell, Tell, measure_cells
from lab.benchmarks.peers import Peer
from lab.benchmarks.record import Measured, Record
from lab.benchmarks.stage import Stage
from ramole_core.cli.timed_engine import (
    BASE,
    MIXTURE,
    RAMOLE,
    SELECTION,
    Mix,
    OurEngine,
    make_requests,
)

MIXES = (
    BASE,
    SELECTION,
    MIXTURE,
    Mix("ramole", 1),
    RAMOLE,
    Mix("ramole", 8),
    Mix("ramole", 3, trace=True),
)
PREFILLED = (BASE, SELECTION, MIXTURE, RAMOLE, Mix("ramole", 8))


def measure_decode(stage: Stage, record: Record, tell: Tell) -> None:
    """Our engine's methods, and the bare base under `generate`, at each batch size."""
    s = stage.sizes
    facts = ("rank", "adapters", "prompt_tokens", "new_tokens", "repetitions")
    record.begin("decode", s.facts(*facts))
    names = stage.names()[: s.adapters]
    for rows, tokens in s.new_tokens.items():
        prompts = stage.prompts(rows, s.prompt_tokens)
        cells = [_peer_cell(stage.bare, prompts, names, tokens)]
        cells += [our_cell(stage.ours, mix, prompts, names, tokens) for mix in MIXES]
        _run(stage, "decode", cells, record, tell)


def measure_prefill(stage: Stage, record: Record, tell: Tell) -> None:
    """Reading prompts only: each request ends at its first token."""
    s = stage.sizes
    rows, length = s.prefill
    record.begin("prefill", s.facts("rank", "adapters", "prefill", "repetitions"))
    names, prompts = stage.names()[: s.adapters], stage.prompts(rows, length)
    cells = [_peer_cell(stage.bare, prompts, names, 1)]
    cells += [our_cell(stage.ours, mix, prompts, names, 1) for mix in PREFILLED]
    _run(stage, "prefill", cells, record, tell)


def measure_peers(stage: Stage, record: Record, tell: Tell) -> None:
    """PEFT in its four ways beside ramole k=3 of our engine."""
    s = stage.sizes
    facts = ("rank", "adapters", "prompt_tokens", "peer_tokens", "xlora_tokens")
    record.begin("peers", s.facts(*facts, "switching_tokens", "repetitions"))
    names = stage.names()[: s.adapters]
    lengths = {"peft_xlora": s.xlora_tokens, "peft_switching": s.switching_tokens}
    for rows, tokens in s.peer_tokens.items():
        prompts = stage.prompts(rows, s.prompt_tokens)
        cells = [our_cell(stage.ours, RAMOLE, prompts, names, tokens)]
        for name, peer in stage.peers.items():
            if name in ("peft_arrow", "peft_xlora") and rows > s.mixed_rows:
                continue
            length = lengths.get(name, s.peer_tokens)[rows]
            cells.append(_peer_cell(peer, prompts, names, length))
        _run(stage, "peers", cells, record, tell)


def measure_sweeps(stage: Stage, record: Record, tell: Tell) -> None:
    """Cost against k, r and p, one varied at a time."""
    s = stage.sizes
    facts = ("rank", "prompt_tokens", "sweep_k", "sweep_r", "sweep_p", "sweep_rows")
    record.begin("sweeps", s.facts(*facts, "sweep_tokens", "repetitions"))
    usual = stage.names()
    prompts = stage.prompts(s.sweep_rows, s.prompt_tokens)
    many = stage.prompts(max(s.sweep_p), s.prompt_tokens)

    def cell(over: str, value: int, mix: Mix, prompts: Sequence[str], names: Sequence[str]) -> Cell:
        at, tokens = f"{over}={value}", s.sweep_tokens
        return our_cell(stage.ours, mix, prompts, names, tokens, at=at, over={over: value})

    groups = [
        [cell("k", 0, BASE, prompts, usual)]
        + [cell("k", k, Mix("ramole", k), prompts, usual) for k in s.sweep_k],
        [cell("r", r, RAMOLE, prompts, stage.names(r)[:3]) for r in s.sweep_r],
        [cell("p", 0, BASE, many, usual)]
        + [cell("p", p, SELECTION, many, usual[:p]) for p in s.sweep_p],
    ]
    for cells in groups:
        _run(stage, "sweeps", cells, record, tell)


def measure_requests(stage: Stage, record: Record, tell: Tell) -> None:
    """Requests end to end, from submission to the last token of the last, beside PEFT with one
    adapter each."""
    s = stage.sizes
    count, length, tokens = s.requests
    record.begin("requests", s.facts("rank", "adapters", "requests", "repetitions"))
    names, prompts = stage.names()[: s.adapters], stage.prompts(count, length)
    cells = [our_cell(stage.ours, mix, prompts, names, tokens) for mix in (BASE, SELECTION, RAMOLE)]
    cells.append(_peer_cell(stage.peers["peft_one_each"], prompts, names, tokens))
    _run(stage, "requests", cells, record, tell)


def measure_together(stage: Stage, record: Record, tell: Tell) -> None:
    """The same requests at once and one after another: seconds until the last has its answer."""
    s = stage.sizes
    tokens = s.sweep_tokens
    record.begin("together", s.facts("together", "rank", "prompt_tokens", "sweep_tokens"))
    prompts = stage.prompts(s.together, s.prompt_tokens)
    requests = make_requests(prompts, RAMOLE, names=stage.names()[: s.adapters], new_tokens=tokens)
    ours = stage.ours

    def one_after_another() -> Measured:
        return {"seconds": sum(ours.measure([request])["seconds"] for request in requests)}

    cells = [
        Cell("at_once", lambda: {"seconds": ours.measure(requests)["seconds"]}),
        Cell("one_after_another", one_after_another),
    ]
    ours.measure(requests[:1])
    measure_cells(cells, part="together", repetitions=2, record=record, tell=tell)


def measure_retrieval(stage: Stage, record: Record, tell: Tell) -> None:
    """The encoder as it is shipped, and the search."""
    from lab.benchmarks.search_speed import measure_speed
    from ramole_core.retrieval import Encoder

    s = stage.sizes
    record.begin("retrieval", s.facts("retrieval"))
    if record.count("retrieval", "milliseconds"):
        return
    tell("retrieval", 0.0)
    settings = stage.settings
    tuned = settings.adapters_dir / "_retriever"
    encoder = Encoder(settings.encoder, data_dir=settings.data_dir, adapter=tuned)
    found = measure_speed(encoder, s.retrieval)
    record.add("retrieval", "milliseconds", {}, found)


def _run(stage: Stage, part: str, cells: list[Cell], record: Record, tell: Tell) -> None:
    measure_cells(cells, part=part, repetitions=stage.sizes.repetitions, record=record, tell=tell)


def our_cell(
    ours: OurEngine,
    mix: Mix,
    prompts: Sequence[str],
    names: Sequence[str],
    tokens: int,
    *,
    system: str = "",
    at: str = "",
    over: Mapping[str, int] | None = None,
) -> Cell:
    """One batch on our engine; `system` and `at` name the cell, by method and batch size if empty.
    `over`: what else it differs in."""
    requests = make_requests(prompts, mix, names=names, new_tokens=tokens)
    short = make_requests(prompts, mix, names=names, new_tokens=min(tokens, 3))
    system = system or mix.label
    return Cell(
        f"{system}/{at or f'batch={len(prompts)}'}",
        lambda: ours.measure(requests),
        warm_up=lambda: ours.measure(short),
        facts={
            "system": system,
            "batch": len(prompts),
            **(over or {}),
            "distinct": len({name for request in requests for name in request.adapters or ()}),
            "new_tokens": tokens,
        },
    )


def _peer_cell(peer: Peer, prompts: Sequence[str], names: Sequence[str], tokens: int) -> Cell:
    rows = len(prompts)
    return Cell(
        f"{peer.name}/batch={rows}",
        lambda: peer.measure(prompts, names, tokens),
        warm_up=lambda: peer.measure(prompts[: min(rows, 8)], names, min(tokens, 2)),
        facts={"system": peer.name, "batch": rows, "new_tokens": tokens},
        repetitions=1 if peer.name == "peft_switching" and rows > 8 else None,
    )
