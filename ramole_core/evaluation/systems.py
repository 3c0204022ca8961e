"""The systems of the comparison: each turns a row into the request that it stands for."""

from collections.abc import Sequence
from dataclasses import dataclass

from ramole_core.errors import RamoleError
from ramole_core.methods import METHOD_LIST
from ramole_core.request import Request

PERFECT = "perfect"
"""The row's own adapter, named: what a retriever without a fault would allow."""
ALONE = ("base", PERFECT)
"""They do not retrieve, so every situation is the same to them."""
ORDER = (
    "base",
    PERFECT,
    "selection",
    "mixture",
    "ramole_plus",
    "ramole",
    "similarity",
    "random_router",
    "fusion",
)
"""As they run; the published table's rows and our own."""


@dataclass(frozen=True)
class Ask:
    """How every system is asked."""

    k: int
    tokens: int


def describe(system: str) -> str:
    """One line on what a system is; raises RamoleError for an unknown one."""
    if system == PERFECT:
        return "the row's own adapter alone, as a retriever without a fault would choose"
    found = [method.summary for method in METHOD_LIST if method.name == system]
    if not found:
        known = [PERFECT, *(method.name for method in METHOD_LIST)]
        raise RamoleError(f"Unknown system {system!r}; choose of {', '.join(known)}.")
    return found[0]


def request_of(system: str, prompt: str, *, own: str, excluded: Sequence[str], ask: Ask) -> Request:
    """What the system is asked for a row whose own adapter is `own`."""
    shared = {"max_new_tokens": ask.tokens, "trace": False}
    if system == PERFECT:
        return Request(prompt, method="selection", adapters=(own,), **shared)
    if system == "base":
        return Request(prompt, method="base", **shared)
    return Request(prompt, method=system, k=ask.k, exclude=tuple(excluded), **shared)
