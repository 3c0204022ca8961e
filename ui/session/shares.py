"""Choose the sessions to evict for one more upload: the longest silent."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Use:
    """One owner's use: in the pool, and being added."""

    owner: str | None
    address: str
    """Where its last upload came from; '' where that is unknown."""
    adapters: int
    bytes: int
    silent: float | None
    """Seconds without a sign of life; None where it may not be asked to leave."""


def leavers(uses: Sequence[Use], *, size: int, adapters: int, bytes: int) -> list[str] | None:
    """Owners who leave, longest silent first, until one more upload of `size` bytes fits.

    `adapters` and `bytes` are what these uses may come to with it. None: it does not fit even
    where everybody leaves who may; then nobody need go.
    """
    count, total = sum(use.adapters for use in uses) + 1, sum(use.bytes for use in uses) + size
    gone: list[str] = []
    may_go = [use for use in uses if use.owner is not None and use.silent is not None]
    for use in sorted(may_go, key=lambda use: -(use.silent or 0.0)):
        if count <= adapters and total <= bytes:
            break
        assert use.owner is not None
        gone.append(use.owner)
        count, total = count - use.adapters, total - use.bytes
    return gone if count <= adapters and total <= bytes else None
