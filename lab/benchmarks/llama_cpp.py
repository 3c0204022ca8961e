"""llama.cpp as a peer: the same base in the 4 bits of its GGUF, by `llama_decode` alone.

No server, no sampler, no detokenising: token ids in, greedy token ids out, all sequences in one
batch. It needs the package llama-cpp-python, which nothing else here does; its build decides which
instructions of this machine are used, so let pip build it here.
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lab.benchmarks.record import Measured
from ramole_core.cli.timed_engine import now, rates
from ramole_core.errors import RamoleError

MOST_AT_ONCE = 2048
"""Tokens of one `llama_decode`."""
CPU = torch.device("cpu")


def find_llama() -> Any:
    """The package's module; raises RamoleError where it is not installed."""
    try:
        return importlib.import_module("llama_cpp")
    except ImportError:
        raise RamoleError(
            "--peers needs the package llama-cpp-python, which is not installed; run: pip install "
            "llama-cpp-python"
        ) from None


class LlamaCpp:
    """The loaded GGUF; `close` gives it back."""

    name = "llama_cpp"

    def __init__(self, gguf: Path, *, threads: int):
        """Raises RamoleError where the package is not there, or cannot load the file."""
        self._api = find_llama()
        self._threads = threads
        self._api.llama_backend_init()
        self._quiet = self._api.llama_log_callback(lambda level, text, data: None)
        self._api.llama_log_set(self._quiet, None)
        params = self._api.llama_model_default_params()
        params.n_gpu_layers = 0
        self._model = self._api.llama_model_load_from_file(str(gguf).encode(), params)
        if not self._model:
            raise RamoleError(f"llama.cpp cannot load {gguf}; fetch it again.")
        self._words = self._api.llama_vocab_n_tokens(self._api.llama_model_get_vocab(self._model))

    @property
    def version(self) -> str:
        """Of the package."""
        return str(self._api.__version__)

    def measure(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Measured:
        """Token ids of prompts of one length, all at once, from their start to the last token."""
        length = len(prompts[0]) + new_tokens
        with self._context(len(prompts), length) as context, self._batch(prompts) as batch:
            began = now(CPU)
            last = self._read(context, batch, prompts)
            read = now(CPU)
            for position in range(len(prompts[0]), length - 1):
                last = self._step(context, batch, last, position)
            ended = now(CPU)
        return {
            **rates(
                prompt_tokens=sum(map(len, prompts)),
                prefill_seconds=read - began,
                new_tokens=len(prompts) * (new_tokens - 1),
                decode_seconds=ended - read,
            ),
            "seconds": ended - began,
        }

    def close(self) -> None:
        """Free the model."""
        self._api.llama_model_free(self._model)

    def _read(self, context: Any, batch: Any, prompts: Sequence[Sequence[int]]) -> list[int]:
        """Read the prompts; the first new token of each."""
        found: list[int] = []
        whole = max(1, MOST_AT_ONCE // len(prompts[0]))
        for start in range(0, len(prompts), whole):
            part = prompts[start : start + whole]
            rows = [
                (token, position, start + row, position == len(ids) - 1)
                for row, ids in enumerate(part)
                for position, token in enumerate(ids)
            ]
            found += self._decode(context, batch, rows)
        return found

    def _step(self, context: Any, batch: Any, last: Sequence[int], position: int) -> list[int]:
        """One token more of each sequence."""
        rows = [(token, position, row, True) for row, token in enumerate(last)]
        return self._decode(context, batch, rows)

    def _decode(
        self, context: Any, batch: Any, rows: Sequence[tuple[int, int, int, bool]]
    ) -> list[int]:
        """The likeliest next token of each row (token, position, sequence, wanted) that is
        wanted."""
        batch.n_tokens = len(rows)
        for number, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[number] = token
            batch.pos[number] = position
            batch.n_seq_id[number] = 1
            batch.seq_id[number][0] = sequence
            batch.logits[number] = wanted
        if code := self._api.llama_decode(context, batch):
            raise RamoleError(f"llama.cpp could not read {len(rows)} tokens (code {code}).")
        return [
            int(self._logits(context, number).argmax())
            for number, (*_, wanted) in enumerate(rows)
            if wanted
        ]

    def _logits(self, context: Any, number: int) -> np.ndarray:
        found = self._api.llama_get_logits_ith(context, number)
        return np.ctypeslib.as_array(found, (self._words,))

    @contextmanager
    def _context(self, sequences: int, length: int) -> Iterator[Any]:
        params = self._api.llama_context_default_params()
        params.n_ctx = sequences * (-(-length // 256) * 256)
        params.n_seq_max = sequences
        params.n_batch = MOST_AT_ONCE
        params.n_threads = params.n_threads_batch = self._threads
        context = self._api.llama_init_from_model(self._model, params)
        try:
            yield context
        finally:
            self._api.llama_free(context)

    @contextmanager
    def _batch(self, prompts: Sequence[Sequence[int]]) -> Iterator[Any]:
        most = max(MOST_AT_ONCE, len(prompts), *map(len, prompts))
        batch = self._api.llama_batch_init(most, 0, 1)
        try:
            yield batch
        finally:
            self._api.llama_batch_free(batch)
