"""Who drips, reads nothing, vanishes or opens a thousand connections harms nobody else, and holds
no server that is told to end."""

import asyncio
import signal
import socket
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import httpx
import psutil
import pytest

from tests.support import asgi
from tests.support.pool_fakes import PoolRamole
from tests.support.serving import fake, wait_until
from ui.middleware.connections import HEAD_SECONDS, READ_SECONDS, SPARE, Connections, raise_files
from ui.middleware.crowds import Crowds
from ui.middleware.doors import doors
from ui.middleware.routes import MAX_OPEN, RULE, Kind, Rule
from ui.session.accounts import Accounts
from ui.session.address import Addresses

WAIT = 1.0


@dataclass(eq=False)
class Cycle:
    response_complete: bool = False


@dataclass(eq=False)
class Connection:
    """As uvicorn's protocols are, in the few places that are read."""

    cycle: Cycle | None = None
    unread: int = 0
    cut: bool = False
    transport: "Connection" = field(init=False)
    loop: "Connection" = field(init=False)

    def __post_init__(self):
        self.transport = self.loop = self

    def get_write_buffer_size(self) -> int:
        return self.unread

    def abort(self) -> None:
        self.cut = True

    def call_soon_threadsafe(self, work) -> None:
        work()


class Watched:
    def __init__(self, *open_: Connection, most: int = 99):
        self.now, self.open = 0.0, list(open_)
        self.watch = Connections(
            lambda: [one for one in self.open if not one.cut], most=most, clock=lambda: self.now
        )

    def after(self, seconds: float) -> list[bool]:
        """Who is cut that many seconds later, looked at each second."""
        for _ in range(int(seconds)):
            self.now += 1
            self.watch.look()
        return [one.cut for one in self.open]


def test_who_says_no_whole_head_is_cut_and_an_answer_on_its_way_is_not():
    silent, kept, asks = Connection(), Connection(Cycle(True)), Connection(Cycle(False))
    watched = Watched(silent, kept, asks)
    assert watched.after(HEAD_SECONDS) == [False] * 3
    assert watched.after(3) == [True, True, False]
    assert watched.after(3600) == [True, True, False]


def test_a_connection_that_is_used_again_begins_anew():
    busy = Connection(Cycle(True))
    watched = Watched(busy)
    places = set()
    for _ in range(99):
        assert watched.after(HEAD_SECONDS - 2) == [False]
        busy.cycle = None
        busy.cycle = Cycle(True)
        places.add(id(busy.cycle))
    assert len(places) < 99, "objects lie where earlier ones lay; if not, this shows nothing"


def test_a_reader_that_takes_nothing_is_cut_and_a_slow_one_is_not():
    stuck, slow = Connection(Cycle(), unread=10**6), Connection(Cycle(), unread=10**6)
    watched = Watched(stuck, slow)
    for _ in range(9):
        slow.unread -= 1
        watched.after(READ_SECONDS / 4)
    assert (stuck.cut, slow.cut) == (True, False)


def test_of_too_many_those_that_wait_longest_go_and_those_at_work_stay():
    asks = [Connection(Cycle()) for _ in range(3)]
    old, new = [Connection() for _ in range(4)], [Connection() for _ in range(3)]
    watched = Watched(*asks, *old, most=7)
    assert not any(watched.after(2))
    watched.open += new
    assert watched.after(1) == [False] * 3 + [True] * 3 + [False] * 4


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    short = {"head_seconds": WAIT, "read_seconds": WAIT, "max_wait_seconds": WAIT / 2}
    with fake(tmp_path_factory.mktemp("short"), variables=short) as running:
        yield running


def connect(server, said: bytes = b"") -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), timeout=60)
    made.sendall(said)
    return made


def ended(made: socket.socket) -> bytes:
    """What came until the server hung up; raises TimeoutError where it does not."""
    came = b""
    try:
        while piece := made.recv(65536):
            came += piece
    except ConnectionError:
        pass
    return came


def answers(server) -> bool:
    return httpx.get(f"{server.url}/health", timeout=60).status_code == 200


def test_a_dripping_head_is_cut_and_a_dripping_body_is_told_so(server):
    with connect(server, b"GET /health HT") as head, connect(server) as nothing:
        drips = (
            b"POST /gradio_api/call/v2/ask HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        with connect(server, drips) as body:
            told = ended(body)
        assert told.startswith(b"HTTP/1.1 408 ") and b"came too slowly" in told
        for made in (head, nothing):
            assert ended(made) == b""


def test_a_thousand_open_connections_keep_nobody_out(server):
    process = psutil.Process(server.process.pid)
    with ExitStack() as stack:
        made = [stack.enter_context(connect(server)) for _ in range(1000)]
        assert answers(server)
        wait_until(lambda: len(process.net_connections()) <= 50)
        assert ended(made[0]) == b""
    assert "Traceback" not in server.log.read_text()


def test_a_client_that_vanishes_and_one_that_reads_nothing_leave_no_connection(server):
    process = psutil.Process(server.process.pid)
    with connect(server) as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asked = b"GET /config HTTP/1.1\r\nHost: localhost\r\n\r\n"
        reader.sendall(asked * 400)  # answers by the megabyte, none of them read
        lost = connect(server, b"GET /gradio_api/heartbeat/abcdefgh HTTP/1.1\r\nHost: a\r\n")
        lost.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        lost.close()  # no goodbye: a reset
        assert answers(server)
        wait_until(lambda: not _open(process))  # one that reads nothing is cut
    assert answers(server)


def _open(process: psutil.Process) -> int:
    return sum(one.status == "ESTABLISHED" for one in process.net_connections())


def test_a_fault_in_the_middle_of_nothing_is_one_sentence():
    """What falls through to the outermost door before anything was sent."""
    from ui.middleware.watched import Watched as Outermost

    async def page(scope, receive, send):
        raise RuntimeError("a secret")

    told = asgi.told(Outermost(page), "/x")
    assert told[0]["status"] == 500 and b"secret" not in told[1]["body"]


def test_streams_of_many_addresses_leave_connections_for_all_else(tmp_path):
    """The reserve: of the connections that the process may have a quarter is no stream's."""
    parts = doors(PoolRamole(tmp_path), cache=tmp_path, accounts=Accounts())
    made = next(one for one in parts if one.cls is Crowds)
    assert 0 < made.kwargs["streams"] <= max(64, raise_files() - SPARE) * 3 / 4
    told: list[int] = []
    over = asyncio.Event()

    async def page(scope, receive, send):
        if scope[RULE].kind == "stream":
            await over.wait()
        await send({"type": "http.response.start", "status": 200})

    crowds = Addresses(Crowds(page, streams=6))

    async def ask(kind: Kind, n: int) -> None:
        more = {"client": (f"9.9.9.{n}", 1), RULE: Rule("/x", "", kind)}
        told.append((await asgi.ask(crowds, "/x", **more))[0]["status"])

    async def attack():
        silent = [asyncio.ensure_future(ask("stream", n)) for n in range(6)]
        await asyncio.sleep(0)
        await ask("stream", 7)
        assert told == [503]
        others = [kind for kind in MAX_OPEN if kind != "stream"]
        for kind in others:
            await ask(kind, 7)
        assert told == [503] + [200] * len(others)
        over.set()
        await asyncio.gather(*silent)
        await ask("stream", 7)
        assert told[-1] == 200

    asyncio.run(attack())


def test_an_open_connection_does_not_hold_a_server_that_is_told_to_end(tmp_path):
    """A question that waits for the model is one; a page that is open is another."""
    never = {"gate": tmp_path / "never", "closes_late": "yes"}
    with fake(tmp_path, variables=never) as server:
        url = f"{server.url}/gradio_api/call/v2/ask"
        event = httpx.post(url, json={"prompt": "a b"}, timeout=30).json()["event_id"]
        connected, cut = threading.Semaphore(0), []

        def listen(path: str) -> None:
            with suppress(httpx.HTTPError):
                with httpx.stream("GET", f"{server.url}/gradio_api/{path}", timeout=120) as lines:
                    connected.release()
                    for _ in lines.iter_lines():
                        pass
            cut.append(path)

        paths = (f"call/ask/{event}", "heartbeat/abcdefgh")
        listening = [threading.Thread(target=listen, args=[path], daemon=True) for path in paths]
        for thread in listening:
            thread.start()
        assert all(connected.acquire(timeout=60) for _ in listening) and not cut
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)
        for thread in listening:
            thread.join(60)
        assert len(cut) == 2
        assert "Traceback" not in server.log.read_text()
