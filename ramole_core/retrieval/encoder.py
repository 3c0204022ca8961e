"""The sentence encoder: an instruction and a text to a vector of unit length.

The instruction is the one of LoraRetriever (arXiv 2402.09997, section 4.1); adapters and prompts
are embedded with it alike, so that their cosine measures likeness of task.
"""

import hashlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from ramole_core.errors import RamoleError, first_line
from ramole_core.retrieval.metric import MAX_CHARACTERS
from ramole_core.retrieval.model_files import find_model, hash_files
from ramole_core.retrieval.tuning import Tuning, Window, read_tuning

if TYPE_CHECKING:
    from ramole_core.retrieval.any_encoder import AnyEncoder
    from ramole_core.retrieval.bert import Bert

INSTRUCTION = "Represent the sentence for similar task retrieval: "

MAX_CACHED = 512
"""Most vectors in the cache; about 3 MB."""
MAX_BATCH = 16
"""Most texts of one forward, for which a prompt that comes meanwhile waits."""
Rows = Sequence[Float32[np.ndarray, "d"]]
_Pending = tuple[str, Future[np.ndarray]]
"""A text, and its row to come."""


class Encoder:
    """A sentence-transformers model on the CPU, loaded on first use; thread-safe."""

    def __init__(
        self,
        source: str = "all-MiniLM-L6-v2",
        *,
        data_dir: Path,
        adapter: Path | None = None,
    ):
        """`adapter` is a folder with a tuning of the encoder itself (`tuning.py`).

        A folder that is not there, or whose tuning is of another encoder, changes nothing:
        `tuned` tells. A Hugging Face id that has to be downloaded is kept under
        `data_dir`/encoders.
        """
        self.source = source
        self._download_dir = Path(data_dir) / "encoders"
        self._adapter = adapter
        self._lock = threading.RLock()
        self._gathered = Gathered(self._rows)

    @property
    def checksum(self) -> str:
        """SHA-256 of the files that vectors depend on: another value means other vectors."""
        with self._lock:
            return self._checksum

    @property
    def tuned(self) -> bool:
        """Whether the adapter is in use."""
        with self._lock:
            return self._tuning is not None

    def embed(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """Vectors of unit length, the instruction included; no texts give a [0, d] array.

        With a tuned metric a vector has the words beside the encoder's part, and a cosine is the
        mixture of both (`metric.py`). Raises RamoleError when the model cannot be loaded.
        """
        with self._lock:
            _, tuning = self._model, self._tuning  # a model that cannot be loaded says so first
        rows = self.dense(texts, window=tuning.window if tuning else None)
        if not (tuning and tuning.metric):
            return rows
        if not texts:
            return tuning.metric(rows, texts)
        each = zip(rows, texts, strict=True)
        return np.concatenate([tuning.metric(row[None], [text]) for row, text in each])

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens of all these texts, as the encoder has them, before it cuts them to its window."""
        with self._lock:
            return self._model.count_tokens([text[:MAX_CHARACTERS] for text in texts])

    def dense(
        self, texts: Sequence[str], *, window: Window | None = None
    ) -> Float32[np.ndarray, "n d"]:
        """The encoder's own part alone, of unit length; `window` None is the encoder's own."""
        with self._lock:
            model = self._model
            cut = [text[:MAX_CHARACTERS] for text in texts]
            if window is not None:
                cut = window.cut(texts, model.spans)
        asked = [INSTRUCTION + text for text in cut] or [INSTRUCTION]
        return unit(np.stack(self._gathered(asked)))[: len(texts)]

    def _rows(self, texts: list[str]) -> list[Float32[np.ndarray, "d"]]:
        """Encode in one forward where no text changes another's bits; else each by itself."""
        with self._lock:
            return self._model.read(texts)

    @cached_property
    def _folder(self) -> Path:
        return find_model(self.source, download_dir=self._download_dir)

    @cached_property
    def _own_checksum(self) -> str:
        """SHA-256 of the encoder's own files."""
        return hash_files(self._folder)

    @cached_property
    def _checksum(self) -> str:
        if self._tuning is None:
            return self._own_checksum
        both = f"{self._own_checksum} {hash_files(self._tuning.folder)}"
        return hashlib.sha256(both.encode()).hexdigest()

    @cached_property
    def _tuning(self) -> Tuning | None:
        found = read_tuning(self._adapter) if self._adapter is not None else None
        return found if found and found.encoder_checksum in (None, self._own_checksum) else None

    @cached_property
    def _model(self) -> "Bert | AnyEncoder":
        folder = self._folder
        try:
            return load_model(folder, self._tuning)
        except Exception as error:  # a stack of third-party loaders: any type may come
            reason = first_line(error)
            raise RamoleError(
                f"The sentence encoder {self.source!r} in {folder} cannot be loaded "
                f"({reason}); set RAMOLE_ENCODER to a sentence-transformers model."
            ) from error


def load_model(folder: Path, tuning: Tuning | None) -> "Bert | AnyEncoder":
    """A folder's encoder: read by our kernels where they can, else by sentence-transformers."""
    from ramole_core.retrieval.bert import Bert, can_read

    if can_read(folder):
        return Bert(folder, tuning)
    from ramole_core.retrieval.any_encoder import AnyEncoder

    return AnyEncoder(folder, tuning)


def unit(rows: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """The rows at length 1; a row of zeros stays zero."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)


class RecentVectors:
    """A cache of the last prompts' vectors, by a hash of the text; thread-safe."""

    def __init__(self, embed: Callable[[Sequence[str]], Float32[np.ndarray, "n d"]]):
        self._embed = embed
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, np.ndarray] = OrderedDict()

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """One vector a text; missing ones are embedded in one call."""
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
            while len(self._kept) > MAX_CACHED:
                self._kept.popitem(last=False)
        return [found[key] for key in keys]


class Gathered:
    """A batching wrapper: while one caller reads, others' texts gather for the next call."""

    def __init__(self, read: Callable[[list[str]], Rows]):
        """`read` is called by one thread at a time, with at most MAX_BATCH texts."""
        self._read = read
        self._reading = threading.Lock()
        self._waiting: deque[_Pending] = deque()

    def __call__(self, texts: Sequence[str]) -> list[Float32[np.ndarray, "d"]]:
        """The result of `read` for each; raises what it raises for one of them."""
        rows: list[np.ndarray] = []
        for first in range(0, len(texts), MAX_BATCH):  # or a long list would be before every prompt
            asked: list[_Pending] = [(text, Future()) for text in texts[first : first + MAX_BATCH]]
            self._waiting.extend(asked)
            rows += [self._row_of(row) for _, row in asked]
        return rows

    def _row_of(self, row: Future[np.ndarray]) -> np.ndarray:
        if not row.done():
            with self._reading:
                while not row.done():
                    self._read_next()
        return row.result()

    def _read_next(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
        try:
            self._fill(batch)
        except BaseException:  # this reader was interrupted: another one goes on
            self._waiting.extendleft(one for one in reversed(batch) if not one[1].done())
            raise

    def _fill(self, batch: Sequence[_Pending]) -> None:
        """Read these together, or where that fails each by itself, so that an error stays with its
        text."""
        try:
            rows = self._read([text for text, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for one in batch:
                    self._fill([one])
            return
        for (_, asked), row in zip(batch, rows, strict=True):
            asked.set_result(row)
