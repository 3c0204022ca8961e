"""Requests whose turns need different adapters, where the bank has no room for all: all get in."""

from ramole_core.engine.engine import EngineSizes
from ramole_core.request import Generation
from tests.support.few_prompts import few_reference_prompts  # noqa: F401  a fixture
from tests.support.schedules import ask
from tests.support.tiny_engine import TinyEngine


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


def test_a_fault_at_the_next_turns_adapters_ends_that_request_alone(tiny_llama):
    tiny = TinyEngine(tiny_llama)
    chat = [("one two three", "four five")]
    small, wanted = ask(5, max_new_tokens=9), tiny.alone(ask(5, max_new_tokens=9), [("ant", 2)])
    pin = tiny.engine._placer.pin

    def failing(placement):
        if any(held.key == "big_9" for held in placement.held):
            raise RuntimeError("not to be had")
        return pin(placement)

    def refuse(placement):
        raise RuntimeError("not to be had")

    tiny.engine._placer.pin = failing
    beside = tiny.submit(small, [("ant", 2)])
    later = tiny.submit(ask(4, history=chat), [("big", 9)], earlier=[[("cat", 2)]])
    off = [("cat", None, None, 50)]  # in what it answers
    answering = ask(5, "fusion", max_new_tokens=20, without=off)
    tiny.finish()
    assert tiny.heard[beside].tokens == wanted
    assert "not to be had" in str(tiny.heard[later].end)
    lost = tiny.submit(answering, [("cat", 2), ("dog", 3)])
    beside = tiny.submit(small, [("ant", 2)])
    while not tiny.heard[lost].steps:
        tiny.engine.step()
    tiny.engine._placer.pin = refuse
    tiny.finish()
    assert "not to be had" in str(tiny.heard[lost].end)
    assert tiny.heard[beside].tokens == wanted
    assert not any(slot.pins for slot in tiny.engine.bank.slots)
    assert tiny.engine.stats()["kv_bytes"] == 0
