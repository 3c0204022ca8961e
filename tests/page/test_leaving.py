"""A page that is closed, or only loaded anew: what becomes of its uploads."""

import asyncio
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio import state_holder
from gradio.queueing import Event
from gradio.server_messages import ProcessGeneratingMessage
from gradio.state_holder import StateHolder
from gradio.utils import LRUCache

from ui.session.leaving import GRACE_SECONDS, leave, sweep_sessions
from ui.session.owner import SECRET_HEADER, owner_of
from ui.session.quota import quota_of
from ui.session.states import remember_little
from ui.session.store import AGE_SECONDS, SessionStore

SECRET = "0123456789abcdef0123456789abcdef"


class Ramole:
    """As much of a system as a quota needs."""

    settings = SimpleNamespace(shared_uploads=False, max_upload_mb=1)
    pool = SimpleNamespace(all_cards=list)

    def __init__(self):
        self.went: list[str] = []
        """Owners of whom all went."""
        self.remove_mixes = self.went.append


@pytest.fixture
def place():
    """A system with a clock that stands still, and the owners whose uploads went."""
    ramole = Ramole()
    found = SimpleNamespace(ramole=ramole, went=ramole.went, now=0.0)
    found.presence = quota_of(ramole).presence
    found.presence._clock = lambda: found.now
    return found


def page(session: str, *, secret: str = SECRET) -> gr.Request:
    """A call of a page."""
    found = gr.Request(session_hash=session)
    found.headers = {SECRET_HEADER: secret} if secret else {}
    return found


def uploads(place, request: gr.Request) -> str:
    with place.presence.call(request) as visitor:
        place.presence.watch(visitor.owner)
    return visitor.owner


def test_a_tab_is_the_same_visitor_after_a_reload():
    assert owner_of(page("one")) == owner_of(page("two")) != owner_of(page("one", secret=""))
    assert owner_of(page("one", secret="")) != owner_of(page("two", secret=""))
    assert owner_of(page("one", secret="short")) == owner_of(page("one", secret=""))
    assert SECRET not in owner_of(page("one"))
    assert owner_of(page("")) is None


def after(place, seconds: float) -> list[str]:
    """Whose uploads went so many seconds later."""
    place.now += seconds
    sweep_sessions(place.ramole)
    return place.went


def test_a_closed_tab_loses_its_uploads_in_a_while_and_a_reloaded_one_keeps_them(place):
    owner = uploads(place, page("one"))
    leave(place.ramole, "one")
    assert after(place, GRACE_SECONDS / 2) == []
    with place.presence.call(page("two")):  # the same tab, loaded anew
        pass
    assert after(place, GRACE_SECONDS / 2) == []
    leave(place.ramole, "two")
    assert after(place, GRACE_SECONDS) == [owner]
    assert after(place, 10 * GRACE_SECONDS) == [owner], "once"


def test_a_client_whose_heartbeat_was_lost_before_takes_its_uploads_along_when_it_goes(place):
    """It was looked at once, while the client was still there, and never again."""
    owner = uploads(place, page("one"))
    leave(place.ramole, "one")  # only the line was cut; the session goes on
    for _ in range(5):
        with place.presence.call(page("one")):
            pass
        assert after(place, GRACE_SECONDS - 1) == []
    leave(place.ramole, "one")
    assert after(place, 2) == [owner]


def test_a_tab_that_was_doubled_keeps_its_uploads_as_long_as_one_is_open(place):
    owner, sessions = uploads(place, page("one")), place.presence.sessions
    uploads(place, page("two"))
    with sessions.stream("two", beats=True), sessions.stream("one"):
        leave(place.ramole, "one")
        assert after(place, 10 * GRACE_SECONDS) == []
    leave(place.ramole, "two")
    assert after(place, 1) == [owner]


def test_a_page_without_a_secret_loses_its_uploads_at_once(place):
    owner = uploads(place, page("one", secret=""))
    leave(place.ramole, "one")
    assert place.went == [owner]


def test_a_removal_that_nobody_undoes_is_deleted_by_the_sweep(place):
    deleted = []
    aside = SimpleNamespace(bytes=1, discard=lambda: deleted.append("mine"))
    removed = quota_of(place.ramole).removed
    removed.keep(aside, "session-ann", seconds=0.0)
    assert removed.of("session-ann") == [] and not deleted
    sweep_sessions(place.ramole)
    assert deleted == ["mine"] and removed.sizes() == []


def test_a_page_without_uploads_is_not_waited_for(place):
    with place.presence.call(page("one")):
        pass
    assert place.presence.gone("one") is None and after(place, 10 * GRACE_SECONDS) == []


def test_of_a_session_that_left_its_states_go_and_of_one_that_is_forgotten_all():
    now = [0.0]
    sessions = SessionStore(clock=lambda: now[0])

    async def scenario() -> None:
        with gr.Blocks() as demo:
            state = gr.State()
            gr.Button().click(lambda: None)
        demo.queue()
        StateHolder().set_blocks(demo)
        remember_little(demo, sessions)
        holder, queue = demo.state_holder, demo._queue
        events = {}
        for name in ("mine", "other"):
            sessions.seen(name)
            holder[name][state._id] = "a text"
            event = events[name] = Event(name, demo.fns[0], SimpleNamespace(headers={}), None)
            queue.event_ids_to_events[event._id] = event
            queue.pending_event_ids_session[name] = {event._id}
            queue.pending_messages_per_session[name] = asyncio.Queue()
            said = {"data": ["x" * 9000]}
            queue.send_message(event, ProcessGeneratingMessage(output=said, success=True))
        assert isinstance(queue.pending_messages_per_session, LRUCache) and sessions.bytes > 18_000

        sessions.leave("mine")
        assert not holder["mine"].state_data and holder["other"].state_data
        assert events["mine"].alive, "who comes back reads on"
        holder["mine"][state._id] = "a text"
        now[0] += AGE_SECONDS + 1
        sessions.seen("other")
        sessions.sweep()
        for kept in (
            holder.session_data,
            holder.time_last_used,
            queue.pending_messages_per_session,
            queue.pending_event_ids_session,
        ):
            assert list(kept) == ["other"]
        assert [one.alive for one in events.values()] == [False, True]
        assert 9000 < sessions.bytes < 10_000

    asyncio.run(scenario())


def test_gradio_keeps_no_copy_of_what_a_session_was_shown(monkeypatch):
    monkeypatch.setattr(state_holder, "SessionState", state_holder.SessionState)

    async def scenario() -> None:
        with gr.Blocks() as demo:
            box, choice = gr.Textbox(), gr.Dropdown(["a"])
            long = "x" * 9000
            gr.Button().click(lambda: (long, gr.Dropdown([long], value=long)), None, [box, choice])
        demo.queue()
        StateHolder().set_blocks(demo)
        remember_little(demo, SessionStore())
        state = demo.state_holder["mine"]
        made = await demo.process_api(next(iter(demo.fns.values())), [], state=state)
        assert made["data"][0] == long and long not in str(state.config_values)
        assert state[choice._id].choices == [(long, long)], "what its answers are checked by"

    asyncio.run(scenario())
