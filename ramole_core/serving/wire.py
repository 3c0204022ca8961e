"""Messages between page and engines: plain data.

Of an adapter go its checksum, which an engine turns into tensors by its own store (`store.py`), and
the page's facts: name, similarity, response, share.
"""

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from ramole_core.composition import Candidate, LoraSet
from ramole_core.engine.prompt import Prepared, Turn
from ramole_core.request import Fitting, Generation, Step


@dataclass(frozen=True)
class Job(Prepared):
    """A request on its way to an engine."""

    session: str = ""
    address: str = ""
    number: str = field(default_factory=lambda: secrets.token_hex(8))
    """Its own number, by which it is cancelled."""
    page: str = ""
    """Its page; an engine cancels requests of a page that is gone (`Leases`)."""

    @property
    def contents(self) -> tuple[str, ...]:
        """Checksums of all adapters of all turns, each once."""
        return tuple(dict.fromkeys(one.checksum for turn in self.turns for one in turn.candidates))


@dataclass(frozen=True)
class QueuePlace:
    """Where a request stands in the engine's queue; 0: it runs."""

    place: int


EngineMessage = QueuePlace | Fitting | Step | Generation
"""A message of an engine about a request; a Generation is the last."""


def unread(checksum: str) -> LoraSet:
    """Stands for the tensors of an adapter on its way."""
    raise RuntimeError(f"the adapter {checksum} is read by the engine that it is sent to")


def read_by(
    loras: Callable[[str], LoraSet], candidates: Iterable[Candidate]
) -> tuple[Candidate, ...]:
    """The adapters, each read by its checksum; by `unread` they can be sent."""
    return tuple(replace(one, load=partial(loras, one.checksum)) for one in candidates)


def turns_read_by(loras: Callable[[str], LoraSet], turns: Iterable[Turn]) -> tuple[Turn, ...]:
    """The turns with their adapters read by their checksums."""
    return tuple(replace(turn, candidates=read_by(loras, turn.candidates)) for turn in turns)


def seeded(prepared: Prepared) -> Prepared:
    """The request with a seed, where it samples and has none: two engines, one after the other,
    draw the same, and a seed that an engine made for itself would be lost with it."""
    request = prepared.request
    if request.seed is not None or request.temperature == 0:
        return prepared
    return replace(prepared, request=replace(request, seed=secrets.randbits(63)))


def job_of(prepared: Prepared) -> Job:
    """The request as it is sent."""
    return Job(prepared.request, turns_read_by(unread, prepared.turns), prepared.prompt)
