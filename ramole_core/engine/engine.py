"""The engine: base model, served layers, adapters and the shared batch; a `Backend`."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ramole_core.base.model import BaseModel
from ramole_core.composition import Candidate
from ramole_core.engine.attention import ServedAttention
from ramole_core.engine.engine_thread import EngineThread
from ramole_core.engine.graph_step import Graphs
from ramole_core.engine.isolated_forward import IsolatedForward
from ramole_core.engine.kv import KvCache
from ramole_core.engine.load_check import Verdict, check_served
from ramole_core.engine.model_runner import ModelRunner
from ramole_core.engine.own_forward import OwnForward
from ramole_core.engine.placement import Placer, Weights
from ramole_core.engine.prompt import Prepared, encode_prompt
from ramole_core.engine.prompt_reader import PromptReader
from ramole_core.engine.reader import RequestReader, facts_of_model
from ramole_core.engine.reference import Reference, key_of, remembered
from ramole_core.engine.request_stream import Caller, RequestStream
from ramole_core.engine.running_batch import Event
from ramole_core.engine.scheduler import Scheduler, Sizes
from ramole_core.engine.segments import SegmentMaker
from ramole_core.engine.store import UnitStore
from ramole_core.engine.submission import Submission
from ramole_core.errors import fault_of
from ramole_core.kernels.all import compile_kernels
from ramole_core.layers import Bank, find_layout, fused_of, install_serving, is_exact
from ramole_core.request import Generation, Request, Step
from ramole_core.turns import TurnLock


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
        steps may be CUDA graphs. With `own`, the served model is compared with it, and `verdict` is
        the result. Raises RamoleError for a model that cannot be served."""
        self._base = base
        self.sizes = sizes = sizes or EngineSizes()
        self._lock = TurnLock()
        self.layout = find_layout(base.model, shapes)
        self.bank = Bank(
            self.layout, device=base.device, dtype=base.dtype, limit=sizes.device_cache_bytes
        )
        self._kv = KvCache(base.model, limit=sizes.kv_cache_bytes)
        self._attention = ServedAttention(base.model)
        self.fused = fused_of(base.device) if fused else None
        """Triton mixing, one launch a group; None: PyTorch or our kernels mix."""
        self._installed, serving = install_serving(base.model, self.layout, fused=self.fused)
        if base.device.type == "cpu":
            compile_kernels("none")  # its weights are rounded by now
        self.graphs = Graphs() if graphs and base.device.type == "cuda" else None
        """Captures decode steps as CUDA graphs."""
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
        self._placer = Placer(
            self.layout,
            bank=self.bank,
            store=self.store,
            weights=weights,
            means=self.mean_inputs,
            dtype=base.dtype,
        )
        self._maker = SegmentMaker(self._placer)
        self.facts = facts_of_model(base, layout=self.layout, exact=is_exact(base.model))
        self.scheduler = Scheduler(
            kv=self._kv, runner=self._runner, placer=self._placer, sizes=sizes
        )
        self._alone = IsolatedForward(
            self._runner, placer=self._placer, lock=self._lock, scheduler=self.scheduler
        )
        self._beside = beside = PromptReader(
            base.model, base.tokenizer, maker=self._maker, alone=self._alone
        )
        self.examine, self.next_tokens = beside.examine, beside.next_tokens
        self.next_logits = beside.next_logits
        self._reader = RequestReader(base.tokenizer, self.facts, weights=weights)
        self.read, self.prepare = self._reader.read, self._reader.prepare
        self.complete, self.fit = self._reader.complete, self._reader.fit
        submission = Submission(
            self.scheduler, self._reader, self._maker, made_bytes=sizes.host_cache_bytes
        )
        self.submit, self.submit_step = submission.submit, submission.submit_step
        self.read_again = submission.read_again
        self.thread: EngineThread | None = None
        """The thread that steps the engine; None: callers do."""
        self.verdict = None if own is None else self._check(own)
        read = remembered(beside.ends, folder=sizes.reference_dir, what=key_of(base, self.layout))
        self.store.measure = Reference(read, base.tokenizer).measure

    def _check(self, own: OwnForward) -> Verdict:
        """Compare the served forward with the model's own; where they differ, close and raise what
        was found."""
        try:
            bare = self._beside.bare()
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
        self.facts = self._reader.facts = replace(self.facts, exact=self.facts.exact and exact)
        if not self.facts.exact:  # drafts would show in the bits
            self.scheduler.sizes = replace(self.scheduler.sizes, draft_rows=0)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._base.tokenizer

    @property
    def idle(self) -> bool:
        return self.scheduler.idle and not (self.thread and self.thread.expects)

    @property
    def alive(self) -> bool:
        """Whether the engine can be stepped: its thread is alive, or callers step it."""
        return self.thread is None or self.thread.alive

    def start(self) -> None:
        if self.thread is None:
            self.thread = EngineThread(self)
            self.thread.start()

    def expecting(self) -> AbstractContextManager[None]:
        return nullcontext() if self.thread is None else self.thread.expecting()

    def stream(
        self, asked: Sequence[Prepared], **caller: Unpack[Caller]
    ) -> Iterator[tuple[int, Step | Generation]]:
        return iter(RequestStream(self, asked, **caller))

    def pack(self, candidate: Candidate) -> None:
        self.store.pack(candidate.checksum, candidate.load)

    def keep_only(self, checksums: Iterable[str]) -> None:
        self.store.keep_only(checksums)

    def step(self) -> list[Event]:
        """Run one iteration of the batch and deliver its results.

        An unforeseen error of the forward itself ends every request with it, and is raised.
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
            for state, item in events:  # before another caller's step
                state.deliver(state, item)
        return events

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
        placements = [self._placer.prepare(*one) for one in asked]
        with self._lock.turn(), self._placer.pinned(placements, full) as rows:
            with self._runner.mixing(rows, l) as forward:
                yield
            for row, error in forward.late.faults.items():
                raise fault_of(error, asked[row][0].method)

    def mean_inputs(self, turn: Request) -> Mapping[str, Tensor]:
        """The mean input of each block, by its path, over the prompt of this turn alone, as the
        bare base reads it beside the batch; of the last prompts it is remembered."""
        return self._beside.means(tuple(encode_prompt(turn, self._base.tokenizer)))

    def forget_prefixes(self) -> None:
        """Drop the keys and values that no request holds: prompts are read again from the start."""
        with self._lock.turn():
            self._kv.forget()

    def forget_adapters(self, *, files: bool) -> None:
        """Drop adapters that no request uses from the bank and the host cache, and with `files`
        from the system's memory. For measuring."""
        with self._lock.turn():
            self.bank.forget()
        self.store.forget(files=files)

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
        """End the thread and what still runs, and take the served layers out again."""
        if self.thread is not None:
            self.thread.close()
        with self._lock.turn():
            self.scheduler.close()
            self._installed.remove()
            self._attention.remove()
