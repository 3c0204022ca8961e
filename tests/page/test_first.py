"""The first minute without a browser: what the empty prompt names, the one button, how much of the
work before a first token is done, and that a first prompt has none of its own."""

import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from ramole_core import Ramole, Request, Selection, Settings
from tests.page.test_ask import ask, asking
from tests.page.test_conversation import Visit
from tests.support.fake_ramole import FakeRamole
from tests.support.serving import sample_index, second_start
from tests.support.workers import python
from ui.ask.updates import Updates
from ui.model.reading import Reading, progress_of
from ui.parts.prompts import GENERAL, SHORT, placeholder


def shipped() -> list[str]:
    """The names of the adapters that ship."""
    found = Settings().adapters_dir.glob("*/adapter_config.json")
    return sorted(file.parent.name for file in found)


def test_the_empty_prompt_names_what_the_pool_that_ships_can_do():
    names = shipped()
    assert len(names) > 10
    text = placeholder(names)
    shown = [name for name, prompt in SHORT.items() if prompt in text]
    assert len(shown) == 2 and set(shown) <= set(names)
    assert "anything" not in text.lower() and len(text) < 110


def test_it_follows_the_pool():
    first, second, *_ = SHORT
    assert SHORT[first] in placeholder(SHORT)
    without = placeholder([name for name in SHORT if name != first])
    assert SHORT[first] not in without and SHORT[second] in without
    assert placeholder(["ant", "bee"]) == GENERAL, "a pool of others names no task"
    field = asking(FakeRamole()).ui.entry.prompt
    assert field.placeholder == GENERAL
    ramole = FakeRamole()
    ramole.pool.names = [second, "ant"]
    assert SHORT[second] in asking(ramole).ui.entry.prompt.placeholder


def test_the_named_prompts_find_the_adapters_that_they_stand_for(tmp_path):
    """By the real encoder, in the index of the pool that ships."""
    names = shipped()
    shutil.copytree(sample_index() / "chroma", tmp_path / "chroma")
    with Ramole(Settings(data_dir=tmp_path)) as ramole:
        found = {
            name: ramole.retrieve(prompt)[0].name for name, prompt in SHORT.items() if name in names
        }
    assert found == {name: name for name in found} and len(found) >= 2


def test_nobody_follows_up_on_a_recorded_run():
    visit = Visit(FakeRamole())
    event = SimpleNamespace(_data={"index": 0})
    visit.held |= visit.handlers.on_show_recorded(visit.request, event)
    begun = visit.handlers.on_begin(visit.request, "two", True, visit.run, visit.turns, True)
    assert begun[visit.ui.turns] == ()


def reading(**said) -> SimpleNamespace:
    """A request on its way, as `Reading` has it."""
    fields = {"selections": {}, "places": {}, "fittings": {}, "read": {}, "steps": [[]]}
    return SimpleNamespace(**fields | said)


CHOSEN = {0: Selection(("ant", "bee"), (0.9, 0.7))}


def test_the_work_before_the_first_token_is_counted():
    """A third for each step; within the last one, tokens of tokens."""
    known = [progress_of(reading(), 0)]
    for read in (None, (0, 400), (100, 400), (400, 400)):
        known.append(progress_of(reading(selections=CHOSEN, read={0: read} if read else {}), 0))
    assert [one.share for one in known] == pytest.approx([0, 1 / 3, 2 / 3, 0.75, 1])
    assert "Finding adapters" in known[0].words
    assert "2 adapters" in known[1].words
    assert "100 of 400 tokens" in known[3].words and "first token" in known[4].words
    queued = progress_of(reading(selections=CHOSEN, places={0: 4}), 0)
    assert "Place 4" in queued.words and queued.share == pytest.approx(1 / 3)
    bare = progress_of(reading(selections={0: Selection((), ())}), 0)
    assert "adapter" not in bare.words.lower()


def test_a_bar_with_its_number_stands_until_the_first_token_and_then_goes():
    _, shown, _ = ask(Request("boats?"), ramole=FakeRamole(pause=0.2))
    early = [one for one in shown if one.run is None and not one.pieces]
    late = [one for one in shown if one.run is None and one.pieces]
    assert early and late
    assert all(one.share is not None for one in early)
    assert all(one.share is None for one in late)
    drawn, *_ = Updates("x").picture(replace(early[0], share=0.25))
    assert "<progress" in drawn and 'value="0.25"' in drawn and "25 %" in drawn
    drawn, *_ = Updates("x").picture(late[0])
    assert "<progress" not in drawn
    _, shown, _ = ask(Request("boats?"), ramole=FakeRamole(loaded=False, pause=0.05))
    loading = [one for one in shown if "loading" in one.note]
    assert loading and all(0 <= one.share < 1 for one in loading)


class Telling(FakeRamole):
    """Says how much of the prompt is read."""

    def stream_batch(self, requests, *, reading=lambda index, done, of: None, **said):
        for done in (0, 60, 120):
            reading(0, done, 120)
        yield from super().stream_batch(requests, **said)


def test_tokens_that_are_read_come_from_the_model():
    read = Reading(Telling(), [Request("boats?")], session="me")
    assert read.ended.wait(60) and read.error is None
    assert read.read == {0: (120, 120)}
    silent = Reading(FakeRamole(), [Request("boats?")], session="me")
    assert silent.ended.wait(60) and silent.error is None and silent.read == {}


FIRST_PROMPTS = """
import gc, sys
from ramole_core import Ramole, Request, load_settings
from ramole_core.kernels.code_cache import FOLDER

def answer(words):
    for _ in ramole.stream(Request(words, max_new_tokens=12, effects=True)):
        pass

def watch(event, said):
    watched = str(FOLDER), str(ramole.settings.adapters_dir)
    if event in ("compile", "import", "ctypes.dlopen", "subprocess.Popen"):
        once.append((event, str(said[0])[:60]))
    if event == "open" and str(said[0]).startswith(watched):
        once.append((event, str(said[0])))

def searched(phase, said):
    if phase == "start" and said["generation"] == 2:
        searches.append(len(early))

ramole, once, early, searches = Ramole(load_settings()), [], [], []
gc.callbacks.append(searched)
ramole.load(lambda stage, fraction: early.append(ramole.loaded))
print(len(searches), gc.isenabled())
sys.addaudithook(watch)
packs = ramole.engine.stats()["host_packs"]
modules = set(sys.modules)
answer("Give a bash command that lists all files larger than 100 MB.")
print(once, sorted(set(sys.modules) - modules), ramole.engine.stats()["host_packs"] - packs)
print(set(early[:-1]), ramole.loaded)
for said in sys.argv[1:]:
    print(ramole.generate([Request(said, max_new_tokens=24, trace=False)])[0].text)
"""
"""What a first prompt does beside answering; the data folder has no packed adapter."""


def test_after_ready_a_first_prompt_compiles_imports_and_packs_nothing(tmp_path):
    """As a process of its own: what another test has done already would not be seen."""
    said = {"RAMOLE_DATA_DIR": str(second_start(tmp_path / "data"))}
    done = python("-c", FIRST_PROMPTS, *SHORT.values(), **said)
    assert done.returncode == 0, done.stderr
    *lines, one, two, three, four, five = done.stdout.splitlines()
    *_, collected, found, ready = lines
    assert collected == "0 True", "no garbage is looked for while it loads"
    assert found == "[] [] 0"
    assert ready == "{False} True", "it is not ready before all of that is done"
    assert (one, three.lower(), four) == ("I live in Paris", "we went to the beach", "yes")
    assert re.fullmatch("The food was (bad|awful|terrible|horrible)[.]", two), "which by the CPU"
    assert five == "SELECT count(*) FROM singer", "the field names what works"
