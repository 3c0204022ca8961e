"""A page that is closed, or only loaded anew: what becomes of its uploads."""

import threading
from types import SimpleNamespace

import gradio as gr
import pytest

from ui.session import leaving
from ui.session.leaving import leave
from ui.session.owner import SECRET_HEADER, owner_of
from ui.session.quota import quota_of

SECRET = "0123456789abcdef0123456789abcdef"


class Ramole:
    """As much of a system as a quota needs."""

    settings = SimpleNamespace(shared_uploads=False, max_upload_mb=1)
    pool = SimpleNamespace(all_cards=list)


@pytest.fixture
def place(monkeypatch):
    """A system, the owners whose uploads went, and what would be done later."""
    found = SimpleNamespace(ramole=Ramole(), went=[], later=[], now=0.0)
    presence = quota_of(found.ramole).presence
    presence._clock = lambda: found.now
    monkeypatch.setattr(leaving, "forget", lambda ramole, owner: found.went.append(owner))

    def timer(seconds, call, arguments):
        return SimpleNamespace(start=lambda: found.later.append((seconds, call, arguments)))

    monkeypatch.setattr(threading, "Timer", timer)
    found.presence = presence
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


def test_a_closed_tab_loses_its_uploads_in_a_while_and_a_reloaded_one_keeps_them(place):
    owner = uploads(place, page("one"))
    leave(place.ramole, page("one", secret=""))  # the browser says no more of who leaves
    assert place.went == [] and len(place.later) == 1
    seconds, call, arguments = place.later.pop()
    place.now += seconds / 2
    with place.presence.call(page("two")):  # the same tab, loaded anew
        pass
    place.now += seconds / 2
    call(*arguments)
    assert place.went == []
    leave(place.ramole, page("two", secret=""))
    seconds, call, arguments = place.later.pop()
    place.now += seconds
    call(*arguments)
    assert place.went == [owner]


def test_a_tab_that_was_doubled_keeps_its_uploads_as_long_as_one_is_open(place):
    uploads(place, page("one"))
    uploads(place, page("two"))
    leave(place.ramole, page("one", secret=""))
    assert place.went == [] and place.later == []
    leave(place.ramole, page("two", secret=""))
    assert len(place.later) == 1


def test_a_page_without_a_secret_loses_its_uploads_at_once(place):
    owner = uploads(place, page("one", secret=""))
    leave(place.ramole, page("one", secret=""))
    assert place.went == [owner] and place.later == []


def test_a_page_without_uploads_is_not_remembered(place):
    with place.presence.call(page("one")):
        pass
    assert place.presence.gone("one") is None
