"""The live replicas of Ray Serve: written by its router, read by the fleet, in one process.

A module of its own, because Ray sends the router as a copy of its code, with copies of what stands
in its own module.
"""

_LIVE: dict[str, tuple[str, ...]] = {}


def set_live_replicas(application: str, replicas: tuple[str, ...]) -> None:
    """Replace the set of live replicas."""
    _LIVE[application] = replicas


def live_replicas(application: str) -> tuple[str, ...]:
    """Ids of the live replicas."""
    return _LIVE.get(application, ())
