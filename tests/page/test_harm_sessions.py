"""Of the whole page: sessions that anybody may invent take little memory, and only so many are
remembered; and every route of Gradio is known."""

import json

import pytest

from tests.support.workers import python
from ui.middleware.routes import RULES, RouteTable, unused

SCRIPT = '''
import inspect, json, tempfile, tracemalloc
from pathlib import Path
from types import SimpleNamespace
import gradio as gr
from gradio.routes import App
from starlette.routing import Mount
from tests.support.fake_ramole import FakeRamole
from ui import build, serve
from ui.session.quota import quota_of


def listen_not(page, **options):
    """All of a launch but the port."""
    page.state_session_capacity = 10_000
    page.server = SimpleNamespace(should_exit=True)
    page.app = App.create_app(page, mcp_server=True)
    return None, "http://nowhere", None


def paths(routes, before=""):
    """Of an application, with what is mounted in it."""
    for route in routes:
        if isinstance(route, Mount):
            yield from paths(route.routes or (), before + route.path)
        elif hasattr(route, "path"):
            yield before + route.path
        else:  # a router that was included
            yield from paths(route.original_router.routes, before)


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
store = quota_of(ramole).presence.sessions
opened = store.stream("first", "198.51.100.1")
opened.__enter__()
for n in range(2040):
    store.seen(f"more{n}")
    states[f"more{n}"]
names = ["first", *(f"more{n}" for n in range(2040))]
told |= {"remembered": sum(name in states for name in names)}
told |= {"last": "more2039" in states, "first": "first" in states, "early": "more9" in states}
told |= {"routes": list(paths(page.app.routes))}
told["picks"] = {}
for event in page.fns.values():
    given = inspect.signature(event.fn).parameters.values() if event.fn else ()
    if any(one.annotation is gr.EventData for one in given):
        told["picks"][event.fn.__qualname__] = event.trigger_mode
print(json.dumps(told))
'''

PICKS = (".on_pick", ".on_open", ".on_row")


@pytest.fixture(scope="module")
def told() -> dict:
    """Of the whole page, launched, and sessions as requests make them."""
    done = python("-c", SCRIPT, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_session_takes_little_memory_and_has_its_own_state(told):
    assert told["parts"] > 300 and told["each_kib"] < 60
    assert told["values"] == ["its own", None]


def test_of_sessions_without_end_those_with_a_page_and_the_latest_are_remembered(told):
    assert told["remembered"] == 2000
    assert told["last"] and told["first"] and not told["early"]


def test_of_two_picks_the_last_is_answered(told):
    """With `always_last` Gradio sends the first one's data for the last; with `once` none of it."""
    picks = {name: mode for name, mode in told["picks"].items() if name.endswith(PICKS)}
    assert len(picks) == 7 and set(picks.values()) == {"multiple"}
    assert "always_last" not in told["picks"].values()


def test_every_route_of_gradio_is_served_or_known_to_be_unused(told):
    """A new Gradio may have new ones: put each into RULES or UNUSED of ui/middleware/routes.py."""
    table, unclear = RouteTable(RULES), []
    for path in told["routes"]:
        asked = path.replace("{path_or_url:path}", "/tmp/x").replace(":path", "")
        asked = "".join("x" if one in "{}" else one for one in asked)
        if table.find(asked) is None and not unused(asked):
            unclear.append(path)
    assert len(told["routes"]) > 60 and unclear == []
