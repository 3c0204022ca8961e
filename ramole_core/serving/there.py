"""Which replicas of Ray Serve can be asked: told by its router, read by the fleet, in one process.

A module of its own, because Ray sends the router as a copy of its code, with copies of what stands
in its own module.
"""

_THERE: dict[str, tuple[str, ...]] = {}


def tell_there(application: str, replicas: tuple[str, ...]) -> None:
    """These can be asked now, and no others."""
    _THERE[application] = replicas


def told_there(application: str) -> tuple[str, ...]:
    """The ids of those that can be asked."""
    return _THERE.get(application, ())
