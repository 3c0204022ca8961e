"""Messages that nobody reads weigh on their session, and are not kept without end."""

import asyncio
from collections import defaultdict
from types import SimpleNamespace

from gradio.queueing import Queue
from gradio.server_messages import ProcessCompletedMessage, ProcessGeneratingMessage

from tests.support.asgi import page as answered, told
from ui.middleware.heartbeats import EVENTS, Heartbeats
from ui.middleware.routes import RULE, RULES
from ui.session.address import HEADER, Addresses
from ui.session.states import MAX_BYTES, Unread, size_of
from ui.session.store import SessionStore

KIB = 1024


class Line:
    """Gradio's own `send_message` over queues in memory."""

    def __init__(self, **bounds):
        self.pending_messages_per_session = defaultdict(asyncio.Queue)
        self.send_message = lambda event, message: Queue.send_message(self, event, message)  # pyright: ignore
        self.store = SessionStore(**bounds)
        self.store.forgotten.append(lambda name: self.pending_messages_per_session.pop(name, None))
        self.send = Unread(self, self.store).send

    def event(self, session: str, address: str = "203.0.113.9") -> SimpleNamespace:
        scope = {"headers": [], "client": (address, 1)}
        [(_, signed)] = Addresses(None)._written(scope)  # pyright: ignore[reportArgumentType]
        request = SimpleNamespace(headers={HEADER: signed.decode()})
        return SimpleNamespace(alive=True, _id="e", session_hash=session, request=request)


def words(count: int) -> ProcessGeneratingMessage:
    return ProcessGeneratingMessage(output={"data": ["x" * count]}, success=True)


def test_what_is_read_weighs_nothing_and_what_is_not_weighs_what_it_is():
    line = Line()
    event, messages = line.event("page"), line.pending_messages_per_session["page"]
    for _ in range(50):
        line.send(event, words(100 * KIB))
        assert messages.get_nowait().output["data"][0].startswith("xxx")
    assert line.store.bytes < 110 * KIB, "one message is on its way, however many came before"
    for n in range(1, 6):
        line.send(event, words(100 * KIB))
        assert n * 100 * KIB <= line.store.bytes < n * 101 * KIB


def test_a_session_that_reads_nothing_ends_with_a_sentence():
    line = Line()
    event, messages = line.event("deaf"), line.pending_messages_per_session["deaf"]
    for n in range(40):
        line.send(event, words(MAX_BYTES // 16))
        assert line.store.bytes <= MAX_BYTES, n
    assert not event.alive and messages.qsize() == 1
    last = messages.get_nowait()
    assert isinstance(last, ProcessCompletedMessage) and not last.success
    assert "Nobody read the answer" in last.output["error"]


def test_one_answer_that_is_too_large_is_not_called_unread():
    line = Line()
    event, messages = line.event("listens"), line.pending_messages_per_session["listens"]
    line.send(event, words(MAX_BYTES + 1))
    error = messages.get_nowait().output["error"]
    assert error == "The answer is larger than 8 MiB, the most for one; ask for less."


def test_unread_calls_of_one_address_go_before_they_weigh_more_than_it_may():
    """As `/call` without a reader leaves them: each is a session of its own."""
    line = Line(bytes=(400 * KIB, 10_000 * KIB))
    home = line.event("home", "198.51.100.1")
    line.send(home, words(100 * KIB))
    for n in range(50):
        line.send(line.event(f"evil{n}"), words(100 * KIB))
    kept = line.pending_messages_per_session
    assert "home" in kept and "evil49" in kept and "evil0" not in kept
    assert len(kept) <= 5 and line.store.bytes < 600 * KIB


def test_the_size_of_an_output_is_about_what_it_takes():
    table = {"data": [[1, "ab"], {"html": "y" * 1000, "none": None}]}
    assert 1000 < size_of(table) < 1600 and size_of(None) < 100


def test_a_stream_belongs_to_the_session_that_gradio_reads_from_its_address():
    """Of a name that is given twice Gradio takes the last."""
    seen: list[str] = []

    class Watched(SessionStore):
        def stream(self, session: str, address: str = "", *, beats: bool = False):
            seen.append(session)
            return super().stream(session, address, beats=beats)

    [rule] = [rule for rule in RULES if rule.path == EVENTS]
    page = Heartbeats(answered, sessions=Watched(), leave=lambda session: None)
    query = b"session_hash=first&session_hash=last"
    told(page, EVENTS, query_string=query, client=("203.0.113.9", 1), **{RULE: rule})
    assert seen == ["last"]
