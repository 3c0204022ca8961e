"""The pool of adapters: files -> checked, folded tensors; the folders on disk are the truth.

Opening a pool and reading its cards needs no torch; the tensors' names load on first use.
"""

from typing import TYPE_CHECKING

from ramole_core.pool.card import AdapterCard, Limits
from ramole_core.pool.manifest import write_manifest
from ramole_core.pool.pool import Pool

if TYPE_CHECKING:
    from ramole_core.pool.tensors import AdapterTensors as AdapterTensors

__all__ = ["AdapterCard", "AdapterTensors", "Limits", "Pool", "write_manifest"]


def __getattr__(name: str) -> object:
    if name == "AdapterTensors":
        from ramole_core.pool.tensors import AdapterTensors

        return AdapterTensors
    raise AttributeError(f"module 'ramole_core.pool' has no attribute {name!r}")
