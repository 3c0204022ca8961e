"""The running model: base, served layers, routers, adapters and the batch that everybody shares."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import DynamicCache

from ramole_core.base_model import BaseModel
from ramole_core.composition import Router, find_method
from ramole_core.engine.attention import ServedAttention
from ramole_core.engine.forward import Forwards
from ramole_core.engine.kv import KvCache
from ramole_core.engine.pinner import Pinner
from ramole_core.engine.prompt import encode_prompt, room_for_answer
from ramole_core.engine.reference import Reference, read_ends, surprise_of
from ramole_core.engine.request import Generation, Request, Step
from ramole_core.engine.scheduler import Event, Scheduler, Sizes
from ramole_core.engine.store import UnitStore
from ramole_core.engine.ticket import Chosen, Ticket, spell
from ramole_core.errors import RamoleError
from ramole_core.layers import (
    Bank,
    Line,
    Lines,
    find_layout,
    install_serving,
    rows_kernel,
)

AT_ONCE = 16
"""Prompts that are examined in one forward."""


@dataclass(frozen=True)
class EngineSizes(Sizes):
    """How much may happen at once, and how many bytes it may take."""

    kv_cache_bytes: int = 2**30
    device_cache_bytes: int = 2**29
    host_cache_bytes: int = 2**30
    units_dir: Path | None = field(default=None)
    """Where packed adapters are kept; None: in memory only."""


class Engine:
    """Owns the model while it runs; `close()` gives it back unchanged.

    Whoever wants answers submits requests and lets somebody call `step`: a thread of its own
    (`EngineThread`), or the callers themselves, in turn.
    """

    def __init__(
        self,
        base: BaseModel,
        *,
        shapes: Mapping[str, tuple[int, int]],
        routers: Callable[[str], Router | None],
        sizes: EngineSizes | None = None,
    ):
        """`shapes`: (i, o) of the layers to serve, by module path; `routers` gives the router of a
        kind (`Composition.router`), None being the zero router. Raises RamoleError for a model
        that cannot be served."""
        self._base = base
        self.sizes = sizes = sizes or EngineSizes()
        self.lock = threading.Lock()
        self.layout = find_layout(base.model, shapes)
        self.bank = Bank(
            self.layout, device=base.device, dtype=base.dtype, limit=sizes.device_cache_bytes
        )
        self.store = UnitStore(
            self.layout,
            dtype=base.dtype,
            limit=sizes.host_cache_bytes,
            folder=sizes.units_dir,
            reference=Reference(base.model, self.layout, base.tokenizer),
        )
        self._kv = KvCache(base.model, limit=sizes.kv_cache_bytes)
        self._attention = ServedAttention(base.model)
        self._installed, serving = install_serving(base.model, self.layout)
        if base.device.type == "cpu" and base.dtype in rows_kernel.DTYPES:
            rows_kernel.compile_for(base.dtype)
        self._forwards = Forwards(
            base.model, bank=self.bank, serving=serving, attention=self._attention, kv=self._kv
        )
        self._pinner = Pinner(
            self.layout, bank=self.bank, store=self.store, routers=routers, dtype=base.dtype
        )
        self.scheduler = Scheduler(
            tokenizer=base.tokenizer,
            layout=self.layout,
            kv=self._kv,
            forwards=self._forwards,
            eos=_end_tokens(base),
            sizes=sizes,
            admit=self._admit,
            release=self._pinner.release,
        )

    @property
    def context(self) -> int:
        """Most tokens of a prompt and its answer together."""
        config = self._base.model.config.get_text_config()
        return int(config.max_position_embeddings)

    def check(self, request: Request) -> tuple[list[int], int]:
        """Prompt tokens, and room for the answer; raises RamoleError where it cannot run."""
        ids = encode_prompt(request, self._base.tokenizer)
        method = find_method(request.method)
        if method.router != "none" and not request.weights:
            self._pinner.find_router(method.router)
        return ids, room_for_answer(request, len(ids), context=self.context)

    def submit(
        self,
        request: Request,
        chosen: Sequence[Chosen],
        *,
        session: str = "",
        address: str = "",
        deliver: Callable[[Ticket, Step | Generation | Exception], None] | None = None,
    ) -> Ticket:
        """Put a request into the queue; its adapters are read here, in the caller's thread.

        Raises RamoleError where it could never run, Busy where too many wait.
        """
        ids, room = self.check(request)
        method = find_method(request.method)
        chosen = list(chosen)[: method.experts(len(chosen))]
        ranks = [self.store.get(one.checksum, one.load).rank for one in chosen]
        needed = max(ranks, default=0) if method.merges else sum(ranks)
        if not self.bank.fits(needed):
            raise RamoleError(
                f"The adapters of this request have {needed} rank units, and the device holds "
                f"{self.bank.most}; ask for fewer adapters, or raise RAMOLE_DEVICE_CACHE_MB."
            )
        return self.scheduler.submit(
            request,
            chosen,
            prompt_ids=ids,
            room=room,
            session=session,
            address=address,
            deliver=deliver,
        )

    def step(self) -> list[Event]:
        """One iteration of the batch, delivered to those who asked.

        An error that nobody foresaw ends every request with it, and is raised.
        """
        with self.lock:
            try:
                events = self.scheduler.step()
            except Exception as error:
                for ticket in self.scheduler.fail():
                    ticket.deliver(ticket, error)
                raise
        for ticket, item in events:
            ticket.deliver(ticket, item)
        return events

    def next_tokens(
        self, asked: Sequence[tuple[Request, Sequence[Chosen]]], ids: Sequence[int], *, top: int
    ) -> list[list[tuple[str, float]]]:
        """The `top` likeliest tokens after `ids`, with their probabilities, as each request would
        have them. Raises RamoleError where the bank is full of adapters in use."""
        full = "The adapters in use leave no room for this one now; try again in a moment."
        with self.lock, torch.inference_mode(), self._pinner.pinned(asked, full) as lines:
            tokens = torch.tensor([list(ids)] * len(lines))
            logits, _ = self._forwards.read(
                tokens,
                Lines(self.bank, lines),
                past=DynamicCache(),
                start=0,
                ends=[len(ids)] * len(lines),
            )
        found = logits.float().softmax(-1).topk(top)
        return [
            list(zip(spell(self._base.tokenizer, tokens), chances, strict=True))
            for tokens, chances in zip(found.indices.tolist(), found.values.tolist(), strict=True)
        ]

    @contextmanager
    def mixing(self, asked: Sequence[tuple[Request, Sequence[Chosen]]], l: int) -> Iterator[None]:
        """Forwards of `l` tokens inside this block mix each row's adapters; nobody else runs.

        For measuring. Raises RamoleError where the bank has no room for all of them.
        """
        full = (
            "The adapters of these rows do not fit on the device together; take fewer rows at "
            "once, or raise RAMOLE_DEVICE_CACHE_MB."
        )
        with self.lock, self._pinner.pinned(asked, full) as lines:
            with self._forwards.mixing(Lines(self.bank, lines), l):
                yield

    def examine(
        self, requests: Sequence[Request], candidates: Sequence[Sequence[Chosen]]
    ) -> list[list[float]]:
        """How much louder than usual each candidate answers to the end of its prompt, in spreads:
        `reference.surprise_of`. The base reads each prompt once for all of its candidates.

        Raises RamoleError where a prompt is too long.
        """
        prompts = [self.check(request)[0] for request in requests]
        order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
        found: list[list[float]] = [[] for _ in prompts]
        for start in range(0, len(order), AT_ONCE):
            part = order[start : start + AT_ONCE]
            with self.lock, torch.inference_mode():
                inputs = read_ends(self._base.model, self.layout, [prompts[n] for n in part])
            for row, n in enumerate(part):
                own = [x[:, row] for x in inputs]
                found[n] = [self._surprise(one, own) for one in candidates[n]]
        return found

    @torch.inference_mode()
    def _surprise(self, one: Chosen, inputs: Sequence[Tensor]) -> float:
        return surprise_of(self.store.get(one.checksum, one.load), inputs)

    def stats(self) -> Mapping[str, int | float]:
        """What was done since the start, and what is held now (bytes)."""
        return {
            **self.scheduler.stats(),
            "forwards": self._forwards.count,
            "bank_bytes": self.bank.nbytes,
            "bank_pages": self.bank.high,
            "bank_loads": self.bank.loads,
            "bank_evictions": self.bank.evictions,
            "host_bytes": self.store.nbytes,
            "host_reads": self.store.reads,
            "host_packs": self.store.packs,
        }

    def close(self) -> None:
        """Take the served layers out again."""
        with self.lock:
            self._installed.remove()
            self._attention.remove()

    def _admit(self, ticket: Ticket) -> Line | None:
        return self._pinner.pin(ticket.request, ticket.chosen)


def _end_tokens(base: BaseModel) -> frozenset[int]:
    generation = getattr(base.model, "generation_config", None)
    found = getattr(generation, "eos_token_id", None) or base.tokenizer.eos_token_id
    if found is None:
        return frozenset()
    return frozenset(int(token) for token in (found if isinstance(found, list) else [found]))
