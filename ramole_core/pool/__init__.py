"""The pool of adapters: files -> checked, folded tensors; the folders on disk are the truth.

Opening a pool and reading its cards needs no torch.
"""

from ramole_core.pool.card import AdapterCard, Limits
from ramole_core.pool.manifest import write_manifest
from ramole_core.pool.pool import Pool

__all__ = ["AdapterCard", "Limits", "Pool", "write_manifest"]
