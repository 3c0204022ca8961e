"""Who waits for a row, and who is next: in turn among the sessions, first come within one."""

from collections import Counter
from collections.abc import Iterable

from ramole_core.engine.ticket import Ticket


def in_turn(waiting: Iterable[Ticket], running: Iterable[Ticket]) -> list[Ticket]:
    """The waiting tickets in the order in which they get rows.

    A session's n-th request (those that run counted) comes after every other session's (n-1)-th,
    so that one who asks for much delays nobody who asks for little.
    """
    taken = Counter(ticket.session for ticket in running)
    order = []
    for ticket in sorted(waiting, key=lambda ticket: ticket.number):
        order.append((taken[ticket.session], ticket.number, ticket))
        taken[ticket.session] += 1
    return [ticket for _, _, ticket in sorted(order, key=lambda entry: entry[:2])]
