"""A card that is not there: its tensors say `cuda`, and their numbers lie in the CPU's memory.

Every operation is asked of PyTorch's `FakeTensorMode` first, which refuses what a card refuses:
tensors of two devices in one operation. Then it is computed, on the CPU, so that what the engine
reads back is true and can be held against what the CPU says. A CPU build of PyTorch has nothing
that switches devices, which indexing from Python wants; the one that does nothing is lent to it.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import ClassVar
from unittest import mock

import bitsandbytes
import bitsandbytes.functional
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode

from ramole_core.base import model as base_model
from ramole_core.kernels.program import Program
from ramole_core.kernels.team import Kernel

CARD = torch.device("cuda", 0)
CPU_PLACE, CARD_PLACE = 0, 1
"""Of `c10::DeviceType`."""
DEPENDS = DataDependentOutputException, DynamicOutputShapeException
"""What only numbers can tell; everything else of these operations was asked already."""


aten = torch.ops.aten
INDEXING = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default)
INDEXING += (aten._index_put_impl_.default,)
"""A card takes indices of the CPU too, and waits for them: here that is a fault."""

COMPOSED = torch._C.DispatchKey.CompositeImplicitAutograd


@cache
def _is_composed(func) -> bool:
    """Whether it is made of other operations."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), COMPOSED)


class CardTensor(Tensor):
    """A tensor of the card; `held` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor):
        with torch.inference_mode(False):  # one of inference has no version, which slices want
            made = torch.Tensor._make_wrapper_subclass(  # pyright: ignore
                cls,
                held.size(),
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device=CARD,
            )
        made.held = held
        return made

    def tolist(self) -> list:
        """PyTorch's own knows no tensor but its own."""
        return self.cpu().tolist()

    def __repr__(self, *, tensor_contents=None) -> str:
        return f"CardTensor({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} on the card's tensors, and nobody computes on it")


class Card(TorchDispatchMode):
    """Inside the block `cuda` can be computed on, and no kernel of the CPU runs."""

    _places: ClassVar[dict[tuple, torch.device]] = {}
    """What was judged for any card, by the operation and where its tensors lie: nothing else
    decides."""
    _waiting: ClassVar[set] = set()
    """Operations that only numbers can tell: a card computes them first."""

    def __init__(self):
        super().__init__()
        self._judge = FakeTensorMode(allow_non_fake_inputs=True)
        self.graph: FakeGraph | None = None
        """What is captured now."""

    @contextmanager
    def here(self) -> Iterator["Card"]:
        """In inference, as the engine is."""
        with _lent_guard(), _no_kernels(), self._judge, self:
            yield self

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        leaves = _leaves((args, kwargs))
        if not any(map(_is_ours, leaves)):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if any(isinstance(one, torch.device) for one in leaves):
            args, kwargs = _mapped(_numbered, args), _mapped(_numbered, kwargs)
        if _is_composed(func):
            with self:  # its parts are judged one by one
                return func._op_dk(COMPOSED, *args, **kwargs)
        key = func, *map(_place_of, leaves)
        if key not in self._places:
            self._places[key] = self._judged(func, args, kwargs)
        place = self._places[key]
        known = {id(one.held): one for one in leaves if isinstance(one, CardTensor)}
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        args, kwargs = _mapped(_held, args), _mapped(_held, kwargs)
        if self.graph is not None:
            _refuse_waits(func, leaves, place, waits=func in self._waiting)
        with unset_fake_temporarily():
            out = func(*args, **kwargs)
        if self.graph is not None:
            self.graph.launches.append((func, args, kwargs, out))
        if place.type == "cpu":
            return out

        def placed(one: object) -> object:
            if not isinstance(one, Tensor):
                return one
            return known[id(one)] if id(one) in known else CardTensor(one)

        return placed(out) if isinstance(out, Tensor) else _mapped(placed, out)

    def _judged(self, func, args, kwargs) -> torch.device:
        """Where the results lie, as PyTorch has it; raises where it would."""
        if func in INDEXING and any(
            isinstance(one, Tensor) and one.ndim and one.device.type == "cpu"
            for one in _leaves(args[1])
        ):
            raise RuntimeError("Indices on the CPU, not on the same device as what they index")
        with self._judge:
            args, kwargs = _mapped(self._fake, args), _mapped(self._fake, kwargs)
            try:
                out = _leaves(func(*args, **kwargs))
            except DEPENDS:
                self._waiting.add(func)
                return CARD
        places = {one.device for one in out if isinstance(one, Tensor)} or {CARD}
        assert len(places) == 1, f"{func} gives tensors of two devices"
        return places.pop()

    def _fake(self, one: object) -> object:
        if isinstance(one, FakeTensor) or not isinstance(one, Tensor):
            return one
        return torch.empty_strided(one.size(), one.stride(), dtype=one.dtype, device=one.device)


class FakeGraph:
    """In place of `torch.cuda.CUDAGraph`: what was launched while it was captured, on the very
    memory, is launched again; nothing of Python runs then."""

    def __init__(self):
        self.launches: list[tuple] = []
        self.replays = 0

    @contextmanager
    def captured(self, card: Card) -> Iterator[None]:
        card.graph = self
        try:
            yield
        finally:
            card.graph = None

    def replay(self) -> None:
        self.replays += 1
        with unset_fake_temporarily():
            for func, args, kwargs, out in self.launches:
                before = _leaves((args, kwargs))
                known = {one.data_ptr() for one in before if isinstance(one, Tensor)}
                found = func(*args, **kwargs)
                for old, new in zip(_leaves(out), _leaves(found), strict=True):
                    if not isinstance(old, Tensor) or _shares(old, before):
                        continue  # a view, or written in place
                    assert old.shape == new.shape and old.data_ptr() not in known
                    old.copy_(new)


def _shares(one: Tensor, others: list) -> bool:
    """Whether it lies in the memory of one of these."""
    place = one.untyped_storage().data_ptr()
    return any(
        isinstance(other, Tensor) and other.untyped_storage().data_ptr() == place
        for other in others
    )


def _refuse_waits(func, leaves: list, place: torch.device, *, waits: bool) -> None:
    """A card that captures refuses what waits for it, or copies from the CPU's memory."""
    away = [one for one in leaves if isinstance(one, Tensor) and not isinstance(one, CardTensor)]
    if waits or place.type == "cpu" or any(one.ndim for one in away):
        raise RuntimeError(f"{func}: operation not permitted when stream is capturing")


@contextmanager
def graphs_of(card: Card) -> Iterator[list[FakeGraph]]:
    """Inside the block PyTorch captures graphs of this card: all that were made."""
    made: list[FakeGraph] = []

    def make() -> FakeGraph:
        made.append(FakeGraph())
        return made[-1]

    with (
        mock.patch.object(torch.cuda, "CUDAGraph", make),
        mock.patch.object(torch.cuda, "graph", lambda graph: graph.captured(card)),
    ):
        yield made


def _leaves(tree: object) -> list:
    """All that an operation is given or gives, as PyTorch's own `tree_leaves`, which is made for
    any tree, and takes longer than the operation."""
    if isinstance(tree, (tuple, list)):
        return [leaf for one in tree for leaf in _leaves(one)]
    return _leaves(list(tree.values())) if isinstance(tree, dict) else [tree]


def _mapped(change: Callable, tree):
    """With each of these leaves changed."""
    if isinstance(tree, dict):
        return {name: _mapped(change, one) for name, one in tree.items()}
    if isinstance(tree, (tuple, list)) and not hasattr(tree, "_fields"):
        return type(tree)([_mapped(change, one) for one in tree])
    if isinstance(tree, tuple):
        return type(tree)(*(_mapped(change, one) for one in tree))
    return change(tree)


def _is_ours(one: object) -> bool:
    """Whether it lies on the card, or names it."""
    return isinstance(one, CardTensor) or isinstance(one, torch.device) and one.type == "cuda"


def _place_of(one: object) -> object:
    """All of an argument that decides where an operation can run."""
    if isinstance(one, Tensor):
        return one.device, one.ndim == 0
    return one if isinstance(one, torch.device) else one is None


def _numbered(one: object) -> object:
    """There is one card; the lent guard would say `cpu` where none is named."""
    return CARD if isinstance(one, torch.device) and one.type == "cuda" else one


def _held(one: object) -> object:
    return one.held if isinstance(one, CardTensor) else one


def to_card(tensor: Tensor) -> CardTensor:
    """The same numbers, on the card."""
    return CardTensor(tensor.detach().clone())


def move(model: torch.nn.Module) -> None:
    """Every weight and buffer becomes one of the card."""
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            setattr(module, name, torch.nn.Parameter(to_card(weight), requires_grad=False))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, to_card(buffer))


@contextmanager
def _lent_guard() -> Iterator[None]:
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * 2).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    before = guards[CARD_PLACE]
    guards[CARD_PLACE] = before or guards[CPU_PLACE]
    try:
        yield
    finally:
        guards[CARD_PLACE] = before


@contextmanager
def _no_kernels() -> Iterator[None]:
    def refuse(*args: object, **named: object) -> None:
        raise AssertionError("a kernel of the CPU was chosen for the card")

    with mock.patch.object(Kernel, "run", refuse), mock.patch.object(Program, "run", refuse):
        yield


class _Waiting:
    """A weight that becomes NF4 where it lies, in place of bitsandbytes' `Params4bit`: its kind of
    tensor cannot be made of another kind."""

    def __init__(self, value: Tensor, requires_grad: bool = False, **how):
        assert not requires_grad
        self._value, self._how = value, how

    def to(self, device: torch.device) -> Tensor:
        names = "blocksize", "quant_type", "compress_statistics"
        packed, state = bitsandbytes.functional.quantize_4bit(
            self._value.to(device), **{name: self._how[name] for name in names}
        )
        weight = torch.nn.Parameter(packed, requires_grad=False)
        weight.quant_state, weight.bnb_quantized = state, True  # pyright: ignore
        return weight


@contextmanager
def found() -> Iterator[None]:
    """Inside the block PyTorch and transformers are told of the card, so that a model can be loaded
    onto it, in one thread: others would not know of it."""
    pick = base_model.pick_device
    free = 2**33
    with (
        mock.patch.object(bitsandbytes.nn, "Params4bit", _Waiting),
        mock.patch.object(
            base_model, "pick_device", lambda name: CARD if name == "cuda" else pick(name)
        ),
        mock.patch.multiple(
            torch.cuda,
            is_available=lambda: True,
            current_device=lambda: 0,
            mem_get_info=lambda *_: (free, free),
            memory_reserved=lambda *_: 0,
            memory_allocated=lambda *_: 0,
        ),
        mock.patch.dict(os.environ, HF_DEACTIVATE_ASYNC_LOAD="1"),
    ):
        yield
