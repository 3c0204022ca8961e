"""How well and how fast the encoder finds the right adapter: the LoraRetriever benchmark.

48 LoRAs, each the mean over its 20 sample inputs, and prompts of the same 48 tasks (arXiv
2402.09997, table 2): how often is the prompt's own LoRA among the first 1, 3, 5, 8?

    python -m ramole_core.retrieval.benchmark --data FOLDER [--sizes 50 1000 10000] [--json]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int

from ramole_core.retrieval.encoder import Encoder, unit
from ramole_core.retrieval.index import AdapterIndex
from ramole_core.retrieval.retriever import Retriever

POOL = 48
"""The paper's pool: the first 48 LoRAs of the release."""
FIRST = (1, 3, 5, 8)
QUESTION = "Write a SQL query: how many singers from France are older than 40?"


def measure_recall(encoder: Encoder, data: Path) -> dict[str, float]:
    """Percent of the prompts whose own LoRA is among the first 1, 3, 5, 8, by brute force."""
    loras = json.loads((data / "retrieval" / "lora_samples.json").read_text())[:POOL]
    queries = json.loads((data / "retrieval" / "queries.json").read_text())
    pool = unit(
        np.stack([encoder.embed([row["inputs"] for row in x["sample"]]).mean(0) for x in loras])
    )
    names = [x["model_name"] for x in loras]
    rows = encoder.embed([query["inputs"] for query in queries])
    places = rank_of_own(rows @ pool.T, [names.index(query["task"]) for query in queries])
    return {f"top{k}": round(100 * float((places < k).mean()), 1) for k in FIRST}


def rank_of_own(
    scores: Float32[np.ndarray, "queries n"], own: Sequence[int]
) -> Int[np.ndarray, "queries"]:
    """How many adapters score higher than the query's own one."""
    rows = np.arange(len(own))
    return (scores > scores[rows, list(own)][:, None]).sum(1)


def measure_speed(encoder: Encoder, sizes: Sequence[int]) -> dict[str, float]:
    """Milliseconds: one prompt's vector; and, among `n` adapters with random vectors in Chroma, the
    search alone and a whole `retrieve`, encoder and owners included."""
    found = {"embed_ms": _milliseconds(lambda: encoder.embed([QUESTION]))}
    vector = encoder.embed([QUESTION])[0]
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            index = AdapterIndex(data_dir=Path(folder))
            pool = Crowd(n)
            retriever = Retriever(pool=pool, encoder=Strangers(encoder), index=index)
            retriever.check()
            among = {card.key for card in pool.all_cards()}
            search = lambda index=index, among=among: index.query(vector, k=3, among=among)  # noqa: E731
            found[f"search_{n}_ms"] = _milliseconds(search)
            found[f"retrieve_{n}_ms"] = _milliseconds(lambda r=retriever: r.retrieve(QUESTION))
            retriever.close()
    return found


@dataclass(frozen=True)
class Stranger:
    """A made-up adapter with one example."""

    name: str
    owner: str | None = None
    description: str = ""

    @property
    def key(self) -> str:
        return f"pool/{self.name}"

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def blind(self) -> bool:
        return False


class Crowd:
    """A pool of `n` made-up adapters."""

    def __init__(self, n: int):
        self._cards = [Stranger(f"stranger{i}") for i in range(n)]

    def all_cards(self) -> list[Stranger]:
        return self._cards

    def cards(self, owner: str | None = None) -> list[Stranger]:
        return [card for card in self._cards if card.owner in (None, owner)]


class Strangers:
    """An encoder that embeds the question alone and gives random vectors for everything else."""

    def __init__(self, encoder: Encoder):
        self._encoder = encoder
        self._random = np.random.default_rng(0)
        self._d = encoder.embed([QUESTION]).shape[1]

    @property
    def checksum(self) -> str:
        return self._encoder.checksum

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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds retrieval/")
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2")
    parser.add_argument("--sizes", type=int, nargs="*", default=[], help="pools to time")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    encoder = Encoder(asked.encoder, data_dir=Path(tempfile.gettempdir()))
    found = measure_recall(encoder, asked.data) | measure_speed(encoder, asked.sizes)
    found = {"encoder": asked.encoder, "checksum": encoder.checksum, **found}
    if asked.json:
        print(json.dumps(found, indent=1))
    else:
        print("\n".join(f"{name:>16} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
