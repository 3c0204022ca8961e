"""The systems of the comparison: each turns a row into the request that it stands for.

A system is a method, a bound (`perfect`, `oracle`), or the control `random_weights`. A method may
be changed by words after an @: `similarity@abstain=true`, `ramole_plus@surprise=0`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ramole_core.composition import FixedPool, find_method
from ramole_core.errors import RamoleError, did_you_mean
from ramole_core.methods import METHOD_LIST, Value, complete_options, find_row, read_values
from ramole_core.request import Request

PERFECT = "perfect"
"""The row's own adapter, named: what a retriever without a fault would allow."""
ORACLE = "oracle"
"""The right adapter at every token; only where right answers are forced."""
RANDOM = "random_weights"
"""The adapters that are found, with weights drawn at random for each prompt: a control that needs
no trained file, and whose weights are far from equal."""
ALONE = ("base", PERFECT)
"""They do not retrieve, so every situation is the same to them."""
ORDER = (
    "base", PERFECT, "selection", "mixture", "uniform_router", "ramole_plus", "ramole",
    "similarity", "random_router", RANDOM, "fusion",
)  # fmt: skip
"""As they run; the published table's rows and our own."""
WRITTEN = tuple(name for name in ORDER if name != "fusion")
"""Where answers are written in the situations beyond the rows of one task."""
OURS = ("ramole_plus", "ramole")
"""Methods whose differences to all others are reported."""
BOUNDS = {
    PERFECT: "the row's own adapter alone, as a retriever without a fault would choose",
    ORACLE: "the right adapter alone at every token, as a gate without a fault would choose",
}
CONTROL = "the adapters that are found, with weights drawn at random for each prompt"


@dataclass(frozen=True)
class Ask:
    """How every system is asked."""

    k: int
    tokens: int


@dataclass(frozen=True)
class Way:
    """A system that is a method, perhaps changed."""

    method: str
    options: Mapping[str, Value] | None = None
    abstain: bool | None = None
    """Whether the base may answer where nothing fits; None: the method's default."""

    def of(self, request: Request) -> Request:
        """The same request, answered this way."""
        changes: dict[str, object] = {"method": self.method}
        changes |= {"options": self.options} if self.options else {}
        changes |= {} if self.abstain is None else {"abstain": self.abstain}
        return replace(request, **changes)


def read_way(system: str) -> Way:
    """The method of a system's name, and what stands after its @; raises RamoleError."""
    method, at, words = system.partition("@")
    if not at:
        return Way(method)
    values = read_values(words.split("@"))
    abstain = values.pop("abstain", None)
    if not isinstance(abstain, bool | None):
        raise RamoleError(f"System {system!r} says abstain={abstain}; give true or false.")
    complete_options(method, values)
    return Way(method, values or None, abstain)


def fits_weights(system: str) -> bool:
    """Whether its method finds weights on examples, which then must be given."""
    return system not in (*BOUNDS, RANDOM) and find_row(read_way(system).method).fits


def takes_its_own(system: str) -> bool:
    """Whether its method takes the adapters that it was trained on, or experts of its own, so that
    others in the pool change nothing."""
    if system in (*BOUNDS, RANDOM):
        return False
    method = find_method(read_way(system).method)
    return isinstance(method, FixedPool) or method.brings


def finds_its_own(system: str) -> bool:
    """Whether its method says itself which adapters answer, so that none can be named for it."""
    method = find_method(read_way(system).method)
    return takes_its_own(system) or method.chooses or method.examines > 0


def describe(system: str) -> str:
    """One line on what a system is; raises RamoleError for an unknown one."""
    if system in BOUNDS:
        return BOUNDS[system]
    if system == RANDOM:
        return CONTROL
    way = read_way(system)
    found = [method.summary for method in METHOD_LIST if method.name == way.method]
    if not found:
        known = [*BOUNDS, RANDOM, *(method.name for method in METHOD_LIST)]
        near = did_you_mean(system, known)
        raise RamoleError(f"Unknown system {system!r}; choose of {', '.join(known)}.{near}")
    return found[0] + (f" ({system.partition('@')[2]})" if "@" in system else "")


def request_of(
    system: str,
    prompt: str,
    *,
    own: str | None,
    excluded: Sequence[str],
    ask: Ask,
    owner: str | None = None,
    found: Sequence[str] = (),
) -> Request:
    """What the system is asked for a row whose own adapter is `own`; None: the base's. `found`:
    the nearest adapters, which only the control needs to know."""
    plain = Request(prompt, method="base", max_new_tokens=ask.tokens, trace=False, owner=owner)
    if system == RANDOM:
        weights = draw_weights(prompt, len(found))
        return replace(plain, method="mixture", adapters=tuple(found), weights=weights)
    if system == PERFECT and own is not None:
        return replace(plain, method="selection", adapters=(own,))
    if system in ALONE:
        return plain
    return read_way(system).of(replace(plain, k=ask.k, exclude=tuple(excluded)))


def draw_weights(prompt: str, count: int) -> tuple[float, ...]:
    """Weights of sum 1, every such set as likely as any other; the prompt is the seed."""
    seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big")
    return tuple(float(w) for w in np.random.default_rng(seed).dirichlet(np.ones(count)))
