"""How much each part measures: the whole benchmark in half an hour on two cores, or a quick try."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Token counts and repetitions; what is generated is the same length for every system."""

    repetitions: int
    """Of every cell, interleaved."""
    rank: int
    """Of every adapter, on all linear modules."""
    adapters: int
    """Different ones in a full batch."""
    prompt_tokens: int
    new_tokens: dict[int, int]
    """By batch size; the rate of decoding is that of the tokens after the first."""
    prefill: tuple[int, int]
    """Requests, and prompt tokens of each."""
    peer_tokens: dict[int, int]
    xlora_tokens: dict[int, int]
    """Fewer: each token costs it the whole text, so a short one is to its favour."""
    switching_tokens: dict[int, int]
    mixed_rows: int
    """Most rows that Arrow and X-LoRA are measured with."""
    requests: tuple[int, int, int]
    """Requests at once from submission to the last token, prompt tokens and new tokens of each."""
    llama_tokens: dict[int, int]
    """Of the part beside llama.cpp, by batch size."""
    llama_prompt: int
    """Tokens of the one prompt that it reads there."""
    llama_repetitions: int
    together: int
    """Requests at once, against one after another."""
    together_tokens: int
    serve_adapters: tuple[int, ...]
    """N of the S-LoRA workload; the pool holds as many as the largest."""
    serve_requests: int
    """Of each run as fast as possible."""
    serve_repetitions: int
    serve_share: float
    """Of the requests a second of the fewest adapters, in the run in real time."""
    serve_seconds: float
    peer_adapters: int
    """N of the same workload beside PEFT."""
    sweep_adapters: int
    """N while another parameter of the workload changes."""
    small_adapters: int
    """N of small adapters."""
    serve_prompt: tuple[int, int]
    serve_answer: tuple[int, int]
    retrieval: tuple[int, ...]
    """Pool sizes of the search."""


FULL = Sizes(
    repetitions=3, rank=8, adapters=24, prompt_tokens=16, new_tokens={1: 40, 8: 24, 32: 16},
    prefill=(8, 128), peer_tokens={1: 24, 8: 12, 32: 8}, xlora_tokens={1: 8, 8: 5},
    switching_tokens={1: 12, 8: 8, 32: 4}, mixed_rows=8, requests=(32, 26, 32),
    llama_tokens={1: 64, 8: 32, 32: 24}, llama_prompt=480, llama_repetitions=5, together=16,
    together_tokens=12, serve_adapters=(5, 50, 100, 500, 1000, 2000),
    serve_requests=96, serve_repetitions=5, serve_share=0.8, serve_seconds=25.0,
    peer_adapters=100, sweep_adapters=1000, small_adapters=10_000,
    serve_prompt=(8, 32), serve_answer=(8, 32), retrieval=(100, 1000, 10_000),
)  # fmt: skip
QUICK = Sizes(
    repetitions=1, rank=8, adapters=8, prompt_tokens=8, new_tokens={1: 4, 2: 4}, prefill=(2, 16),
    peer_tokens={1: 3, 2: 3}, xlora_tokens={1: 2, 2: 2}, switching_tokens={1: 2, 2: 2},
    mixed_rows=2, requests=(2, 6, 3), llama_tokens={1: 4, 2: 4}, llama_prompt=24,
    llama_repetitions=1, together=2, together_tokens=4, serve_adapters=(2, 6), serve_requests=6,
    serve_repetitions=1, serve_share=0.8, serve_seconds=1.0, peer_adapters=3,
    sweep_adapters=4, small_adapters=8, serve_prompt=(4, 8), serve_answer=(2, 5), retrieval=(50,),
)  # fmt: skip
