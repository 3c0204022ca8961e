"""The parts of the benchmark: each yields the cells that are measured in turns.

What a part's numbers depend on beside them is the sizes (`sizes.py`), the same for every part.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from lab.benchmarks.arrivals import arrival_cells
from lab.benchmarks.llama_cpp import LlamaCpp
from lab.benchmarks.peers import Peer
from lab.benchmarks.record import Cell, Measured, Record
from lab.benchmarks.search_speed import measure_speed
from lab.benchmarks.serving import serving_cells
from lab.benchmarks.stage import Stage
from ramole_core.base.fetch import unpack_gguf
from ramole_core.cli.timed_engine import (
    BASE,
    MIXTURE,
    RAMOLE,
    SELECTION,
    MixSpec,
    OurEngine,
    make_requests,
)
from ramole_core.retrieval import Encoder

Part = Callable[[Stage, Record], Iterator[Sequence[Cell]]]
ONE, EIGHT, TRACED = MixSpec("ramole", 1), MixSpec("ramole", 8), MixSpec("ramole", 3, trace=True)
MIXES = (BASE, SELECTION, MIXTURE, ONE, RAMOLE, EIGHT, TRACED)
PREFILLED = (BASE, SELECTION, MIXTURE, RAMOLE, EIGHT)
FORMS = {
    "": ("nf4", "full"),
    "_int8": ("nf4", "int8"),
    "_int4": ("int4", "full"),
    "_int4_int8": ("int4", "int8"),
}
"""Behind a system's name beside llama.cpp, and how its linear layers and output head are held."""


def decode(stage: Stage, record: Record) -> Iterator[Sequence[Cell]]:
    """Our engine's methods, and the bare base under `generate`, at each batch size."""
    for rows, tokens in stage.sizes.new_tokens.items():
        prompts = stage.prompts(rows, stage.sizes.prompt_tokens)
        yield [peer_cell(stage, stage.bare, prompts, tokens), *ours(stage, MIXES, prompts, tokens)]


def prefill(stage: Stage, record: Record) -> Iterator[Sequence[Cell]]:
    """Reading prompts only: each request ends at its first token."""
    prompts = stage.prompts(*stage.sizes.prefill)
    yield [peer_cell(stage, stage.bare, prompts, 1), *ours(stage, PREFILLED, prompts, 1)]


def peers(stage: Stage, record: Record) -> Iterator[Sequence[Cell]]:
    """PEFT in its four ways beside ramole k=3 of our engine."""
    s = stage.sizes
    lengths = {"peft_xlora": s.xlora_tokens, "peft_switching": s.switching_tokens}
    for rows, tokens in s.peer_tokens.items():
        prompts = stage.prompts(rows, s.prompt_tokens)
        yield ours(stage, [RAMOLE], prompts, tokens) + [
            peer_cell(stage, peer, prompts, lengths.get(name, s.peer_tokens)[rows])
            for name, peer in stage.peers.items()
            if rows <= s.mixed_rows or name not in ("peft_arrow", "peft_xlora")
        ]


def requests(stage: Stage, record: Record) -> Iterator[Sequence[Cell]]:
    """Requests end to end, from submission to the last token of the last, beside PEFT with one
    adapter each."""
    count, length, tokens = stage.sizes.requests
    prompts, peer = stage.prompts(count, length), stage.peers["peft_one_each"]
    cells = ours(stage, [BASE, SELECTION, RAMOLE], prompts, tokens)
    yield [*cells, peer_cell(stage, peer, prompts, tokens)]


def together(stage: Stage, record: Record) -> Iterator[Sequence[Cell]]:
    """The same requests at once and one after another: seconds until the last has its answer."""
    s, ours = stage.sizes, stage.ours
    prompts = stage.prompts(s.together, s.prompt_tokens)
    asked = make_requests(prompts, RAMOLE, names=stage.shared, new_tokens=s.together_tokens)

    def one_after_another() -> Measured:
        return {"seconds": sum(ours.measure([request])["seconds"] for request in asked)}

    ours.measure(asked[:1])
    yield [
        Cell("at_once", lambda: {"seconds": ours.measure(asked)["seconds"]}, repetitions=2),
        Cell("one_after_another", one_after_another, repetitions=2),
    ]


def retrieval(stage: Stage, record: Record) -> Iterator[Sequence[Cell]]:
    """The encoder as it is shipped, and the search."""
    s = stage.settings

    def measure() -> Measured:
        encoder = Encoder(s.encoder, data_dir=s.data_dir, adapter=s.adapters_dir / "_retriever")
        return measure_speed(encoder, stage.sizes.retrieval)

    yield [Cell("milliseconds", measure, repetitions=1)]


def llama_cpp(stage: Stage, record: Record) -> Iterator[Sequence[Cell]]:
    """Decoding alone and many at once, and reading one long prompt, beside llama.cpp's bare base in
    the GGUF that ours came from; raises RamoleError where llama.cpp is not there."""
    s, began = stage.sizes, time.perf_counter()
    gguf = unpack_gguf(stage.settings.base_model, stage.folder("gguf"), stage.tell)
    peer = LlamaCpp(gguf, threads=torch.get_num_threads())
    record.note("llama_cpp", "llama_cpp_python", peer.version)
    held = {end: stage.in_bits(bits, head=head) for end, (bits, head) in FORMS.items()}
    record.note("llama_cpp", "open_seconds", round(time.perf_counter() - began, 1))

    def cells(prompts: Sequence[str], tokens: int, at: str) -> Iterator[Cell]:
        tokenizer = held[""].ramole.base.tokenizer
        ids = [list(tokenizer(prompt)["input_ids"]) for prompt in prompts]
        facts = {"system": peer.name, "batch": len(prompts), "new_tokens": tokens}
        first = lambda: peer.measure(ids, min(tokens, 3))  # noqa: E731
        yield Cell(f"{peer.name}/{at}", lambda: peer.measure(ids, tokens), first, facts)
        for end, engine in held.items():
            for mix in (BASE, RAMOLE):
                system = f"{mix.label}{end}"
                yield our_cell(engine, mix, prompts, stage.shared, tokens, system=system, at=at)

    wanted = [
        *(
            cell
            for rows, tokens in s.llama_tokens.items()
            for cell in cells(stage.prompts(rows, s.prompt_tokens), tokens, f"batch={rows}")
        ),
        *cells(stage.prompts(1, s.llama_prompt), 1, "prompt"),
    ]
    try:
        yield [replace(cell, repetitions=s.llama_repetitions) for cell in wanted]
    finally:
        peer.close()


PARTS: Mapping[str, Part] = {
    "slora": serving_cells,  # first: its memory is that of a process which did nothing else
    "arrivals": arrival_cells,
    "decode": decode,
    "prefill": prefill,
    "peers": peers,
    "requests": requests,
    "together": together,
    "retrieval": retrieval,
    "llama_cpp": llama_cpp,
}
OPTIONAL = ("arrivals", "llama_cpp")
"""Parts that take long, or need a package of their own, and run where they are named."""


def ours(stage: Stage, mixes: Sequence[MixSpec], prompts: Sequence[str], tokens: int) -> list[Cell]:
    """Our engine over the shared adapters, mixed in these ways."""
    return [our_cell(stage.ours, mix, prompts, stage.shared, tokens) for mix in mixes]


def our_cell(
    engine: OurEngine,
    mix: MixSpec,
    prompts: Sequence[str],
    names: Sequence[str],
    tokens: int,
    *,
    system: str = "",
    at: str = "",
) -> Cell:
    """One batch on our engine; `system` and `at` name the cell, by method and batch size if
    empty."""
    asked, short = (
        make_requests(prompts, mix, names=names, new_tokens=new) for new in (tokens, min(tokens, 3))
    )
    system = system or mix.label
    distinct = len({name for request in asked for name in request.adapters or ()})
    return Cell(
        f"{system}/{at or f'batch={len(prompts)}'}",
        lambda: engine.measure(asked),
        lambda: engine.measure(short),
        {"system": system, "batch": len(prompts), "distinct": distinct, "new_tokens": tokens},
    )


def peer_cell(stage: Stage, peer: Peer, prompts: Sequence[str], tokens: int) -> Cell:
    """One batch of a peer."""
    rows, names = len(prompts), stage.shared
    return Cell(
        f"{peer.name}/batch={rows}",
        lambda: peer.measure(prompts, names, tokens),
        lambda: peer.measure(prompts[: min(rows, 8)], names, min(tokens, 2)),
        {"system": peer.name, "batch": rows, "new_tokens": tokens},
        repetitions=1 if peer.name == "peft_switching" and rows > 8 else None,
    )
