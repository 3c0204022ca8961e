"""Who waits for a row, and who is next: in turn among the sessions, first come within one."""

from collections import Counter
from collections.abc import Iterable

from ramole_core.engine.request_state import RequestState


def in_turn(waiting: Iterable[RequestState], running: Iterable[RequestState]) -> list[RequestState]:
    """The waiting states in the order in which they get rows.

    A session's n-th request (those that run counted) comes after every other session's (n-1)-th,
    so that one who asks for much delays nobody who asks for little.
    """
    taken = Counter(state.session for state in running)
    order = []
    for state in sorted(waiting, key=lambda state: state.number):
        order.append((taken[state.session], state.number, state))
        taken[state.session] += 1
    return [state for _, _, state in sorted(order, key=lambda entry: entry[:2])]
