"""Threads of the kernels, and of PyTorch's loops beside them.

PyTorch's threads (OpenMP) and a kernel's helpers wait for their next call by looking for it, on the
same cores: a forward that alternates between both has each of them stand in the other's way, and is
hardly faster than on one thread.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from threadpoolctl import ThreadpoolController

_HERE = threading.local()


def thread_count() -> int:
    """The number of threads of a kernel, the caller's included."""
    return getattr(_HERE, "count", 0) or torch.get_num_threads()


@contextmanager
def kernels_alone() -> Iterator[None]:
    """Run PyTorch's loops and products on the caller's thread alone inside the block, and kernels
    on as many as before; other threads are unaffected. For forwards whose large products are all
    kernels'."""
    if getattr(_HERE, "count", 0):
        yield
        return
    _HERE.count = torch.get_num_threads()
    before = _mkl_here()(1)
    try:
        with _openmp().limit(limits=1, user_api="openmp"):
            yield
    finally:
        _mkl_here()(before)
        _HERE.count = 0


@cache
def _openmp() -> ThreadpoolController:
    return ThreadpoolController()


@cache
def _mkl_here() -> Callable[[int], int]:
    """Set MKL's threads for the caller's thread; returns the earlier value, 0: none. Even its
    smallest product leaves a thread of OpenMP behind that looks for work where a helper would."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return library.MKL_Set_Num_Threads_Local
    except (OSError, AttributeError):  # PyTorch without MKL, as on ARM
        return lambda threads: 0
