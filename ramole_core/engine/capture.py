"""Decode steps that are captured once and replayed; on a CPU without Python.

Keys, values and adapters stay in the same memory; only tokens, positions, pages and what the tables
of the rows hold change. On a CPU the second step of its sizes is recorded, those after it run the
recording, also of other rows, whose tables are filled into its own.

In a recording kernels' calls are copied with their words; sums, products and copies that PyTorch
makes between them become calls of `kernels.pointwise`; anything else is called again as it was.
Views and empty tensors need nothing: what they lie in stays. All that was made stays alive with it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ramole_core.engine.flat_cache import FlatCache
from ramole_core.engine.kv import KvCache
from ramole_core.kernels import pointwise
from ramole_core.kernels.call_args import WATCHING
from ramole_core.kernels.compiled import view
from ramole_core.kernels.pointwise import POINTS
from ramole_core.kernels.program import Program
from ramole_core.layers import BatchMix, Forward, RowMix

aten = torch.ops.aten
POINTWISE = {
    aten.add.Tensor: pointwise.ADD,
    aten.mul.Tensor: pointwise.MULTIPLY,
    aten.neg.default: pointwise.NEGATE,
    aten.clone.default: pointwise.COPY,
}
EMPTY = (aten.empty.memory_format, aten.empty_like.default, aten.empty_strided.default)
HOST_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
"""Tags of operators by which Python gets a number, or learns how many results there are; either may
differ in the next run. `Tensor.tolist` and `Tensor.numpy` are no operators and are not seen."""
HOST_COMPOSITES = (
    aten.where.default,
    aten.argwhere.default,
    aten.nonzero_numpy.default,
    aten.narrow.Tensor,
    aten.repeat_interleave.self_Tensor,
    aten.tensor_split.tensor_indices_or_sections,
)
"""Others like them, without a tag, which inference mode does not take apart."""


class _OperatorRecorder(TorchDispatchMode):
    """Record PyTorch's operators."""

    def __init__(self, program: Program):
        super().__init__()
        self._program = program

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: no wrapper around each call, for a compiler that is not used here."""
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        program = self._program
        if program.paused:
            return out
        program.keep(out, args, kwargs)
        if _reads_numbers(func, args, out):
            program.fault = program.fault or f"Python reads the result of {func}"
        elif not is_view_only(func) and not _is_view(func, args, kwargs, out):
            self._write(func, args, kwargs, out)
        return out

    def _write(self, func, args, kwargs, out) -> None:
        program = self._program
        if isinstance(out, Tensor) and (call := _pointwise(func, args, kwargs, out)):
            for words in call:
                program.call(POINTS, words)
            return

        if rows := _embedded(func, args, out):
            table, ids, found = view(rows[0]), rows[1].numpy(), view(rows[2])

            def look_up() -> None:
                found[:] = table[ids]

            program.again(look_up)
            return

        def again() -> None:
            new = func(*args, **kwargs)
            for old, one in zip(_tensors(out), _tensors(new), strict=True):
                if old is not one:
                    old.copy_(one)

        program.again(again)


def _embedded(func, args, out) -> tuple[Tensor, Tensor, Tensor] | None:
    """Weight, tokens and output of an embedding, in place; None: not an embedding, or not
    contiguous."""
    if func is not aten.embedding.default or not (out.is_contiguous() and args[1].is_contiguous()):
        return None
    return args[0].detach(), args[1].view(-1), out.view(-1, out.shape[-1])


@cache
def is_view_only(func) -> bool:
    """Whether an operator computes nothing: its outputs are views of its inputs, or empty."""
    schema = func._schema
    places = [one.alias_info for one in schema.returns]
    views = bool(places) and all(place is not None and not place.is_write for place in places)
    # one that is made of others may copy in the end, as `contiguous` does
    whole = not torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), "CompositeImplicitAutograd"
    )
    return func in EMPTY or (views and whole and not schema.is_mutable)


def _is_view(func, args, kwargs, out) -> bool:
    if func._schema.is_mutable:
        return False
    places = [_place(one) for one in _tensors((*args, *kwargs.values()))]
    return all(_place(one) in places for one in _tensors(out))


def _reads_numbers(func, args, out) -> bool:
    """Whether Python may go on otherwise in the next run: it has a number (`bool` of a tensor), or
    as many results as the numbers say; of an index, whether it is a mask."""
    if func is aten.index.Tensor:
        return any(one.dtype in (torch.bool, torch.uint8) for one in _tensors(args[1]))
    has_number = func._schema.returns and not any(True for _ in _tensors(out))
    return bool(has_number) or func in HOST_COMPOSITES or not HOST_TAGS.isdisjoint(func.tags)


def _tensors(found: object) -> Iterator[Tensor]:
    """The tensors in an operator's arguments or results, also in lists."""
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, list | tuple):
        for one in found:
            yield from _tensors(one)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _pointwise(func, args, kwargs, out: Tensor) -> list[np.ndarray]:
    """Kernel calls equal to the operator; empty: there are none."""
    if func is aten.cat.default:
        return _joined(args, out)
    kind = POINTWISE.get(func)
    tensors = [one for one in args if isinstance(one, Tensor)]
    if kind is None or len(tensors) != len(args) or set(kwargs) - {"memory_format"}:
        return []
    words = pointwise.words_of(kind, out, *tensors)
    return [] if words is None else [words]


def _joined(args, out: Tensor) -> list[np.ndarray]:
    tensors, dim = args[0], args[1] if len(args) > 1 else 0
    found, at = [], 0
    for one in tensors:
        part = out.narrow(dim, at, one.shape[dim])
        words = pointwise.words_of(pointwise.COPY, part, one)
        if words is None:
            return []
        found.append(words)
        at += one.shape[dim]
    return found


@contextmanager
def recording() -> Iterator[Program]:
    """Record the kernels' calls and PyTorch's operators of this thread inside the block."""
    made = Program()
    WATCHING.one = made
    try:
        with _OperatorRecorder(made):
            yield made
    finally:
        WATCHING.one = None
    made.close()


@dataclass
class CapturedStep:
    """The requests of a kept step, and the tensors that it reads."""

    batch: BatchMix
    traced: tuple[int, ...]
    kv: KvCache
    forward: Forward
    ids: Tensor
    positions: Tensor
    versions: tuple[int, int] = field(init=False)
    """Versions of the cache's and the bank's memory that it reads."""

    def __post_init__(self):
        self.versions = self._versions()

    def fits(self, mixes: Sequence[RowMix], traced: Sequence[int], kv: KvCache) -> bool:
        """Whether a step of one token for each of these rows can replay this one."""
        return (
            self.lies_in(kv)
            and self.batch.version == self.batch.bank.version
            and self.traced == tuple(traced)
            and same(self.batch.rows, mixes)
        )

    def lies_in(self, kv: KvCache) -> bool:
        return kv is self.kv and self._versions() == self.versions

    def _versions(self) -> tuple[int, int]:
        return self.kv.memory.version, self.batch.bank.tensors.made

    def take(self, batch: BatchMix) -> None:
        """Refill its tables for other rows of the same sizes; on a CPU."""
        if batch is not self.batch:
            self.batch.take(batch)
            self.forward.clear()


@dataclass
class Replay:
    """A recorded step."""

    step: CapturedStep
    logits: Tensor
    program: Program
    _cache: FlatCache | None = None

    def run(self, ids: Sequence[int], cache: FlatCache) -> Tensor:
        """Logits [b, v] of these tokens, one a request, in memory of their own."""
        self.step.ids.numpy()[0] = ids
        self.step.positions.numpy()[:] = cache.positions.numpy()
        cache.take_over(self.program)
        self._cache = cache  # its arrays are read while the program runs
        self.program.run()
        return copied(self.logits)


def copied(logits: Tensor) -> Tensor:
    """Copy a tensor in this thread alone: PyTorch would start its own threads, which then wait for
    the cores that the kernels' team uses (`kernels.likeliest`)."""
    return torch.from_numpy(view(logits).copy()).view(logits.dtype)


def same(rows: Sequence[RowMix], mixes: Sequence[RowMix]) -> bool:
    return len(rows) == len(mixes) and all(a is b for a, b in zip(rows, mixes, strict=True))
