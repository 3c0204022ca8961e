"""A system with the public names of `Ramole` and no model: exact answers, at once, offline."""

import atexit
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ramole_core import (
    Explanation,
    Generation,
    Hit,
    RamoleError,
    Request,
    Selection,
    Settings,
    Step,
    TokenLogprob,
    Trace,
)
from ramole_core.answer import Fitting
from ramole_core.methods import METHOD_LIST, Option, find_row
from ramole_core.mixes import Mix, Mixes
from ramole_core.pool.names import near_names

LAYERS, MODULES = [0, 1, 2, 3, 4], ["q_proj", "down_proj"]
WORDS = ("The ", "boats ", "<b>lie</b> ", "${here}", "\n", "quiet", "ly", ".")
"""The answer, a token a word; two of them would be markup, were they not escaped."""


OPTIONS = {
    "mixture": (
        Option("warmth", 0.5, 0.0, 2.0, "How warm the mixture is"),
        Option("rounds", 3, 1, 9, "How often it is stirred"),
    ),
    "fusion": (Option("slow", False, help="Slowly"),),
}
"""Options that some of a fake system's methods may have."""


@dataclass(frozen=True)
class FakeCard:
    name: str
    owner: str | None = None
    description: str = ""
    sha256: str = "c" * 64
    added: str = "2026-01-02T03:04:05+00:00"


class FakePool:
    """Four names, and nothing behind them."""

    def __init__(self):
        self.names = ["ant", "bee", "cat", "dog"]
        self.listeners: list[object] = []

    def cards(self, owner: str | None = None) -> list[FakeCard]:
        return [FakeCard(name) for name in self.names]

    def all_cards(self) -> list[FakeCard]:
        return self.cards()

    def card(self, name: str, owner: str | None = None) -> FakeCard:
        if name not in self.names:
            raise RamoleError(
                f"There is no adapter {name!r} in the pool; {near_names(name, self.names)}"
            )
        return FakeCard(name)


class FakeRetriever:
    """Vectors of three numbers: how long a text is."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[len(text), 0.5, 0.0] for text in texts], np.float32)

    def count_tokens(self, texts: Sequence[str]) -> int:
        return sum(len(text.split()) for text in texts)


class FakeRamole:
    """Experts lead in turn: token i has its largest weight on expert i // 2 modulo k."""

    router_checksum = "ab" * 32

    def __init__(
        self,
        *,
        loaded: bool = True,
        pause: float = 0.0,
        length: int = len(WORDS),
        gate: Path | None = None,
        options: Mapping[str, tuple[Option, ...]] | None = None,
        most_turns: int = 9,
        refuses: Callable[[Request], str] = lambda request: "",
        **settings: object,
    ):
        said = {"data_dir": Path("/nonexistent"), "max_new_tokens": max(300, length), **settings}
        self.settings = Settings(**said)
        self.refuses = refuses
        """The sentence that refuses a call with this request, or ''."""
        self.gate = gate
        """Loading ends once this file is there."""
        self.pool = FakePool()
        self.retriever = FakeRetriever()
        self.model_facts = SimpleNamespace(context=2048, quantization="nf4", vocabulary=5000)
        self.exact = True
        self.loaded, self.pause, self.length = loaded, pause, length
        self.forwards, self.explained, self.batches = 0, 0, 0
        self.running = 0
        self.sessions: list[str | None] = []
        self.addresses: list[str] = []
        self.load_error = ""
        self.options = options or {}
        self.most_turns = most_turns
        """Earlier turns that fit."""
        self.requests: list[Request] = []
        folder = tempfile.mkdtemp(prefix="ramole-mixes-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        self._mixes = Mixes(Path(folder))

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None: ...

    def methods(self):
        return [replace(row, options=self.options.get(row.name, ())) for row in METHOD_LIST]

    def load(self, progress=None) -> None:
        if self.load_error:
            raise RamoleError(self.load_error)
        for fraction in (0.2, 0.6):
            if progress:
                progress("reading the base model", fraction)
            time.sleep(self.pause)
        while self.gate is not None and not self.gate.exists():
            time.sleep(0.05)
        self.loaded = True

    def stop(self, *, seconds: float = 2.0) -> None:
        """An answer that runs ends with the process."""

    def stats(self) -> dict[str, int | float]:
        return {"running": self.running} if self.loaded else {}

    def weights_checksums(self) -> dict[str, str]:
        return {"ramole": self.router_checksum}

    def mixes(self, owner: str | None = None) -> list[Mix]:
        return self._mixes.all(owner)

    def keep_mix(self, name: str, answer: Generation, owner: str | None = None) -> Mix:
        return self._mixes.keep(name, answer, owner)

    def mix_owners(self) -> set[str]:
        return self._mixes.owners()

    def remove_mixes(self, owner: str) -> int:
        return self._mixes.remove_all(owner)

    def spell(self, token_ids: Sequence[int]) -> list[str]:
        return [WORDS[token % len(WORDS)] for token in token_ids]

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(self.spell(token_ids))

    def retrieve(self, text: str, k: int = 3, exclude=(), owner=None) -> list[Hit]:
        names = [name for name in self.pool.names if name not in exclude]
        return [Hit(name, round(0.9 - 0.2 * i, 1), None) for i, name in enumerate(names[:k])]

    def stream_batch(
        self,
        requests: Sequence[Request],
        *,
        cancelled=lambda: False,
        session: str = "",
        address: str = "",
        waiting=lambda index, place: None,
        selected=lambda index, selection: None,
        **_: object,
    ) -> Iterator[tuple[int, Step | Generation]]:
        self.batches += 1
        self.sessions.append(session or requests[0].owner)
        self.addresses.append(address)
        self.requests += requests
        for request in requests:
            self._check(request)
        for index, request in enumerate(requests):
            selected(index, self.select(request))
            waiting(index, 0)
        self.running += 1
        try:
            names = [self._names(request) for request in requests]
            lengths = [min(self.length, request.max_new_tokens) for request in requests]
            steps: list[list[np.ndarray]] = [[] for _ in requests]
            stopped = False
            for t in range(max(lengths)):
                stopped = cancelled()
                if stopped:
                    break
                self.forwards += 1
                time.sleep(self.pause)
                for i, _ in enumerate(requests):
                    if t < lengths[i]:
                        gate = gate_of(t, len(names[i]))
                        steps[i].append(gate)
                        scores = tuple(0.9 - 0.2 * n for n in range(len(names[i])))
                        there = np.ones(gate.shape, np.bool_)
                        told = gate, tuple(names[i]), scores, gate / 8, there
                        likelihood = _likelihood(requests[i], t)
                        yield i, Step(t, WORDS[t % len(WORDS)], *told, likelihood=likelihood)
            for i, request in enumerate(requests):
                yield i, self._generation(request, names[i], steps[i], stopped=stopped)
        finally:
            self.running -= 1

    def explain(self, request: Request, position: int, top: int = 10, *, token_ids=None):
        self.explained += 1
        self.explained_at = (position, token_ids)
        chosen = WORDS[(position - 1 - 2 * len(request.history)) % len(WORDS)]
        rest = [(f"word{i}", 0.3 / (i + 2)) for i in range(top - 1)]
        return Explanation(base=[("<i>base</i>", 0.5), *rest], mixture=[(chosen, 0.6), *rest])

    def _check(self, request: Request) -> None:
        if sentence := self.refuses(request):
            raise RamoleError(sentence)
        if request.method == "base" and any(turn[2] for turn in request.history):
            raise RamoleError("Method base mixes no adapters, but an earlier turn names some.")
        if len(request.history) > self.most_turns and not request.drop_turns:
            raise RamoleError(
                f"The conversation has {len(request.history) + 1} turns, and the base model reads "
                f"at most {self.most_turns + 1}; shorten it, or pass drop_turns=True."
            )

    def _names(self, request: Request) -> list[str]:
        if request.adapters is not None:
            unknown = [name for name in request.adapters if name not in self.pool.names]
            if unknown:
                raise RamoleError(f"Unknown adapter {unknown[0]!r}; choose one of the pool.")
            return list(request.adapters)
        k = {"base": 0, "selection": 1}.get(request.method, request.k)
        return [hit.name for hit in self.retrieve(request.prompt, k, request.exclude)]

    def check(self, request: Request) -> None:
        find_row(request.method)
        earlier = [name for turn in request.history for name in turn[2] or ()]
        for name in (*(request.adapters or ()), *earlier):
            self.pool.card(name)
        if request.max_new_tokens > self.settings.max_new_tokens:
            raise RamoleError(
                f"max_new_tokens={request.max_new_tokens}, but this server gives at most 300."
            )

    def select(self, request: Request) -> Selection:
        names = self._names(request)
        return Selection(tuple(names), tuple(0.9 - 0.2 * n for n in range(len(names))))

    def _generation(
        self, request: Request, names: list[str], steps: list[np.ndarray], *, stopped: bool
    ) -> Generation:
        n, k = len(steps), len(names)
        dropped = max(len(request.history) - self.most_turns, 0)
        earlier = [name for turn in request.history[dropped:] for name in turn[2] or ()]
        others = list(dict.fromkeys(name for name in earlier if name not in names))
        start = 2 + 2 * (len(request.history) - dropped)
        weights = np.zeros((start + n, len(LAYERS), len(MODULES), k + len(others)), np.float16)
        weights[: start - 1, ..., k:] = 1
        for t, gate in enumerate(steps):
            weights[start - 1 + t, ..., :k] = gate
        words = [WORDS[t % len(WORDS)] for t in range(n)]
        trace = Trace(
            tokens=["<s>", "ask", *["turn"] * (start - 2), *words],
            token_ids=list(range(start + n)),
            prompt_length=start,
            adapters=[*names, *others],
            layers=LAYERS,
            modules=MODULES,
            weights=weights,
            contribution=weights / 8,
            present=np.ones(weights.shape, np.bool_),
        )
        measured = request.effects and not stopped
        effects = effects_of(n, k) if measured else None
        base = np.full(n, -2, np.float32) if measured else None
        return Generation(
            text="".join(words),
            adapters=names,
            scores=[0.9 - 0.2 * i for i in range(k)],
            trace=trace if request.trace else None,
            finish_reason="cancelled" if stopped else "eos",
            prompt_tokens=start,
            new_tokens=n,
            seconds=1.5,
            first_token_seconds=0.25,
            extra={"retrieve": 0.02, "queue": 0.01}
            | ({"dropped_turns": float(dropped)} if dropped else {}),
            fitted=self._fitted(request, names) if request.examples else None,
            prompt_logprobs=self._prompt_logprobs(request, start),
            effects=effects,
            base_logprob=base,
            logprob=None if base is None or effects is None else base + effects.sum(-1),
            subset_logprob=None if effects is None else subsets_of(effects),
        )

    def _prompt_logprobs(self, request: Request, length: int) -> tuple[TokenLogprob, ...]:
        if not request.prompt_logprobs:
            return ()
        first, *rest = request.prompt_ids or range(length)
        found = [_likelihood(request, token) for token in rest]
        return (TokenLogprob(first, None), *(one for one in found if one is not None))

    def _fitted(self, request: Request, names: list[str]) -> Fitting:
        """The first adapter alone, whatever the examples are."""
        weights = (1.0, *[0.0] * (len(names) - 1))
        sums = tuple(f"{n:064x}" for n in range(len(names)))
        return Fitting(request.method, tuple(names), sums, 40, 40, weights, 0.5, 2.0, 1.0)


def _likelihood(request: Request, token: int) -> TokenLogprob | None:
    """Its own token is always the likeliest."""
    if request.logprobs is None:
        return None
    top = tuple((token + n, -0.5 - n) for n in range(request.logprobs))
    return TokenLogprob(token, -0.5, top)


def effects_of(n: int, k: int) -> np.ndarray:
    """[n, k]: expert t // 2 modulo k made token t likelier, the others less so; nobody changed
    every fourth token."""
    effects = np.full((n, k), -0.125, np.float32)
    for t in range(n):
        if k:
            effects[t, (t // 2) % k] = 1.5
    effects[3::4] = 0
    return effects


def subsets_of(effects: np.ndarray) -> np.ndarray:
    """[n, 2^k]: the log probability with each subset, of adapters that do not help each other."""
    k = effects.shape[1]
    there = np.array([[c >> e & 1 for c in range(2**k)] for e in range(k)], np.float32)
    return -2 + effects @ there.reshape(k, 2**k)


def gate_of(t: int, k: int) -> np.ndarray:
    """[layer, module, k]: expert t // 2 modulo k has weight 0.5 more than each other."""
    gate = np.full((len(LAYERS), len(MODULES), k), 0.5 / max(k, 1), np.float16)
    if k:
        gate[..., (t // 2) % k] += 0.5
    return gate


class Late(FakeRamole):
    """Refuses a call with a bad prompt once each of its rows has a token."""

    def stream_batch(self, requests, **options):
        bad = [request.prompt for request in requests if "bad" in request.prompt]
        for count, item in enumerate(super().stream_batch(requests, **options), 1):
            yield item
            if bad and count == len(requests):
                raise RamoleError(f"{bad[0]} does not fit.")
