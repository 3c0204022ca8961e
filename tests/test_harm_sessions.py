"""Sessions that anybody may invent take little memory, and only so many are remembered."""

import json
import os
import subprocess
import sys

import pytest

from tests.serving import REPOSITORY

SCRIPT = '''
import json, tempfile, tracemalloc
from pathlib import Path
from types import SimpleNamespace
import gradio as gr
from gradio.routes import App
from tests.fake_ramole import FakeRamole
from ui import build, serve


def listen_not(page, **options):
    """All of a launch but the port."""
    page.state_session_capacity = 10_000
    page.server = SimpleNamespace(should_exit=True)
    App.create_app(page)
    return None, "http://nowhere", None


gr.Blocks.launch = listen_not
ramole = FakeRamole()
data = {"data_dir": Path(tempfile.mkdtemp())}
ramole.settings = ramole.settings.model_copy(update=data)
page = build(ramole)
serve.launch(page, ramole)
states = page.state_holder
states["first"]
tracemalloc.start()
for n in range(40):
    states[f"invented{n}"]
each = tracemalloc.get_traced_memory()[0] / 40
tracemalloc.stop()
state = next(b for b in page.blocks.values() if isinstance(b, gr.State) and b.value is None)
states["invented3"][state._id] = "its own"
told = {
    "parts": len(page.blocks),
    "each_kib": each / 1024,
    "values": [states[f"invented{n}"][state._id] for n in (3, 4)],
}
for n in range(2040):
    states[f"more{n}"]
told |= {"remembered": len(states.session_data), "times": len(states.time_last_used)}
told |= {"last": "more2039" in states, "first": "first" in states}
print(json.dumps(told))
'''


@pytest.fixture(scope="module")
def told() -> dict:
    """Of the whole page, launched, and sessions as requests make them."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_session_takes_little_memory_and_has_its_own_state(told):
    assert told["parts"] > 300 and told["each_kib"] < 60
    assert told["values"] == ["its own", None]


def test_of_sessions_without_end_the_latest_are_remembered(told):
    assert told["remembered"] == told["times"] == 2000
    assert told["last"] and not told["first"]
