"""The engine: base model, served layers, adapters and the shared batch; a `Backend`."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ramole_core.base.model import BaseModel
from ramole_core.composition import Candidate, Response
from ramole_core.effects import Subset
from ramole_core.engine.attention import ServedAttention
from ramole_core.engine.bare_reading import BareReader
from ramole_core.engine.decoding import spell
from ramole_core.engine.effect_reading import EffectReading
from ramole_core.engine.engine_thread import EngineThread
from ramole_core.engine.fitting import Fit
from ramole_core.engine.graph_step import Graphs
from ramole_core.engine.isolated_forward import IsolatedForward
from ramole_core.engine.kv import KvCache
from ramole_core.engine.load_check import Verdict, check_served
from ramole_core.engine.model_runner import ModelRunner
from ramole_core.engine.new_state import new_pair_state, new_request_state
from ramole_core.engine.own_forward import OwnForward
from ramole_core.engine.pair_reading import PairReading
from ramole_core.engine.placement import Placer, Weights
from ramole_core.engine.prompt import Prepared, Prompt, encode_prompt, leave_out
from ramole_core.engine.prompt_means import KnownMeans
from ramole_core.engine.reader import RequestReader, facts_of_model
from ramole_core.engine.reference import Reference, remembered, response_of, what_of
from ramole_core.engine.request_state import Deliver, RequestState
from ramole_core.engine.request_stream import Caller, RequestStream
from ramole_core.engine.running_batch import Event
from ramole_core.engine.scheduler import Scheduler, Sizes
from ramole_core.engine.segment_maker import SegmentMaker
from ramole_core.engine.segments import Segment, Segments
from ramole_core.engine.store import UnitStore
from ramole_core.errors import Busy, fault_of
from ramole_core.kernels.all import compile_kernels
from ramole_core.kernels.threads import kernels_alone
from ramole_core.layers import Bank, find_layout, fused_of, install_serving, is_exact
from ramole_core.request import Generation, Request, Step
from ramole_core.turns import Source, TurnLock, never


@dataclass(frozen=True)
class EngineSizes(Sizes):
    """Limits of an engine: requests, tokens and bytes."""

    kv_cache_bytes: int = 2**30
    device_cache_bytes: int = 2**29
    host_cache_bytes: int = 2**30
    units_dir: Path | None = field(default=None)
    """Where packed adapters are kept; None: in memory only."""
    reference_dir: Path | None = field(default=None)
    """Where the reference's inputs are kept (`reference.py`); None: read at every start."""


class Likely(NamedTuple):
    """The likeliest next tokens, best first."""

    tokens: list[tuple[str, float]]
    """With their probabilities."""
    ids: list[int]


class Engine:
    """An engine over a base model; `close()` leaves the model unchanged.

    `step` is called by a thread of its own from `start` on (`EngineThread`), before that by the
    callers of `stream`, in turn.
    """

    def __init__(
        self,
        base: BaseModel,
        *,
        shapes: Mapping[str, tuple[int, int]],
        weights: Weights,
        sizes: EngineSizes | None = None,
        fused: bool = True,
        graphs: bool = True,
        own: OwnForward | None = None,
    ):
        """`shapes`: (i, o) of the layers to serve, by module path; `weights` gives a method's
        trained weights. On a GPU, `fused`: few tokens may be mixed by Triton; `graphs`: decode
        steps may be CUDA graphs. With `own`, what is served is held against it, and `verdict` says
        how that went. Raises RamoleError for a model that cannot be served."""
        self._base = base
        self.sizes = sizes = sizes or EngineSizes()
        self._lock = TurnLock()
        self.layout = find_layout(base.model, shapes)
        self.bank = Bank(
            self.layout, device=base.device, dtype=base.dtype, limit=sizes.device_cache_bytes
        )
        self._kv = KvCache(base.model, limit=sizes.kv_cache_bytes)
        self._attention = ServedAttention(base.model)
        self.exact = is_exact(base.model)
        """Whether a token's bits are independent of the other requests."""
        self.fused = fused_of(base.device) if fused else None
        """What mixes a step's tokens in one launch a group; None: PyTorch or our kernels do."""
        self._installed, serving = install_serving(base.model, self.layout, fused=self.fused)
        if base.device.type == "cpu":
            compile_kernels("none")  # its weights are rounded by now
        self.graphs = Graphs() if graphs and base.device.type == "cuda" else None
        """What keeps decode steps on a GPU."""
        self._runner = ModelRunner(
            base.model,
            bank=self.bank,
            serving=serving,
            attention=self._attention,
            graphs=self.graphs,
        )
        self.store = UnitStore(
            self.layout,
            dtype=base.dtype,
            limit=sizes.host_cache_bytes,
            folder=sizes.units_dir,
            base=f"{base.checksum} {base.quantization}",
            measure=None,
        )
        self._known_means = KnownMeans()
        self._placer = Placer(
            self.layout,
            bank=self.bank,
            store=self.store,
            weights=weights,
            means=self.mean_inputs,
            dtype=base.dtype,
        )
        self._maker = SegmentMaker(self.layout, self._placer)
        self.facts = facts_of_model(base, layout=self.layout, exact=self.exact)
        self.scheduler = Scheduler(
            tokenizer=base.tokenizer,
            layout=self.layout,
            kv=self._kv,
            runner=self._runner,
            eos=self.facts.eos,
            sizes=sizes,
            pin=self._placer.pin,
            release=self._placer.release,
        )
        self._alone = IsolatedForward(
            base.model,
            runner=self._runner,
            placer=self._placer,
            lock=self._lock,
            chunk=sizes.prefill_chunk,
            idle=lambda: self.scheduler.idle,
            behind=self.scheduler.behind,
            note=lambda source, seconds: self.scheduler.shares.add(seconds, [(source, 1.0)]),
        )
        self._bare = BareReader(base.model, self.layout, placer=self._placer, alone=self._alone)
        self._reader = RequestReader(base.tokenizer, self.facts, weights=weights)
        self.read, self.prepare = self._reader.read, self._reader.prepare
        self.complete, self.fit = self._reader.complete, self._reader.fit
        self._thread: EngineThread | None = None
        self.verdict = None if own is None else self._check(own)
        read = remembered(
            self._bare.ends, folder=sizes.reference_dir, what=what_of(base, self.layout)
        )
        self.store.measure = Reference(read, base.tokenizer).measure

    def _check(self, own: OwnForward) -> Verdict:
        """Compare the served forward with the model's own; where they differ, close and raise what
        was found."""
        try:
            bare = self._bare.placement()
            with (
                self._lock.turn(),
                torch.inference_mode(),
                self._placer.pinned([bare], "") as (row,),
            ):
                verdict = check_served(self._base.model, own, runner=self._runner, bare=row)
        except Exception:
            self.close()
            raise
        self.allow_exact(verdict.exact)
        return verdict

    def allow_exact(self, exact: bool) -> None:
        """Mark results as dependent on the batch, where that was found."""
        self.exact = self.exact and exact
        if not self.exact:  # they would show in the bits
            self.scheduler.sizes = replace(self.scheduler.sizes, draft_rows=0)
        self.facts = replace(self.facts, exact=self.exact)
        self._reader.facts = self.facts

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base model's."""
        return self._base.tokenizer

    @property
    def context(self) -> int:
        """Most tokens of a prompt and its answer together."""
        return self.facts.context

    @property
    def idle(self) -> bool:
        return self.scheduler.idle and not (self._thread and self._thread.expects)

    @property
    def alive(self) -> bool:
        """Whether the engine can be stepped: its thread is alive, or callers step it."""
        return self._thread is None or self._thread.alive

    def start(self) -> None:
        if self._thread is None:
            self._thread = EngineThread(self)
            self._thread.start()

    def expecting(self) -> AbstractContextManager[None]:
        return nullcontext() if self._thread is None else self._thread.expecting()

    def stream(
        self, asked: Sequence[Prepared], **caller: Unpack[Caller]
    ) -> Iterator[tuple[int, Step | Generation]]:
        return iter(RequestStream(self, lambda: self._thread, asked, **caller))

    def pack(self, candidate: Candidate) -> None:
        self.store.pack(candidate.checksum, candidate.load)

    def keep_only(self, checksums: Iterable[str]) -> None:
        self.store.keep_only(checksums)

    def submit(
        self,
        prepared: Prepared,
        *,
        session: str = "",
        address: str = "",
        stopped: bool = False,
        deliver: Deliver | None = None,
    ) -> RequestState:
        """Queue a request, after reading its adapters and placing its method's decision in the
        caller's thread. Of one that is `stopped` already, nothing is made.

        Raises RamoleError where it could never run, Busy where too many wait.
        """
        self.scheduler.queue.check_place(session=session, address=address)
        prepared = leave_out(prepared)
        segments = self._maker.segments(prepared, bare=stopped)
        self._check_made(segments)
        count = len(prepared.candidates) if stopped else len(segments.open.names)
        state = new_request_state(
            prepared,
            segments,
            prepared.candidates[:count],
            facts=self.facts,
            tokenizer=self.tokenizer,
            session=session,
            address=address,
        )
        return self.scheduler.submit(state, deliver)

    def submit_step(
        self,
        fit: Fit,
        *,
        session: str = "",
        address: str = "",
        deliver: Deliver,
    ) -> RequestState:
        """Put the next step of a search into the queue: its examples, read by one row under the
        weights that it asks for; `deliver` gets the `PairReading` once all are read.

        Raises as `submit` does.
        """
        self.scheduler.queue.check_place(session=session, address=address)
        asked, reading = fit.ask(), fit.reading()
        placement = self._maker.place(asked, fit.candidates, ephemeral=True)
        names = tuple(one.name for one in fit.candidates)
        segments = Segments((Segment(reading.longest, placement, names),))
        self._check_made(segments)
        state = new_pair_state(
            replace(asked, trace=False),
            reading,
            segments,
            fit.candidates,
            tokenizer=self._base.tokenizer,
            session=session,
            address=address,
        )
        return self.scheduler.submit(state, deliver)

    def read_again(
        self,
        prepared: Prepared,
        state: RequestState,
        deliver: Deliver,
    ) -> EffectReading:
        """Have the tokens of an answer that has ended read again, beside the batch; `deliver` gets
        a `PairReading` of each of the reading's states. Raises RamoleError where its method cannot
        use some of its adapters without the others."""
        prepared = leave_out(prepared)
        reading = EffectReading.of(state)
        states = {}
        for subset in reading.wanted:
            states[self._pair_state(prepared, state, reading, subset)] = subset
        for one in states:
            one.deliver = deliver
        reading.states = states
        self.scheduler.batch.again.add(list(states))
        return reading

    def _pair_state(
        self, prepared: Prepared, state: RequestState, reading: EffectReading, left: Subset
    ) -> RequestState:
        if left == reading.everybody:
            segments = state.segments
        elif left:
            segments = self._maker.with_subset(prepared, state.segments, left)
        else:
            segments = self._maker.segments(prepared.bare())
        one = new_pair_state(
            replace(
                prepared.request, trace=False, effects=False, logprobs=None, prompt_logprobs=False
            ),
            PairReading([reading.pair]),
            segments,
            state.candidates,
            tokenizer=self._base.tokenizer,
            session=state.session,
            address=state.address,
        )
        one.number, one.becomes = state.number, state.length
        return one

    def _check_made(self, segments: Segments) -> None:
        """Raise Busy where merges that wait would take more than the host cache may."""
        made = segments.made
        if made:
            for state in self.scheduler.queue.states():
                made |= state.segments.made
            if len(made) > 1 and sum(made.values()) > self.sizes.host_cache_bytes:
                raise Busy(
                    "The server is busy: the merges of the requests that wait fill its memory; "
                    "try again in a moment."
                )

    def step(self) -> list[Event]:
        """Run one iteration of the batch and deliver its results.

        An unforeseen error of the forward itself ends every request with it, and is
        raised.
        """
        with self._lock.turn(), self._runner.apart():
            began = time.monotonic()
            try:
                events = self.scheduler.step()
            except Exception as error:
                for state in self.scheduler.fail():
                    state.deliver(state, error)
                raise
            self._alone.note_step(time.monotonic() - began)
        for state, item in events:
            state.deliver(state, item)
        return events

    def next_tokens(
        self, asked: Sequence[Prepared], ids: Sequence[int], *, top: int
    ) -> list[Likely]:
        """The `top` likeliest tokens after `ids`, with their probabilities, as each request would
        have them. Raises RamoleError where the bank is full of adapters in use."""
        found = self._logits(asked, [list(ids)] * len(asked)).softmax(-1).topk(top)
        return [
            Likely(list(zip(spell(self._base.tokenizer, ids), chances, strict=True)), ids)
            for ids, chances in zip(found.indices.tolist(), found.values.tolist(), strict=True)
        ]

    def next_logits(self, asked: Sequence[Prepared]) -> Float[Tensor, "b v"]:
        """The logits after each of these prompts, as each request would have them; float32 on the
        CPU, for comparing engines. Raises as `next_tokens` does."""
        return self._logits(asked, [list(one.prompt.ids) for one in asked]).cpu()

    def _logits(
        self, asked: Sequence[Prepared], every: Sequence[list[int]]
    ) -> Float[Tensor, "b v"]:
        """The logits, float32, after these tokens of each request."""
        full = "The adapters in use leave no room for these now; try again in a moment."
        jobs = [
            (self._maker.segments(one, length=len(ids)), ids)
            for one, ids in zip(asked, every, strict=True)
        ]
        lengths = [len(one.prompt.ids) + one.prompt.room for one in asked]
        logits, faults = self._alone.read(jobs, full=full, becomes=lengths)
        for n, error in faults.items():
            raise fault_of(error, asked[n].request.method)
        return logits.float()

    @contextmanager
    def mixing(
        self, asked: Sequence[tuple[Request, Sequence[Candidate]]], l: int
    ) -> Iterator[None]:
        """Mix each row's adapters in forwards of `l` tokens inside this block; the batch waits.

        For measuring. Raises RamoleError where the bank has no room for all of them.
        """
        full = (
            "The adapters of these rows do not fit on the device together; take fewer rows at "
            "once, or raise RAMOLE_DEVICE_CACHE_MB."
        )
        placements = [self._maker.place(*one) for one in asked]
        with self._lock.turn(), self._placer.pinned(placements, full) as rows:
            with self._runner.mixing(rows, l) as forward:
                yield
            for row, error in forward.late.faults.items():
                raise fault_of(error, asked[row][0].method)

    def examine(
        self,
        prompts: Sequence[Prompt],
        candidates: Sequence[Sequence[Candidate]],
        *,
        source: Source = ("", ""),
        cancelled: Callable[[], bool] = never,
    ) -> list[list[Response]]:
        """Each candidate's response to the end of its prompt; the base reads each prompt once for
        all of its candidates.

        The batch goes on meanwhile, and sources take turns. Raises Cancelled where `cancelled` is
        true before all are read.
        """
        if not prompts:
            return []
        ids = [prompt.ids for prompt in prompts]
        inputs = self._bare.ends(ids, source=source, cancelled=cancelled)
        with kernels_alone():
            return [
                [self._response(one, [x[:, n] for x in inputs]) for one in part]
                for n, part in enumerate(candidates)
            ]

    def mean_inputs(self, turn: Request) -> Mapping[str, Tensor]:
        """The mean input of each block, by its path, over the prompt of this turn alone, as the
        bare base reads it beside the batch; of the last prompts it is remembered."""

        return self._known_means.get(encode_prompt(turn, self._base.tokenizer), self._bare.means)

    @torch.inference_mode()
    def _response(self, one: Candidate, inputs: Sequence[Tensor]) -> Response:
        return response_of(self.store.get(one.checksum, one.load), inputs)

    def forget_prefixes(self) -> None:
        """Drop the keys and values that no request holds: prompts are read again from the start."""
        with self._lock.turn():
            self._kv.forget()

    def stats(self) -> Mapping[str, int | float]:
        """Counters since the start, and memory held now (bytes)."""
        return {
            **self.scheduler.stats(),
            "forwards": self._runner.count,
            "replayed": self._runner.replayed,
            "bank_bytes": self.bank.tensors.nbytes,
            "bank_adapters": len(self.bank.slots),
            "bank_pages": self.bank.high,
            "bank_loads": self.bank.loads,
            "bank_evictions": self.bank.evictions,
            "host_bytes": self.store.nbytes,
            "host_adapters": self.store.held,
            "host_reads": self.store.reads,
            "host_packs": self.store.packs,
            "host_makes": self.store.makes,
        }

    def close(self) -> None:
        """End the thread, and take the served layers out again."""
        if self._thread is not None:
            self._thread.close()
        with self._lock.turn():
            self._installed.remove()
            self._attention.remove()
