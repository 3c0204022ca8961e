"""Attention over pages on a CPU, by batch-invariant kernels."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ramole_core.engine.pages import PAGE
from ramole_core.kernels.attention import (
    ATTEND,
    BLOCKS,
    CAP,
    DV,
    HALF,
    HEADS,
    K_HEAD,
    K_TOKEN,
    KEYS,
    NEW_K,
    NEW_V,
    OUT,
    Q_HEAD,
    Q_TOKEN,
    RUNS,
    SCALE,
    SHARED,
    SINKS,
    TABLES,
    V_HEAD,
    V_TOKEN,
    VALUES,
    WIDE,
    WINDOW,
    WRITE,
    D,
    Q,
    queries_of,
)
from ramole_core.kernels.call_args import WATCHING, WORDS
from ramole_core.kernels.compiled import DTYPES
from ramole_core.kernels.program import Program


class CompiledAttention:
    """Attention of one flat forward; what its layers share is made once."""

    @staticmethod
    def knows(keys: Tensor) -> bool:
        """Whether kernels support such pages."""
        return keys.device.type == "cpu" and keys.dtype in DTYPES

    def __init__(
        self,
        starts: np.ndarray,
        counts: np.ndarray,
        tables: Sequence[np.ndarray],
        *,
        like: Tensor,
    ):
        """Spans of `counts` tokens behind `starts` others, in the pages of `tables`."""
        self._starts, self._counts = starts, counts
        self._tables = np.concatenate(tables)
        ends = np.cumsum([len(table) for table in tables])
        self._at = [int(end) - len(table) for end, table in zip(ends, tables, strict=True)]
        self._runs = np.array(list(self._each_run()), np.int32)
        self._blocks: dict[int, np.ndarray] = {}
        self._scales: dict[float, np.ndarray] = {}
        self._sinks: dict[int, Tensor] = {}
        words = self._words = np.zeros(WORDS, np.int64)
        words[HALF] = like.dtype == torch.bfloat16
        words[[TABLES, RUNS]] = self._tables.ctypes.data, self._runs.ctypes.data

    def write(self, keys: Tensor, values: Tensor, new_keys: Tensor, new_values: Tensor) -> None:
        """Write keys [1, h, N, d] and values [1, h, N, dv] of the tokens into their pages."""
        new_keys, new_values = _in_rows(new_keys), _in_rows(new_values)
        words, (_, h, d, _) = self._words, keys.shape
        words[HEADS], words[D], words[DV] = h, d, new_values.shape[3]
        words[WIDE], words[KEYS], words[VALUES] = values.shape[3], *_places(keys, values)
        words[NEW_K], words[NEW_V] = _places(new_keys, new_values)
        _, words[K_HEAD], words[K_TOKEN], _ = new_keys.stride()
        _, words[V_HEAD], words[V_TOKEN], _ = new_values.stride()
        WRITE.run(words, len(self._runs))

    def attend(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        scale: float,
        window: int | None,
        cap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """[1, hq, N, d] -> [1, N, hq, dv]; the same layer's tokens were written just before. `cap`
        and `sinks` as in `FlatCache.attend`."""
        query, words = _in_rows(query), self._words
        _, heads, n, _ = query.shape
        out = torch.empty(1, n, heads, int(words[DV]), dtype=query.dtype)
        words[KEYS], words[VALUES] = _places(keys, values)
        words[Q], words[OUT] = _places(query, out)
        _, words[Q_HEAD], words[Q_TOKEN], _ = query.stride()
        h = keys.shape[1]
        shared = words[SHARED] = heads // h
        words[SCALE], words[WINDOW] = self._scale(scale), window or 0
        words[CAP] = 0 if cap is None else self._scale(float(cap))
        words[SINKS] = 0 if sinks is None else self._sinks_of(sinks).data_ptr()
        blocks = self._blocks_of(queries_of(shared))
        if (watcher := WATCHING.one) is not None:
            watcher.keep(self)
        words[BLOCKS] = blocks.ctypes.data
        ATTEND.run(words, len(blocks) * h)
        return out

    def take_over(self, program: Program) -> None:
        """Point the program of an equal step (one token a request) at these spans."""
        places = {TABLES: self._tables.ctypes.data, RUNS: self._runs.ctypes.data}
        program.point(WRITE, places)
        program.point(ATTEND, places | {BLOCKS: self._blocks_of(1).ctypes.data})

    def _scale(self, scale: float) -> int:
        return self._scales.setdefault(scale, np.array([scale], np.float32)).ctypes.data

    def _sinks_of(self, sinks: Tensor) -> Tensor:
        """The sinks in float32, kept as long as this forward."""
        place = sinks.data_ptr()
        return self._sinks.setdefault(place, sinks.detach().float().contiguous())

    def _each_run(self):
        """(first token, tokens, page, slot) of what is written into one page."""
        first = 0
        for start, count, table in zip(*self._spans(), strict=True):
            at, end = start, start + count
            while at < end:
                n = min(PAGE - at % PAGE, end - at)
                yield first, n, self._tables[table + at // PAGE], at % PAGE
                first, at = first + n, at + n

    def _blocks_of(self, most: int) -> np.ndarray:
        """[blocks, 4] int32: (first token, tokens, place of the first, its table) of what is
        attended together, the longest contexts first, so that no thread ends with one."""
        if most not in self._blocks:
            found, first = [], 0
            for start, count, table in zip(*self._spans(), strict=True):
                for at in range(0, count, most):
                    found.append((first + at, min(most, count - at), start + at, table))
                first += count
            found.sort(key=lambda block: -block[1] * (block[1] + block[2]))
            self._blocks[most] = np.array(found, np.int32)
        return self._blocks[most]

    def _spans(self) -> tuple[list[int], list[int], list[int]]:
        return self._starts.tolist(), self._counts.tolist(), self._at


def _places(*tensors: Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def _in_rows(tensor: Tensor) -> Tensor:
    """Return the tensor with each token's numbers of a head contiguous."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
