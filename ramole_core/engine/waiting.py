"""Who may wait for a row, and who is next: addresses take turns, and the sessions of each.

Whoever invents sessions stays one address. Where the address is unknown, the session stands for it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from ramole_core.engine.ticket import Ticket
from ramole_core.errors import Busy

SHARE = 4
"""One address may hold one place in so many of the queue, or as many as run at once."""
Source = tuple[str, str]
"""An address, or for want of one a session."""


def in_turn(waiting: Iterable[Ticket], running: Iterable[Ticket]) -> list[Ticket]:
    """The waiting tickets in the order in which they get rows.

    An address's n-th request (those that run counted) comes after every other address's (n-1)-th,
    and of one address, a session's n-th after every other session's (n-1)-th: one who asks for
    much delays nobody who asks for little. First come, first served where that says nothing.
    """
    running = list(running)
    tickets: dict[Source, list[Ticket]] = defaultdict(list)
    for ticket in sorted(waiting, key=lambda ticket: ticket.number):
        tickets[_source(ticket.session, ticket.address)].append(ticket)
    taken = Counter(_source(ticket.session, ticket.address) for ticket in running)
    order = []
    for source, own in tickets.items():
        begun = [t for t in running if _source(t.session, t.address) == source]
        for turn, ticket in enumerate(_by_session(own, begun), taken[source]):
            order.append((turn, ticket.number, ticket))
    return [ticket for _, _, ticket in sorted(order, key=lambda entry: entry[:2])]


def check_place(
    waiting: Sequence[Ticket], *, session: str, address: str, max_queue: int, max_batch: int
) -> None:
    """Whether one more request may wait.

    Raises Busy where `max_queue` wait, or where its address, or its session if the address is
    unknown, has as many of them as one may. Who says neither has no share to keep to.
    """
    if len(waiting) >= max_queue:
        raise Busy(
            f"The server is busy: {len(waiting)} requests are waiting; try again in a moment."
        )
    source, most = _source(session, address), max(max_queue // SHARE, max_batch)
    held = sum(_source(ticket.session, ticket.address) == source for ticket in waiting)
    if any(source) and held >= most:
        whose = "your address" if address else "your session"
        raise Busy(
            f"The server is busy: {held} requests of {whose} are waiting, as many as may; "
            "try again in a moment."
        )


def _by_session(waiting: Sequence[Ticket], running: Iterable[Ticket]) -> list[Ticket]:
    """The tickets of one address, by number, as its sessions take turns."""
    taken = Counter(ticket.session for ticket in running)
    order = []
    for ticket in waiting:
        order.append((taken[ticket.session], ticket.number, ticket))
        taken[ticket.session] += 1
    return [ticket for _, _, ticket in sorted(order, key=lambda entry: entry[:2])]


def _source(session: str, address: str) -> Source:
    return (address, "") if address else ("", session)
