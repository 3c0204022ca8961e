"""Messages between page and engines: plain data, no callable.

An adapter is its checksum, which an engine turns into tensors by its own store (`store.py`), with
the page's facts: name, similarity, response, share.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ramole_core.composition import Candidate, LoraSet, Response
from ramole_core.engine.prompt import Prepared, Prompt, Turn
from ramole_core.request import Fitting, Generation, Request, Step


@dataclass(frozen=True)
class SentAdapter:
    """One adapter of a turn."""

    name: str
    score: float
    content: str
    """Its checksum."""
    response: Response | None
    share: float


@dataclass(frozen=True)
class SentTurn:
    request: Request
    adapters: tuple[SentAdapter, ...]


@dataclass(frozen=True)
class Job:
    """A request on its way to an engine."""

    request: Request
    turns: tuple[SentTurn, ...]
    prompt: Prompt
    streamed_ids: tuple[int, ...] = ()
    """As `Prepared.streamed_ids`."""
    session: str = ""
    address: str = ""
    number: str = field(default_factory=lambda: secrets.token_hex(8))
    """Its own number, by which it is cancelled."""
    page: str = ""
    """Its page; an engine cancels requests of a page that is gone (`Leases`)."""

    @property
    def contents(self) -> tuple[str, ...]:
        """Checksums of all adapters of all turns, each once."""
        return tuple(dict.fromkeys(one.content for turn in self.turns for one in turn.adapters))


@dataclass(frozen=True)
class QueuePlace:
    """Where a request stands in the engine's queue; 0: it runs."""

    place: int


EngineMessage = QueuePlace | Fitting | Step | Generation
"""A message of an engine about a request; a Generation is the last."""


def send_adapter(one: Candidate) -> SentAdapter:
    """As it goes over the wire."""
    return SentAdapter(one.name, one.score, one.checksum, one.response, one.share)


def receive_adapter(one: SentAdapter, loras: Callable[[str], LoraSet]) -> Candidate:
    """The adapter for an engine; `loras` reads the adapter of a checksum."""
    return Candidate(
        one.name,
        one.score,
        one.content,
        lambda: loras(one.content),
        response=one.response,
        share=one.share,
    )


def seeded(prepared: Prepared) -> Prepared:
    """The request with a seed, where it samples and has none: two engines, one after the other,
    draw the same, and a seed that an engine made for itself would be lost with it."""
    request = prepared.request
    if request.seed is not None or request.temperature == 0:
        return prepared
    return replace(prepared, request=replace(request, seed=secrets.randbits(63)))


def send_request(
    prepared: Prepared,
    *,
    streamed_ids: tuple[int, ...] = (),
    session: str = "",
    address: str = "",
    page: str = "",
) -> Job:
    """As it goes over the wire."""
    turns = tuple(
        SentTurn(turn.request, tuple(map(send_adapter, turn.candidates))) for turn in prepared.turns
    )
    return Job(prepared.request, turns, prepared.prompt, streamed_ids, session, address, page=page)


def receive_turns(job: Job, loras: Callable[[str], LoraSet]) -> list[Turn]:
    return [
        Turn(turn.request, tuple(receive_adapter(one, loras) for one in turn.adapters))
        for turn in job.turns
    ]
