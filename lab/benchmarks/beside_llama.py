"""The part beside llama.cpp: our engine with its base in 4 bits, and the GGUF that it came from."""

from collections.abc import Mapping, Sequence

import torch

from lab.benchmarks.interleave import Cell, Tell, measure_cells
from lab.benchmarks.llama_cpp import LlamaCpp
from lab.benchmarks.parts import our_cell
from lab.benchmarks.record import Record
from lab.benchmarks.stage import Stage
from ramole_core.base.fetch import unpack_gguf
from ramole_core.cli.timed_engine import BASE, RAMOLE, OurEngine

FORMS = {
    "": ("nf4", "full"),
    "_int8": ("nf4", "int8"),
    "_int4": ("int4", "full"),
    "_int4_int8": ("int4", "int8"),
}
"""Behind a system's name, and how its linear layers and its output head are held."""


def measure_beside_llama(stage: Stage, record: Record, tell: Tell) -> None:
    """Decoding alone and many at once, and reading one long prompt; raises RamoleError where
    llama.cpp is not there."""
    s = stage.sizes
    peer = LlamaCpp(
        unpack_gguf(stage.settings.base_model, stage.folder("gguf"), tell),
        threads=torch.get_num_threads(),
    )
    facts = ("rank", "adapters", "prompt_tokens", "llama_tokens", "llama_prompt")
    held = ", ".join(dict.fromkeys(bits for bits, _ in FORMS.values()))
    setup = {"quantization": held, "llama_cpp_python": peer.version}
    record.begin("llama_cpp", s.facts(*facts, "llama_repetitions") | setup)
    ours = {name: stage.in_bits(bits, head=head) for name, (bits, head) in FORMS.items()}
    cells: list[Cell] = []
    for rows, tokens in s.llama_tokens.items():
        prompts = stage.prompts(rows, s.prompt_tokens)
        cells += _cells(stage, ours, peer, prompts, tokens, f"batch={rows}")
    cells += _cells(stage, ours, peer, stage.prompts(1, s.llama_prompt), 1, "prompt")
    try:
        measure_cells(
            cells, part="llama_cpp", repetitions=s.llama_repetitions, record=record, tell=tell
        )
    finally:
        peer.close()


def _cells(
    stage: Stage,
    ours: Mapping[str, OurEngine],
    peer: LlamaCpp,
    prompts: Sequence[str],
    tokens: int,
    at: str,
) -> list[Cell]:
    facts = {"batch": len(prompts), "new_tokens": tokens}
    tokenizer = ours[""].ramole.base.tokenizer
    ids = [list(tokenizer(prompt)["input_ids"]) for prompt in prompts]
    theirs = Cell(
        f"{peer.name}/{at}",
        lambda: peer.measure(ids, tokens),
        warm_up=lambda: peer.measure(ids, min(tokens, 3)),
        facts={"system": peer.name, **facts},
    )
    names = stage.names()[: stage.sizes.adapters]
    return [theirs] + [
        our_cell(engine, mix, prompts, names, tokens, system=f"{mix.label}{name}", at=at)
        for name, engine in ours.items()
        for mix in (BASE, RAMOLE)
    ]
