"""Which replicas of Ray Serve can be asked: told by its router, read by the fleet, in one process.

A module of its own, because Ray sends the router as a copy of its code, with copies of what stands
in its own module.
"""

_LIVE: dict[str, tuple[str, ...]] = {}


def set_live_replicas(application: str, replicas: tuple[str, ...]) -> None:
    """These can be asked now, and no others."""
    _LIVE[application] = replicas


def live_replicas(application: str) -> tuple[str, ...]:
    """The ids of those that can be asked."""
    return _LIVE.get(application, ())
