"""Requests whose turns need different adapters, where the bank has no room for all: all get in."""

from ramole_core.engine.engine import EngineSizes
from ramole_core.request import Generation
from tests.schedules import ask
from tests.tiny_engine import TinyEngine


def narrow(folder, pages: int) -> TinyEngine:
    page = TinyEngine(folder).engine.bank.page_bytes
    return TinyEngine(folder, EngineSizes(device_cache_bytes=pages * page, max_queue=1000))


def test_a_turn_that_needs_all_of_the_bank_is_not_passed_for_ever(tiny_llama):
    """Others come all the time, and each of them leaves less than it needs."""
    tiny = narrow(tiny_llama, 10)
    chat = ask(4, history=[("one two three", "four five")], max_new_tokens=3)
    small = ask(5, max_new_tokens=6)
    tiny.submit(small, [("ant", 2)])
    state = tiny.submit(chat, [("big", 9)], earlier=[[("cat", 2)]])
    for _ in range(60):
        tiny.submit(small, [("ant", 2)])
        tiny.engine.step()
    assert isinstance(tiny.heard[state].end, Generation), "nothing came of it"
    tiny.finish()
    assert all(heard.answer for heard in tiny.heard.values())
