"""Vectors of the prompts that were embedded last: a prompt is embedded once, whoever asks again.

Kept under a hash of the text, so that no prompt stays in memory.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32

KEPT = 512
"""Vectors; about 3 MB."""


class RecentVectors:
    """Remembers what `embed` gave; safe to call from several threads."""

    def __init__(self, embed: Callable[[Sequence[str]], Float32[np.ndarray, "n d"]]):
        self._embed = embed
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, np.ndarray] = OrderedDict()

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """One vector a text; those that are not remembered are embedded together."""
        keys = [hashlib.sha256(text.encode(errors="surrogatepass")).digest() for text in texts]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if new:
            found.update(zip(new, self._embed(list(new.values())), strict=True))
        with self._lock:
            for key in keys:
                self._kept[key] = found[key]
                self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return [found[key] for key in keys]
