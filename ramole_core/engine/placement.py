"""Place a request's decision: made before it waits, pinned in the bank when it runs.

All that takes time (reading adapters, deciding, merging) is done by `prepare`, in the caller's
thread; `pin` runs between two steps of the batch and only takes pages.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from ramole_core.composition import (
    Adapter,
    Ask,
    Candidate,
    Composition,
    Decision,
    Merge,
    Trained,
    decide,
    find_method,
)
from ramole_core.engine.placement_key import BARE_KEY, placement_key
from ramole_core.engine.store import UnitStore
from ramole_core.engine.switches import deciding_without, lacking
from ramole_core.errors import RamoleError, fault_of
from ramole_core.layers import Bank, Layout, RowMix, Slot, Units, UnpackedLoras, pack_units
from ramole_core.layers.gate_softmax import score_table
from ramole_core.methods import complete_options
from ramole_core.request import Request

Weights = Callable[[Composition], Trained | None]
"""A method's trained weights; None where it has none. Raises RamoleError where they are broken."""
Means = Callable[[Request], Mapping[str, Tensor]]
"""`Ask.means` of a turn, for a method that reads the prompt."""


@dataclass(frozen=True)
class HeldUnits:
    """An adapter, merge or bypass that a request holds in the bank."""

    key: Hashable
    units: Units
    activation: str = ""
    ephemeral: bool = False
    """Used once: it leaves the bank with its request."""


@dataclass(frozen=True)
class Placement:
    """A decision, and what it needs in the bank."""

    row: RowMix
    """Its row as the layers mix it, without its slots in the bank."""
    adapters: tuple[HeldUnits, ...] = ()
    """Its adapters; a merge is one."""
    bypass: HeldUnits | None = None
    key: bytes = BARE_KEY
    """Digest of all that determines a token's numbers (`placement_key.py`)."""

    @property
    def decision(self) -> Decision:
        return self.row.decision

    @property
    def has(self) -> Bool[Tensor, "module k"]:
        """The modules of each of the request's adapters; False also where one is switched off."""
        return self.row.has

    @property
    def held(self) -> tuple[HeldUnits, ...]:
        return self.adapters if self.bypass is None else (*self.adapters, self.bypass)

    @property
    def made(self) -> dict[Hashable, int]:
        """Bytes of its merges and bypasses, which are in no file, by key."""
        return {one.key: one.units.nbytes for one in self.held if not isinstance(one.key, str)}


class Placer:
    """Prepares placements, pins them, and gives their slots back."""

    def __init__(
        self,
        layout: Layout,
        *,
        bank: Bank,
        store: UnitStore,
        weights: Weights,
        means: Means,
        dtype: torch.dtype,
    ):
        self.layout, self._bank, self.store = layout, bank, store
        self._weights, self._means, self._dtype = weights, means, dtype

    def prepare(
        self,
        request: Request,
        candidates: Sequence[Candidate],
        off: Bool[Tensor, "module columns"] | None = None,
        *,
        ephemeral: bool = False,
    ) -> Placement:
        """Read the adapters and compute the method's decision; thread-safe.

        `off` [module, k+1] is True where an adapter is switched off, as though it lacked the
        module; its last column is a bypass's. What a candidate answered to the prompt stays.
        `ephemeral`: a merge is used once, and not cached. Raises RamoleError for any fault:
        where the method cannot use them or fails, or where they could never fit.
        """
        try:
            return self._prepare(request, candidates, off, ephemeral)
        except RamoleError:
            raise
        except Exception as error:
            raise fault_of(error, request.method) from error

    def _prepare(
        self,
        request: Request,
        candidates: Sequence[Candidate],
        off: Bool[Tensor, "module columns"] | None,
        ephemeral: bool,
    ) -> Placement:
        method = find_method(request.method)
        candidates = list(candidates)[: method.experts(len(candidates))]
        weights = None if request.weights is None else tuple(request.weights)
        learned = (candidates or method.brings) and weights is None
        trained = self._weights(method) if learned else None
        candidates = list(method.bring(candidates, trained))
        if not candidates:
            nothing = torch.zeros(len(self.layout.flat), 0)
            return Placement(RowMix((), Decision(nothing), None, nothing.bool()))
        if off is not None:
            off = torch.cat([off[:, : len(candidates)], off[:, -1:]], dim=1)
            off = off if off.any() else None
        every = [self.store.get(one.checksum, one.load) for one in candidates]
        left = every
        if off is not None:
            left = [lacking(units, off[:, j]) for j, units in enumerate(every)]
        ask = Ask(
            tuple(self._adapter(*pair) for pair in zip(candidates, left, strict=True)),
            self.layout.sites,
            complete_options(request.method, request.options),
            weights,
            trained,
            self._means(request) if method.reads_prompt and weights is None else None,
        )
        decision = decide(method, ask)
        if off is not None:
            decision = deciding_without(decision, ask, off[:, -1])
        if decision.merge is not None:
            one = self._merged(request.method, candidates, ask, decision, decision.merge, ephemeral)
            present = one.units.present[:, None]
            key = placement_key(request.method, ask, decision, held=[one.key], present=present)
            return Placement(RowMix((), decision, None, present, ~ask.present), (one,), key=key)
        pairs = zip(candidates, every, strict=True)
        adapters = tuple(HeldUnits(one.checksum, units) for one, units in pairs)
        bypass = self._bypass(request.method, decision)
        keys = [one.key for one in adapters] + ([] if bypass is None else [bypass.key])
        key = placement_key(request.method, ask, decision, held=keys, present=ask.present)
        gate, table = decision.gate, None
        if gate is not None and self._bank.device.type == "cpu":
            sizes = [units.rank for units in every]
            table = score_table(gate, self.layout, sizes, ask.present)
        row = RowMix((), decision, None, ask.present, score_table=table)
        placement = Placement(row, adapters, bypass, key)
        self._check_room([one.units for one in placement.held])
        return placement

    def pin(self, placement: Placement) -> RowMix | None:
        """Pin its adapters in the bank; None where there is no room now. A failure pins none."""
        slots: list[Slot] = []
        try:
            for held in placement.held:
                slot = self._bank.acquire(
                    held.key,
                    lambda held=held: held.units,
                    activation=held.activation,
                    ephemeral=held.ephemeral,
                )
                if slot is None:
                    break
                slots.append(slot)
            gate = placement.decision.gate
            if gate is not None and gate.router is not None:
                self._bank.add_router(gate.router)
        except BaseException:
            self._give_back(slots)
            raise
        if len(slots) < len(placement.held):
            self._give_back(slots)
            return None
        count = len(placement.adapters)
        bypass = slots[count] if len(slots) > count else None
        return replace(placement.row, slots=tuple(slots[:count]), bypass=bypass)

    def _give_back(self, slots: Sequence[Slot]) -> None:
        for slot in slots:
            self._bank.release(slot)

    def release(self, mix: RowMix) -> None:
        self._give_back(mix.held)
        self._bank.tidy()

    @contextmanager
    def pinned(self, placements: Sequence[Placement], full: str) -> Iterator[list[RowMix]]:
        """Pin all placements for the block.

        Raises RamoleError with the sentence `full` where they do not fit together now.
        """
        rows: list[RowMix] = []
        try:
            for placement in placements:
                row = self.pin(placement)
                if row is None:
                    raise RamoleError(full)
                rows.append(row)
            yield rows
        finally:
            for row in rows:
                self.release(row)

    def _adapter(self, one: Candidate, units: Units) -> Adapter:
        return Adapter(
            one.name,
            one.checksum,
            units.present,
            UnpackedLoras(units, self.layout),
            units.rank,
            score=one.score,
            response=one.response,
            usual=units.usual,
            share=one.share,
        )

    def _merged(
        self,
        method: str,
        candidates: Sequence[Candidate],
        ask: Ask,
        decision: Decision,
        merge: Merge,
        ephemeral: bool,
    ) -> HeldUnits:
        """The one LoRA of a merge, cached by what it depends on."""
        self._check_room([], merge.rank)
        trained = "" if ask.trained is None else ask.trained.checksum
        key = (
            method,
            tuple(one.checksum for one in candidates),
            decision.weights.numpy().tobytes(),
            ask.weights,  # as they came: a merge may use more of their digits
            tuple(sorted(ask.options.items())),
            trained,
            ask.present.numpy().tobytes(),
        )

        def make() -> Units:
            loras, made = [one.load() for one in candidates], {}
            for path, here in zip(self.layout.flat, ask.present.tolist(), strict=True):
                every = [one.get(path) if h else None for one, h in zip(loras, here, strict=True)]
                if lora := merge.make(path, every):
                    made[path] = lora
            return pack_units(made, self.layout, dtype=self._dtype)

        units = self.store.made(key, make, keep=not ephemeral)
        self._check_room([units])
        return HeldUnits(key, units, ephemeral=ephemeral)

    def _bypass(self, method: str, decision: Decision) -> HeldUnits | None:
        bypass = decision.bypass
        if bypass is None:
            return None
        key = method, bypass.key, bypass.activation

        def make() -> Units:
            return pack_units(bypass.loras, self.layout, dtype=self._dtype, bypass=True)

        return HeldUnits(key, self.store.made(key, make), bypass.activation)

    def _check_room(self, adapters: Sequence[Units], merged: int = 0) -> None:
        """`merged`: rank units of a merge that is still to be made."""
        rank = sum(units.rank for units in adapters) + merged
        most = self._bank.room_for(adapters)
        if rank > most:
            raise RamoleError(
                f"The adapters of this request have {rank} rank units, and the device holds "
                f"{most}; ask for fewer adapters, or raise RAMOLE_DEVICE_CACHE_MB."
            )
