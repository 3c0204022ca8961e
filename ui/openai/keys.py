"""Who may call: with passwords set, an API key is `user:password`, or they come as Basic."""

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import Protocol

from .errors import Refused


class Tries(Protocol):
    """Whoever bounds wrong passwords by address."""

    def begin(self, address: str) -> float:
        """One more try, wrong until it was `right`, which is told what this returns; raises after
        too many."""
        ...

    def right(self, address: str, begun: float) -> None:
        """The password of the try that was `begun` so was right."""
        ...


class Keys:
    """The accounts of the page; none: everybody may call, whatever the key."""

    def __init__(self, accounts: Sequence[tuple[str, str]] | None, tries: Tries | None = None):
        """`accounts` are (user, password)."""
        self._known = [f"{user}:{password}".encode() for user, password in accounts or ()]
        self._tries = tries

    def check(self, authorization: str | None, address: str) -> None:
        """Raises Refused where this header is nobody's, and what `tries` raises."""
        if not self._known:
            return
        given = _given(authorization or "")
        begun = self._tries.begin(address) if given and self._tries is not None else None
        if not self._opens(given):
            raise Refused(
                "This server asks for a password; send user:password as the API key "
                "(Authorization: Bearer user:password), or as Basic.",
                status=401,
                code="invalid_api_key",
            )
        if self._tries is not None and begun is not None:
            self._tries.right(address, begun)

    def _opens(self, given: bytes) -> bool:
        return any([hmac.compare_digest(given, known) for known in self._known])  # all: no timing


def _given(header: str) -> bytes:
    """`user:password` of an Authorization header; empty where there is none."""
    kind, _, rest = header.partition(" ")
    said = rest.strip().encode("latin-1", "replace")
    if kind.lower() == "bearer":
        return said
    if kind.lower() != "basic":
        return b""
    try:
        return base64.b64decode(said, validate=True)
    except binascii.Error:
        return b""
