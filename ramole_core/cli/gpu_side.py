"""Results and timings of one device: load a base model there, run it, and time it.

For `doctor --gpu` (`gpu_check.py`), which holds several of these against each other.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from statistics import median

import torch
from torch import Tensor, nn

from ramole_core.cli.timed_engine import BASE, MixSpec, OurEngine, make_prompts, make_requests
from ramole_core.engine.graph_step import Graphs
from ramole_core.engine.reference import PROMPTS
from ramole_core.errors import RamoleError
from ramole_core.layers import Fused
from ramole_core.layers.fused import MAX_FUSED
from ramole_core.ramole import Ramole
from ramole_core.request import Generation, Request
from ramole_core.settings import Settings

AnswerTokens = dict[str, list[list[int]]]
"""Token ids of each answer, by way of running."""
ALONE, TOGETHER, BARE = "alone", "at once", "base"


@dataclass(frozen=True)
class RunSizes:
    """Sizes of the run; `mix` answers beside the bare base."""

    mix: MixSpec = MixSpec("ramole", 3)
    new_tokens: int = 24
    """New tokens of each answer that is compared."""
    together: int = 8
    """Requests at once, whose answers are compared."""
    prefill: int = 480
    """Tokens of the prompt that is timed."""
    prompt: int = 26
    """Tokens of the prompts whose decoding is timed."""
    rows: tuple[int, ...] = (1, 8, 32)
    decoded: int = 48
    """New tokens of each row that is timed."""
    repetitions: int = 3
    """Repetitions of each timing, whose spread shows a busy machine."""


@dataclass(frozen=True)
class Spread:
    """A timing: the middle one of its repetitions, and the two ends."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Side:
    """One base model on one device."""

    name: str
    device: str
    quantization: str
    dtype: str
    logits: Tensor = field(repr=False)
    """After each of our prompts, by the base and mixed: [b, v], float32 on the CPU."""
    tokens: AnswerTokens = field(repr=False)
    apart: float | None
    """Mean KL between few tokens mixed by PyTorch and by Triton; None: only one of them mixes."""
    mixing: str
    """Form in which a decode step is mixed."""
    steps: str
    """How decode steps are launched."""
    load_seconds: float
    first_token_seconds: Spread | None
    """None: not timed."""
    rates: dict[str, Spread]
    """Tokens a second: prefill, and decode by the number of rows."""
    bytes: dict[str, int]
    """Weights, and on a card the most that was held at a time."""

    def facts(self) -> dict[str, object]:
        """Everything but logits and answers, as plain data."""
        names = {"apart": "triton_pytorch_kl", "rates": "tokens_per_second"}
        left = ("name", "logits", "tokens")
        return {names.get(n, n): value for n, value in asdict(self).items() if n not in left}


def measure_side(
    name: str,
    settings: Settings,
    sizes: RunSizes,
    *,
    timed: bool = True,
    tell: Callable[[str, float], None] = lambda stage, fraction: None,
) -> Side:
    """Load the base with these settings, run the requests, and with `timed` time them."""
    cuda = settings.device == "cuda"
    if cuda:
        gc.collect()  # the side before may still be held by a cycle
        torch.cuda.reset_peak_memory_stats()
    with Ramole(settings) as ramole:
        began = time.perf_counter()
        ramole.load(lambda stage, fraction: tell(f"{name}: {stage}", fraction))
        load = time.perf_counter() - began
        ours, names = OurEngine(ramole), _names(ramole, sizes.mix.k)
        tell(f"{name}: asking", 0.0)
        logits, tokens = _logits(ramole, sizes.mix, names), _answers(ours, sizes, names)
        apart, fused = None, ramole.engine.fused
        if fused is not None and not fused.fault:
            apart = _apart(ramole, fused, sizes.mix, names)
        first, rates = None, {}
        if timed:
            tell(f"{name}: timing", 0.0)
            first, rates = _timed(ours, sizes, names)
        graphs, mixing, steps = ramole.engine.graphs, _mixing(ramole), _steps(ramole)
        for how, one in (("mixed by PyTorch", fused), ("without CUDA graphs", graphs)):
            if timed and one is not None and not one.fault:
                with _paused(one):
                    plain = _timed(ours, sizes, names)[1]
                rates |= {f"{what}, {how}": spread for what, spread in plain.items()}
        held = {"weights": _weights(ramole.base.model)}
        if cuda:
            held["most on the card"] = torch.cuda.max_memory_allocated()
        dtype = str(ramole.base.dtype).removeprefix("torch.")
        where, kind = str(ramole.base.device), ramole.base.quantization
    return Side(
        *(name, where, kind, dtype, logits, tokens, apart, mixing, steps),
        *(load, first, rates, held),
    )


def _mixing(ramole: Ramole) -> str:
    fused = ramole.engine.fused
    if fused is not None and fused.fault:
        return f"PyTorch, since Triton failed ({fused.fault})"
    if fused is not None and fused.launched:
        return "Triton"
    return "our kernels" if ramole.engine.facts.exact else "PyTorch"


def _steps(ramole: Ramole) -> str:
    graphs, stats = ramole.engine.graphs, ramole.engine.stats()
    if graphs is None:
        return "as recorded on the CPU" if stats["replayed"] else "layer by layer"
    if graphs.fault:
        return f"layer by layer, since CUDA graphs failed ({graphs.fault})"
    return f"as CUDA graphs, {stats['replayed']} of {stats['forwards']} forwards"


def _apart(ramole: Ramole, fused: Fused, mix: MixSpec, names: Sequence[str]) -> float | None:
    """KL(PyTorch, Triton) after the prompts that are short enough for Triton, each alone; by
    logits, since rounding soon changes answers."""
    asked = ramole.prepare(make_requests(PROMPTS, mix, names=names, new_tokens=1))
    short = [one for one in asked if len(one.prompt.ids) <= MAX_FUSED]
    before = fused.launched
    ours = torch.cat([ramole.engine.next_logits([one]) for one in short])
    if fused.launched == before:
        return None
    with _paused(fused):
        theirs = torch.cat([ramole.engine.next_logits([one]) for one in short])
    return float(divergence(theirs, ours).mean())


def divergence(truth: Tensor, other: Tensor) -> Tensor:
    """KL(truth, other) of the next token, by prompt; of logits [b, v]."""
    p, q = truth.double().log_softmax(-1), other.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def _names(ramole: Ramole, k: int) -> list[str]:
    names = sorted(card.name for card in ramole.pool.all_cards() if card.owner is None)
    if len(names) < k:
        raise RamoleError(
            f"The pool has {len(names)} shared adapters, and {k} are mixed to compare a GPU with "
            "the CPU; add some, or set RAMOLE_ADAPTERS_DIR to the sample pool."
        )
    return names


def _logits(ramole: Ramole, mix: MixSpec, names: Sequence[str]) -> Tensor:
    found = []
    for one in (BASE, mix):
        requests = make_requests(PROMPTS, one, names=names, new_tokens=1)
        found.append(ramole.engine.next_logits(ramole.prepare(requests)))
    return torch.cat(found)


def _answers(ours: OurEngine, sizes: RunSizes, names: Sequence[str]) -> AnswerTokens:
    def ask(mix: MixSpec) -> list[Request]:
        prompts = PROMPTS[: sizes.together]
        return make_requests(prompts, mix, names=names, new_tokens=sizes.new_tokens)

    few = ask(sizes.mix)[:3]
    return {
        BARE: [_answer_ids(ours, [one])[0] for one in ask(BASE)[:3]],
        ALONE: [_answer_ids(ours, [one])[0] for one in few],
        TOGETHER: _answer_ids(ours, ask(sizes.mix)),
    }


def _answer_ids(ours: OurEngine, requests: Sequence[Request]) -> list[list[int]]:
    """The answers' tokens of requests that run together."""
    ours.ramole.engine.forget_prefixes()
    states = [ours.submit(request) for request in requests]
    found: dict[int, list[int]] = {state.number: [] for state in states}
    while not ours.idle:
        for state, item in ours.step():
            if not isinstance(item, Generation):
                found[state.number].append(item.token)
    return [found[state.number] for state in states]


def _timed(
    ours: OurEngine, sizes: RunSizes, names: Sequence[str]
) -> tuple[Spread, dict[str, Spread]]:
    """Seconds to a short prompt's first token, and tokens a second; each once before it counts."""
    tokenizer = ours.ramole.base.tokenizer

    def measured(what: str, *, tokens: int, rows: int, new: int) -> Spread:
        prompts = make_prompts(tokenizer, tokens=tokens, count=rows)
        requests = make_requests(prompts, sizes.mix, names=names, new_tokens=new)
        ours.measure(requests)
        found = [ours.measure(requests)[what] for _ in range(sizes.repetitions)]
        return Spread(median(found), min(found), max(found))

    first = measured("seconds", tokens=sizes.prompt, rows=1, new=1)
    read = measured("prefill_tokens_per_second", tokens=sizes.prefill, rows=1, new=1)
    rates = {f"prefill of {sizes.prefill}": read}
    for rows in sizes.rows:
        what, new = "decode_tokens_per_second", sizes.decoded
        rates[f"decode, {rows} at once"] = measured(what, tokens=sizes.prompt, rows=rows, new=new)
    return first, rates


@contextmanager
def _paused(one: Fused | Graphs) -> Iterator[None]:
    one.on = False
    try:
        yield
    finally:
        one.on = True


def _weights(model: nn.Module) -> int:
    """Bytes of all weights, the scales of those in NF4 with them."""
    states = (getattr(one, "quant_state", None) for one in model.parameters())
    scales = sum(state.absmax.nbytes for state in states if state is not None)
    return scales + sum(one.nbytes for one in model.parameters())
