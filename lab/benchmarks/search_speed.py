"""How fast the encoder and the search are: milliseconds among thousands of made-up adapters.

The part `retrieval` of `python -m ramole_core benchmark`; how well they find: `retriever_table`.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
from jaxtyping import Float32

from ramole_core.retrieval.encoder import Encoder, unit
from ramole_core.retrieval.index import AdapterIndex
from ramole_core.retrieval.kept_index import Cards
from ramole_core.retrieval.retriever import Retriever

QUESTION = "Write a SQL query: how many singers from France are older than 40?"


def measure_speed(encoder: Encoder, sizes: Sequence[int]) -> dict[str, float]:
    """Milliseconds: one prompt's vector; and, among `n` adapters with random vectors in Chroma, the
    search alone and a whole `retrieve`, encoder and owners included."""
    found = {"embed_ms": _milliseconds(lambda: encoder.embed([QUESTION]))}
    vector = encoder.embed([QUESTION])[0]
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            index = AdapterIndex(data_dir=Path(folder))
            pool = crowd(n)
            retriever = Retriever(pool=pool, encoder=Strangers(encoder), index=index)
            retriever.check()
            among = {card.key for card in pool.all_cards()}
            search = lambda index=index, among=among: index.query(vector, k=3, among=among)  # noqa: E731
            found[f"search_{n}_ms"] = _milliseconds(search)
            found[f"retrieve_{n}_ms"] = _milliseconds(lambda r=retriever: r.retrieve(QUESTION))
            retriever.close()
    return found


def crowd(n: int) -> Cards:
    """A pool of `n` made-up adapters with an example each."""
    plain = {"owner": None, "description": "", "blind": False}
    cards = [
        SimpleNamespace(
            name=f"stranger{i}", key=f"pool/stranger{i}", texts=(f"stranger{i}",), **plain
        )
        for i in range(n)
    ]
    return cast(Cards, SimpleNamespace(all_cards=lambda: cards, cards=lambda owner=None: cards))


class Strangers:
    """An encoder that embeds the question alone and gives random vectors for everything else."""

    def __init__(self, encoder: Encoder):
        self._encoder = encoder
        self._random = np.random.default_rng(0)
        self._d = encoder.embed([QUESTION]).shape[1]

    @property
    def checksum(self) -> str:
        return self._encoder.checksum

    def count_tokens(self, texts: Sequence[str]) -> int:
        return self._encoder.count_tokens(texts)

    def embed(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        if list(texts) == [QUESTION]:
            return self._encoder.embed(texts)
        return unit(self._random.normal(size=(len(texts), self._d)).astype(np.float32))


def _milliseconds(call: Callable[[], object], times: int = 15) -> float:
    call()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - start))
    return round(statistics.median(taken), 1)
