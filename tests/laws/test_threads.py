"""PyTorch's loops keep to one thread beside the kernels, and nobody else notices."""

import threading

import pytest
import torch

from ramole_core.engine import engine as engine_module, model_runner
from ramole_core.kernels.threads import kernels_alone, thread_count
from tests.support.few_prompts import few_reference_prompts  # noqa: F401  a fixture
from tests.support.schedules import ask
from tests.support.tiny_engine import TinyEngine

pytestmark = pytest.mark.usefixtures("two_threads")


def counts():
    """Threads of PyTorch's loops, and of a kernel's."""
    return torch.get_num_threads(), thread_count()


def mkl_threads():
    """Of PyTorch's products in this thread."""
    return int(torch.__config__.parallel_info().split("mkl_get_max_threads() :")[1].split()[0])


def elsewhere(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_inside_pytorch_has_one_thread_and_a_kernel_as_many_as_before():
    assert elsewhere(counts) == (2, 2)
    with kernels_alone():
        assert counts() == (1, 2) and elsewhere(counts) == (2, 2)
        with kernels_alone():
            assert counts() == (1, 2)
        assert counts() == (1, 2)
    assert counts() == (2, 2)
    with pytest.raises(KeyError), kernels_alone():
        raise KeyError
    assert counts() == (2, 2) and elsewhere(counts) == (2, 2)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="PyTorch without MKL")
def test_pytorchs_products_have_one_thread_too():
    """The smallest of them leaves a thread behind that takes the core a helper needs."""
    assert mkl_threads() == 2
    with kernels_alone():
        assert mkl_threads() == 1 and elsewhere(mkl_threads) == 2
    assert mkl_threads() == 2


@pytest.mark.parametrize("exact", [True, False])
def test_a_forward_whose_products_are_kernels_runs_so_and_no_other(tiny_llama, monkeypatch, exact):
    if not exact:
        for module in (engine_module, model_runner):
            monkeypatch.setattr(module, "is_exact", lambda model: False)
    tiny, seen = TinyEngine(tiny_llama), set()
    hook = tiny.base.model.register_forward_pre_hook(lambda *_: seen.add(counts()))
    state = tiny.submit(ask(3, "selection"), [("ant", 2)])
    tiny.finish()
    hook.remove()
    assert len(tiny.heard[state].tokens) > 1
    assert seen == {(1, 2) if exact else (2, 2)} and counts() == (2, 2)
