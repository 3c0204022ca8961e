"""What a request needs on the device: its adapters pinned in the bank, and how they are mixed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from ramole_core.composition import Known, Router, find_method
from ramole_core.engine.request import Request
from ramole_core.engine.store import UnitStore, merged
from ramole_core.engine.ticket import Chosen
from ramole_core.errors import RamoleError
from ramole_core.layers import Bank, Layout, Line, Slot


class Pinner:
    """Makes the lines of requests, and gives their slots back."""

    def __init__(
        self,
        layout: Layout,
        *,
        bank: Bank,
        store: UnitStore,
        routers: Callable[[str], Router | None],
        dtype: torch.dtype,
    ):
        """`routers` gives the router of a kind (`Composition.router`), None being the zero
        router."""
        self._layout, self._bank, self._store = layout, bank, store
        self._routers, self._dtype = routers, dtype
        self._kinds: dict[str, bool] = {}

    def pin(self, request: Request, chosen: Sequence[Chosen]) -> Line | None:
        """Pin a request's adapters; None where they do not fit now."""
        method = find_method(request.method)
        chosen = list(chosen)[: method.experts(len(chosen))]
        if not chosen:
            return Line((), torch.zeros(len(self._layout.flat), 0), None)
        gate = None
        if method.router != "none" and not request.weights and self._add_router(method.router):
            gate = method.router
        if method.merges:
            return self._merged(request, chosen)
        slots = self._slots(chosen)
        if slots is None:
            return None
        present = torch.stack([slot.present for slot in slots], dim=1)
        scores = [one.score for one in chosen]
        fixed = method.fixed(present, request.weights, scores)
        if gate is None:
            return Line(slots, fixed, None)
        surprises = [one.surprise for one in chosen]
        told = method.evidence(Known(len(self._layout.flat), scores, surprises))
        if told is None:
            return Line(slots, fixed, gate)
        return Line(slots, fixed, gate, offset=told.offset, gains=told.gains)

    @contextmanager
    def pinned(
        self, asked: Sequence[tuple[Request, Sequence[Chosen]]], full: str
    ) -> Iterator[list[Line]]:
        """The lines of all requests at once, given back after the block.

        Raises RamoleError with the sentence `full` where they do not fit together now.
        """
        lines: list[Line] = []
        try:
            for request, chosen in asked:
                line = self.pin(request, chosen)
                if line is None:
                    raise RamoleError(full)
                lines.append(line)
            yield lines
        finally:
            for line in lines:
                self.release(line)

    def release(self, line: Line) -> None:
        """Give the slots of a line back."""
        self._give_back(line.slots)
        self._bank.tidy()

    def find_router(self, kind: str) -> Router | None:
        """The router of a kind, where it is not known yet; raises RamoleError for a broken one."""
        if kind == "evidence" or self._kinds.get(kind):
            return None
        return self._routers(kind)

    def _slots(self, chosen: Sequence[Chosen]) -> tuple[Slot, ...] | None:
        slots: list[Slot] = []
        try:
            for one in chosen:
                slot = self._bank.acquire(
                    one.checksum, lambda one=one: self._store.get(one.checksum, one.load)
                )
                if slot is None:
                    break
                slots.append(slot)
        except RamoleError:
            self._give_back(slots)
            raise
        if len(slots) < len(chosen):
            self._give_back(slots)
            return None
        return tuple(slots)

    def _merged(self, request: Request, chosen: Sequence[Chosen]) -> Line | None:
        method = find_method(request.method)
        every = [self._store.get(one.checksum, one.load) for one in chosen]
        checksums = tuple(one.checksum for one in chosen)
        key = (method.name, checksums, request.weights)
        made = lambda: merged(  # noqa: E731
            [one.load() for one in chosen],
            self._layout,
            lambda loras: method.merge(loras, request.weights),
            dtype=self._dtype,
        )
        slot = self._bank.acquire(key, made)
        if slot is None:
            return None
        present = torch.stack([units.present for units in every], dim=1)
        ones = torch.ones(len(present), 1)
        scores = [one.score for one in chosen]
        return Line((slot,), ones, None, shown=method.fixed(present, request.weights, scores))

    def _give_back(self, slots: Sequence[Slot]) -> None:
        for slot in slots:
            self._bank.release(slot)

    def _add_router(self, kind: str) -> bool:
        """Whether there is a router of this kind; in the bank from now on."""
        if kind == "evidence":
            return True
        if kind not in self._kinds:
            router = self.find_router(kind)
            if router is not None:
                self._bank.add_router(kind, router)
            self._kinds[kind] = router is not None
        return self._kinds[kind]
