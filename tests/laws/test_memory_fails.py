"""Memory that is not to be had for a moment: who waits is told, nothing is lost, others go on."""

import pytest
import torch

from ramole_core.engine import pages
from ramole_core.engine.engine import EngineSizes
from tests.support.few_prompts import few_reference_prompts  # noqa: F401  a fixture
from tests.support.schedules import ask
from tests.support.tiny_engine import TinyEngine

LONG = ask(90, max_new_tokens=6, trace=True)
"""More pages than are made at first."""


@pytest.mark.parametrize("works", [0, 1, 4])
def test_pages_that_cannot_be_made_now_are_made_later(tiny_llama, monkeypatch, works):
    """`works`: how many of the layers' tensors are made before one is not."""
    tiny = TinyEngine(tiny_llama, EngineSizes(kv_cache_bytes=2**22))
    wanted = tiny.alone(LONG, [("bee", 4)])
    tiny.engine.forget_prefixes()
    tiny.submit(LONG, [("bee", 4)])
    tiny.engine.step()
    monkeypatch.setattr(pages, "INITIAL_PAGES", 8)
    made, real = [], pages._zeros

    def zeros(like, shape):
        if len(made) >= works:
            raise torch.OutOfMemoryError("no memory")
        made.append(shape)
        return real(like, shape)

    monkeypatch.setattr(pages, "_zeros", zeros)
    with pytest.raises(torch.OutOfMemoryError):
        for n in range(40):
            tiny.submit(ask(90, max_new_tokens=6, system=str(n)), [("bee", 4)])
            tiny.engine.step()
    monkeypatch.setattr(pages, "_zeros", real)
    assert tiny.engine.scheduler.idle
    assert not tiny.engine._kv._open
    assert tiny.engine.stats()["kv_bytes"] == 0
    assert tiny.alone(LONG, [("bee", 4)]) == wanted
    before = tiny.engine._kv.memory.places
    for n in range(40):
        tiny.submit(ask(90, max_new_tokens=6, system=str(n)), [("bee", 4)])
    tiny.finish()
    assert tiny.engine._kv.memory.places > before
