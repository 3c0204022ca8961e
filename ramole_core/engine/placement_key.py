"""A 16-byte digest of all that determines a token's numbers under a placement.

Keys and values that were made under two placements of one key are the same to the bit, so either
may be read in the place of the other. Tables count by their numbers; adapters, merges, routers and
bypasses by what they are known by. A score of a method's own is a function, which has no checksum:
for it all inputs of its method count.
"""

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields

import torch
from jaxtyping import Bool
from torch import Tensor

from ramole_core.composition import Ask, Decision, Gate, Router

KEY_BYTES = 16
"""Bytes of a key."""


def placement_key(
    method: str,
    ask: Ask,
    decision: Decision,
    *,
    held: Sequence[Hashable],
    present: Bool[Tensor, "module slot"],
) -> bytes:
    """Digest a decision about `ask`; `held` are the keys of what it has in the bank, in their
    order, and `present` says where each counts."""
    digest = _Digest()
    digest.add("held", *held)
    digest.add("present", present)
    digest.add("weights", decision.weights)
    if decision.gate is not None:
        _add_gate(digest, decision.gate)
        if decision.gate.score is not None:
            _add_ask(digest, method, ask)
    return digest.bytes


class _Digest:
    """A digest of named pieces, each added with its size."""

    def __init__(self):
        self._hash = hashlib.blake2b(digest_size=KEY_BYTES)

    def add(self, name: str, *values: object) -> None:
        self._text((name, len(values)))
        for value in values:
            if isinstance(value, Tensor):
                self._text((str(value.dtype), tuple(value.shape)))
                self._hash.update(
                    value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()
                )
            else:
                self._text(value)

    def _text(self, value: object) -> None:
        text = repr(value).encode()
        self._hash.update(len(text).to_bytes(8, "little"))
        self._hash.update(text)

    @property
    def bytes(self) -> bytes:
        return self._hash.digest()


BARE_KEY = _Digest().bytes
"""The key of the bare base, whatever the method."""


def _add_gate(digest: _Digest, gate: Gate) -> None:
    for field in fields(gate):
        value = getattr(gate, field.name)
        if isinstance(value, Router):
            digest.add(field.name, value.checksum)
        elif isinstance(value, Mapping):
            for path in sorted(value):
                digest.add(field.name, path, value[path])
        elif field.name == "usual" and not gate.own:
            continue
        elif field.name != "score":
            digest.add(field.name, value)


def _add_ask(digest: _Digest, method: str, ask: Ask) -> None:
    """Add the method's inputs; checksums represent the adapters' tensors."""
    trained = None if ask.trained is None else ask.trained.checksum
    digest.add("told", method, sorted(ask.options.items()), ask.weights, trained)
    for path, mean in sorted((ask.means or {}).items()):
        digest.add("mean", path, mean)
    for one in ask.adapters:
        digest.add("adapter", one.name, one.checksum, one.rank, one.score, one.share, one.usual)
        if one.response is not None:
            response = one.response
            digest.add("response", response.log_norms, response.usual, response.present)
