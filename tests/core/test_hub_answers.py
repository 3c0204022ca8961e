"""Answers with the Hub's adapters, on real parts: a request finds one, it comes, and answers."""

import threading
from dataclasses import replace

import pytest

from ramole_core import Ramole, RamoleError, Request
from ramole_core.base.shapes import read_shapes
from tests.conftest import tiny_settings
from tests.support.adapter_files import arrays_of, pack
from tests.support.hub_server import BASE, HOURS, HubServer, Repository, adapter, serving
from tests.support.serving import wait_until

TASKS = {
    "weather": ("Will it rain in Oslo?", "How warm is it outside?", "Is there snow on the way?"),
    "sums": ("What is 3 plus 4?", "Multiply 12 by 7", "Subtract nine from twenty"),
    "poems": ("A verse about the sea", "Rhyme on autumn leaves", "A sonnet for a friend"),
}
ASK = {"max_new_tokens": 3, "ignore_eos": True, "k": 2}


def files(shapes, *, seed, examples, broken=False):
    arrays = arrays_of(rank=2, seed=seed, shapes=shapes)
    if broken:
        next(iter(arrays.values()))[0, 0] = float("nan")
    config = {"r": 2, "lora_alpha": 2}
    return adapter(seed, card=None, examples=examples, weights=pack(arrays), config=config)


@pytest.fixture(scope="module")
def shapes(tiny_llama):
    return read_shapes(tiny_llama)


@pytest.fixture(scope="module")
def hub(shapes):
    """Three adapters that fit, and one nearer still whose numbers are none."""
    with serving(HubServer()) as running:
        for seed, (name, examples) in enumerate(TASKS.items()):
            running.repositories[f"ada/{name}"] = Repository(
                files(shapes, seed=seed, examples=examples), downloads=9 - seed
            )
        bad = files(shapes, seed=7, examples=["Will it rain in Bergen?"], broken=True)
        running.repositories["bob/rain"] = Repository(bad)
        yield running


@pytest.fixture
def open_ramole(tiny_llama, hub, tmp_path, monkeypatch):
    held = []

    def make(**said) -> Ramole:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        words = {"hub_base": BASE, "hub_adapters": True, **said}
        held.append(Ramole(tiny_settings(tiny_llama, tmp_path, **words)))
        return held[-1]

    yield make
    for one in held:
        one.close()


def test_a_prompt_finds_what_is_listed_and_the_answer_says_so(open_ramole, hub):
    ramole = open_ramole()
    ramole.hub.search()
    rain = Request("Will it rain in Bergen?", method="mixture", **ASK)
    (answer,) = ramole.generate([rain])
    assert answer.adapters[0] == "ada--weather" and len(answer.adapters) == 2
    failed, came, *_ = answer.notes
    assert failed.startswith("bob/rain on the Hub is nearer, and the next best answers")
    assert came.startswith("ada/weather was fetched from the Hub for this answer")
    assert answer.trace is not None and answer.trace.weights[:-1].any()
    asked = len(hub.asked)
    (again,) = ramole.generate([rain])
    assert again.text == answer.text and again.notes == () and len(hub.asked) == asked
    assert ramole.pool.card("ada--weather").examples == TASKS["weather"]

    (named,) = ramole.generate([Request("Hello", "mixture", adapters=["hf:ada/sums"], **ASK)])
    assert named.adapters == ["ada--sums"] and "ada/sums was fetched" in named.notes[0]
    with pytest.raises(RamoleError, match="bob/rain cannot be used: "):
        ramole.generate([Request("Hello", "mixture", adapters=["bob--rain"], **ASK)])


def test_an_everyday_prompt_brings_nothing_and_a_task_does(open_ramole, hub):
    ramole = open_ramole()
    ramole.hub.search()
    plus = {"method": "ramole_plus", **ASK}
    (answer,) = ramole.generate([Request("I feel sad today. Cheer me up.", **plus)])
    assert answer.adapters == [] and answer.notes == () and not ramole.hub.fetched()
    (answer,) = ramole.generate([Request("Will it rain in Oslo?", **plus)])
    assert answer.adapters[0] == "ada--weather"
    assert answer.evidence is not None and answer.evidence.decision == "adapters"


def test_earlier_turns_bring_theirs_and_an_exclusion_holds(open_ramole):
    ramole = open_ramole()
    ramole.hub.search()
    talk = [("Multiply 12 by 7", "84", ["ada--sums"])]
    out = ["ada--weather", "bob--rain"]
    asked = Request("Will it rain in Oslo?", method="mixture", history=talk, exclude=out, **ASK)
    (answer,) = ramole.generate([asked])
    assert "ada/sums was fetched" in answer.notes[0]
    assert "ada--weather" not in answer.adapters and answer.adapters
    for said in ("hf:ada/weather", "ada/weather", "ada/weather"):  # as one that is named
        (answer,) = ramole.generate([replace(asked, history=(), exclude=[said, "bob/rain"])])
        assert answer.adapters and "ada--weather" not in answer.adapters
        if said == "ada/weather":  # the next time it is in the pool
            ramole.generate([Request("Hello", "mixture", adapters=["hf:ada/weather"], **ASK)])


@pytest.mark.parametrize("how", ["alone", "cancelled", "stopped"])
def test_many_prompts_wait_for_the_hub_together_and_not_once_they_are_cancelled(
    how, open_ramole, hub, monkeypatch
):
    ramole = open_ramole()
    ramole.load()
    ramole.hub.search()
    monkeypatch.setattr("ramole_core.hub.hub.MAX_WAIT_SECONDS", 1.0 if how == "alone" else HOURS)
    monkeypatch.setattr(hub, "slow", threading.Event())
    gone = threading.Event()
    end = {"stopped": lambda: ramole.stop(seconds=0.0), "cancelled": gone.set}.get(how)
    before = len(hub.weights_asked())
    if end is not None:  # once something is waited for

        def end_it():
            wait_until(lambda: len(hub.weights_asked()) > before)
            end()

        threading.Thread(target=end_it, daemon=True).start()
    names = {"adapters": ["hf:ada/sums"]}
    asked = [Request(f"Will it rain in Oslo? {n}", method="mixture", **ASK) for n in range(8)]
    waits, wait = [], ramole.hub.wait
    monkeypatch.setattr(ramole.hub, "wait", lambda *said: waits.append(1) or wait(*said))
    with pytest.raises(RamoleError, match="The pool is empty"):
        ramole.prepare(asked, cancelled=gone.is_set)
    with pytest.raises(RamoleError, match="ada/sums cannot be used"):
        ramole.prepare([Request("Hello", "mixture", **names, **ASK)], cancelled=gone.is_set)
    assert len(waits) == 2, "one for all eight, and one for the last"
    hub.slow.set()


def test_without_the_operators_word_nothing_is_different(open_ramole):
    ramole = open_ramole(hub_adapters=False)
    ramole.hub.search()
    with pytest.raises(RamoleError, match="The pool is empty"):
        ramole.generate([Request("Will it rain in Oslo?", method="mixture", **ASK)])
    with pytest.raises(RamoleError, match="There is no adapter 'ada--sums'"):
        ramole.generate([Request("Hello", "mixture", adapters=["ada--sums"], **ASK)])
