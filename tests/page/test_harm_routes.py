"""What is no route of the page is not there, bodies and requests at once have their bounds."""

import asyncio
import json
import socket
import time
from contextlib import ExitStack, suppress
from functools import partial
from types import SimpleNamespace

import httpx
import pytest

from tests.support import asgi
from tests.support.serving import fake
from ui.middleware import crowds, refusal
from ui.middleware.bodies import (
    MAX_DEPTH,
    MAX_PARTS,
    Bodies,
    JsonCounter,
    has_half_characters,
)
from ui.middleware.crowds import (
    EVENT_BURST,
    EVENTS_PER_SECOND,
    SlowRefusals,
    _refuse_waiting,
)
from ui.middleware.refusal import Refused, limited
from ui.middleware.routes import MAX_OPEN, MIB, RULE, RULES, SMALL, Routes, RouteTable, rules
from ui.session.address import HEADER, _signed
from ui.session.counts import MAX_REMEMBERED, AddressCounts, AddressRates, Taken

HOME, EVIL = "198.51.100.1", "203.0.113.9"


def test_the_first_rule_that_fits_is_taken_whatever_the_slashes():
    table = RouteTable(rules(max_upload_mb=2))
    assert table.find("/gradio_api/call/v2/ask").path == "/gradio_api/call/v2/{}"
    assert table.find("/gradio_api/queue/join/").queued
    assert table.find("/gradio_api/upload").body == 8 * MIB
    assert table.find("/gradio_api/mcp/").body == 4 * MIB
    for path in ("/gradio_api/dev/reload", "//config", "/configs", "/gradio_api", "/x"):
        assert table.find(path) is None, path


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/under/gradio_api/file=/tmp/gradio/a.csv", 200),
        ("/gradio_api/file=a/https:/b.csv", 200),
        ("/gradio_api/file=https://example.org/a", 404),
        ("/gradio_api/file= HTTP:/example.org/a", 404),
        ("/gradio_api/proxy=https://example.org", 404),
        ("/under/gradio_api/process_recording", 404),
    ],
)
def test_a_file_is_no_link_and_under_a_path_the_same_routes_are_there(path, status):
    assert asgi.status(Routes(asgi.page, table=RULES), path, root_path="/under") == status


def test_parts_of_json_are_counted_outside_of_strings_wherever_pieces_end():
    texts = ['a [ { , "quoted" \\ end\\', "\\", "", "\n,[", '"', "ü,"]
    value = [{"data": texts, "n": [1, 2, {"x": []}]}, texts]
    body = json.dumps(value).encode()
    bare = json.dumps([{"data": [""] * 6, "n": [1, 2, {"x": []}]}, [""] * 6])
    wanted = sum(map(bare.count, "[{,"))
    for size in (1, 2, 3, 5, 7, len(body)):
        parts = JsonCounter()
        for start in range(0, len(body), size):
            parts.feed(body[start : start + size])
        assert parts.count == wanted, size
        assert parts.depth == 5, size


def drip(*pieces: tuple[float, bytes]) -> int:
    """The status that a sender gets of these pieces, each after so many seconds."""

    async def take(piece, last):
        pass

    async def app(scope, receive, send):
        async def page(scope, receive, send):
            while (await receive())["type"] != "http.disconnect":
                pass
            await send({"type": "http.response.start", "status": 200})

        await limited(page, scope, receive, send, take)

    return asgi.status(app, pieces=pieces, stays=0.5)


def test_a_body_that_drips_is_cut_and_an_answer_may_take_as_long_as_it_will(monkeypatch):
    """Who sent much may not be silent for longer than who sent nothing."""
    monkeypatch.setattr(refusal, "MAX_WAIT_SECONDS", 0.3)
    monkeypatch.setattr(refusal, "LINGER_SECONDS", 0.0)
    much = int(refusal.MAX_WAIT_SECONDS * refusal.MIN_BYTES_PER_SECOND) + 1
    assert drip(*[(0.1, b"1")] * 9) == 408
    assert drip((0, bytes(100 * much)), (30, b"x")) == 408
    assert drip(*[(0.2, bytes(much))] * 4, (0, b"x")) == 200


def test_wider_prefixes_have_shares_that_grow_and_an_unknown_address_has_none():
    counts = AddressCounts(4, 30)
    taken = 0
    for n in range(300):
        try:
            counts.take(f"2001:db8:0:{n:x}::/64")
            taken += 1
        except Taken as refused:
            assert refused.near
    assert taken == 16, "a /48 has four shares, however many /64 it has"
    for _ in range(14):
        counts.take("")
    with pytest.raises(Taken) as full:
        counts.take(HOME)
    assert not full.value.near
    for _ in range(14):
        counts.give_back("")
    counts.take(HOME, 4)
    with pytest.raises(Taken):
        counts.take(HOME)
    assert counts.total == 20


def test_events_of_one_address_come_at_a_rate_and_nobody_elses_are_slower():
    now = [0.0]
    rates = AddressRates(rate=2, burst=5, clock=lambda: now[0])

    def taken(address: str) -> int:
        many = 0
        with suppress(Taken):
            while many < 100:
                rates.take(address)
                many += 1
        return many

    assert taken("1.2.3.4") == 5 and taken("1.2.3.4") == 0
    assert taken("1.2.3.5") == 5 and taken("") == 100
    now[0] = 1.0
    assert taken("1.2.3.4") == 2
    now[0] = 100.0
    assert taken("1.2.3.4") == 5
    for n in range(3 * MAX_REMEMBERED):
        rates.take(f"10.{n // 65536}.{n // 256 % 256}.{n % 256}")
        now[0] += 1.0
    assert len(rates._levels) <= MAX_REMEMBERED + 1


def test_too_many_events_are_refused_and_another_address_is_served(server):
    body, told, began = b'{"data": []}', [], time.monotonic()
    said = {"content-type": "application/json", "x-forwarded-for": "203.0.113.77"}
    with httpx.Client(base_url=server.url, headers=said, timeout=60) as client:
        while told.count(429) < 20 and len(told) < 5000:
            told.append(client.post("/gradio_api/call/list_adapters", content=body).status_code)
    most = EVENT_BURST + EVENTS_PER_SECOND * (time.monotonic() - began) + 1
    assert set(told) == {200, 429} and 20 < told.count(200) <= most
    assert post(server, "call/list_adapters", body, HOME).status_code == 200


def test_refusals_of_one_address_wait_once_there_are_many_and_nobody_elses_do(monkeypatch):
    monkeypatch.setattr(crowds, "REFUSAL_BURST", 5)
    monkeypatch.setattr(crowds, "MAX_WAITING", 3)
    waits, told = 0, []

    async def page(scope, receive, send):
        status = 200 if scope["path"] == "/" else 404
        await send({"type": "http.response.start", "status": status})

    async def scenario():
        over = asyncio.Event()

        async def wait(seconds: float):
            nonlocal waits
            waits += 1
            assert seconds == crowds.WAIT_SECONDS
            await over.wait()

        monkeypatch.setattr(crowds, "asyncio", SimpleNamespace(sleep=wait))
        app = SlowRefusals(page, most=4)

        async def ask(path: str, address: str) -> None:
            told.extend(await asgi.ask(app, path, headers=[(HEADER, _signed(address))]))

        asked = [asyncio.ensure_future(ask("/x", EVIL)) for _ in range(12)]
        await asyncio.sleep(0.01)
        assert waits == 3 and len(told) == 9, "five at once; of the others three wait"
        await asyncio.gather(*(ask(path, HOME) for path in ("/", "/x")), ask("/", EVIL))
        await asyncio.gather(*(ask("/x", "") for _ in range(20)))
        assert waits == 3 and len(told) == 32
        over.set()
        await asyncio.gather(*asked)
        assert len(told) == 35

    asyncio.run(scenario())


def test_bodies_on_their_way_from_one_address_have_a_size():
    """Five of 3.5 MiB are more than an address may have, another address has its own."""

    async def scenario() -> list[tuple[str, int]]:
        over, told = asyncio.Event(), []

        async def page(scope, receive, send):
            await receive()
            await over.wait()
            await send({"type": "http.response.start", "status": 200})

        bodies = Bodies(page, cache=SimpleNamespace(tidy=lambda: None))  # pyright: ignore
        rule = RouteTable(RULES).find("/gradio_api/queue/join")
        body = [(0, b"x" * (7 * MIB // 2))]

        async def ask(address: str) -> None:
            more = {"headers": [(HEADER, _signed(address))], RULE: rule}
            sent = await asgi.ask(bodies, "/", method="POST", pieces=body, **more)
            told.append((address, sent[0]["status"]))

        asked = [asyncio.create_task(ask(EVIL)) for _ in range(5)]
        while not told:
            await asyncio.sleep(0.01)
        asked.append(asyncio.create_task(ask(HOME)))
        await asyncio.sleep(0.1)
        over.set()
        await asyncio.gather(*asked)
        await ask(EVIL)
        return told

    told = asyncio.run(scenario())
    assert told[0] == (EVIL, 429) and told[-1] == (EVIL, 200), "what was held is given back"
    assert sorted(told) == sorted([(EVIL, 429), *[(EVIL, 200)] * 5, (HOME, 200)])


def event(address: str) -> SimpleNamespace:
    return SimpleNamespace(request=SimpleNamespace(headers={HEADER: address}))


class Queue(SimpleNamespace):
    def __len__(self) -> int:
        return sum(len(one.queue) for one in self.event_queue_per_concurrency_id.values())


@pytest.mark.parametrize("running", [False, True])
def test_an_address_has_a_quarter_of_those_who_wait_and_half_of_those_who_run(running):
    events = [event(EVIL) for _ in range(32)] + [event(HOME) for _ in range(31)]
    line = SimpleNamespace(queue=[] if running else events)
    queue = Queue(
        event_queue_per_concurrency_id={"a": line},
        event_ids_to_events=dict(enumerate(events)),
        max_size=128,
        max_thread_count=64 if running else 192,
    )
    with pytest.raises(Refused, match="from your address") as refused:
        _refuse_waiting(queue, EVIL)
    assert refused.value.status == 429
    _refuse_waiting(queue, HOME)


def post(server, path: str, content: bytes, address: str = EVIL, **headers: str) -> httpx.Response:
    said = {"content-type": "application/json", "x-forwarded-for": address, **headers}
    return httpx.post(f"{server.url}/gradio_api/{path}", content=content, headers=said, timeout=60)


NESTED = b"[" * (MAX_DEPTH - 1) + b"{}" + b"]" * (MAX_DEPTH - 1)
MANY = b"[" + b",".join([b"{}"] * (MAX_PARTS // 2)) + b"]"
IN_TEXTS = json.dumps(["[{," * MAX_PARTS]).encode()


@pytest.mark.parametrize("rule", [one for one in RULES if one.body > SMALL and one.parsed])
def test_a_body_that_is_let_through_has_so_many_parts_at_most(rule):
    """Parsing stays on the event loop, so how much there is to parse is bounded."""
    parsed = []

    async def page(scope, receive, send):
        came, more = b"", True
        while more:
            message = await receive()
            came, more = came + message["body"], message["more_body"]
        parsed.append(came)
        await send({"type": "http.response.start", "status": 200})

    bodies = Bodies(page, cache=SimpleNamespace(tidy=lambda: None))  # pyright: ignore
    for body, refused in (
        (MANY, b""),
        (MANY[:-1] + b",{}]", b"more than %d" % MAX_PARTS),
        (NESTED, b""),
        (b"[" + NESTED + b"]", b"more than %d" % MAX_DEPTH),
        (b'{"x":' * MAX_DEPTH + b"[" * 1400, b"more than %d" % MAX_DEPTH),
        (IN_TEXTS, b""),
    ):
        pieces = [(0, body[at : at + 60_000]) for at in range(0, len(body), 60_000)]
        start, *rest = asgi.told(bodies, method="POST", pieces=pieces, **{RULE: rule})
        assert start["status"] == (413 if refused else 200)
        assert not refused or refused in rest[0]["body"]
    assert parsed == [MANY, NESTED, IN_TEXTS]


def test_a_body_that_is_no_text_is_refused_before_it_is_read(server):
    """MCP's server would answer 500."""
    for body in (b'"\x9b\xdeA"', '{"jsonrpc": "2.0"}'.encode("utf-16"), b'{"a": "\xc3'):
        for path in ("mcp/http", "call/ask", "queue/join"):
            told = post(server, path, body)
            assert told.status_code == 400 and "UTF-8" in told.text, (path, body)
    for half, status in ((r"\ud800", 400), (r"\uD83D\ud83d", 400), (r"\\ud800 \ud83d\uDE00", 200)):
        asked = f'{{"jsonrpc": "2.0", "id": "{half}", "method": "tools/list", "params": {{}}}}'
        accept = {"accept": "application/json, text/event-stream"}
        told = post(server, "mcp/http", asked.encode(), **accept)
        assert told.status_code == status and (status == 200 or "half a character" in told.text)
    assert not has_half_characters(rb"[\ud") and not has_half_characters(b"[]")
    whole = json.dumps({"data": ["é€😀", 3]}, ensure_ascii=False).encode()
    assert post(server, "call/retrieve", whole).status_code == 200


def test_what_gradio_has_besides_is_not_there(server):
    """Without its body being read; test_harm_statuses.py has the other routes."""
    told = post(server, "component_server", b"")
    assert told.status_code == 404 and told.text == "There is nothing here."
    for path in ("file=https://example.org/", "../monitoring", "token"):
        assert httpx.get(f"{server.url}/gradio_api/{path}", timeout=30).status_code == 404, path


def listen(server, session: str, address: str) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), timeout=60)
    made.sendall(
        f"GET /gradio_api/heartbeat/{session} HTTP/1.1\r\nHost: localhost\r\n"
        f"X-Forwarded-For: {address}\r\n\r\n".encode()
    )
    return made


def test_silent_streams_of_one_address_are_bounded_and_others_have_theirs(server):
    with ExitStack() as stack:
        most = MAX_OPEN["stream"].address
        mine = [stack.enter_context(listen(server, f"evil{n}", EVIL)) for n in range(most + 40)]
        heads = [made.recv(12) for made in mine]
        assert heads.count(b"HTTP/1.1 200") == most and heads.count(b"HTTP/1.1 429") == 40
        with listen(server, "home", HOME) as honest:
            assert honest.recv(12) == b"HTTP/1.1 200"


def test_a_client_that_holds_the_queue_keeps_no_place_of_others(tmp_path):
    """Its questions wait for a model that is being loaded; fewer than an address may send. The page
    is there meanwhile, and they are answered once the model is."""
    said = {"max_queue": 16, "max_batch": 2, "trusted_proxies": "127.0.0.1"}
    with fake(tmp_path, variables={"gate": tmp_path / "gate"}, **said) as server:
        page = partial(httpx.get, timeout=60)
        health = page(f"{server.url}/health").json()
        assert health["status"] == "loading" and not health["model"]["ready"]
        assert page(server.url).status_code == 200
        sent = [post(server, "call/v2/ask", b'{"prompt": "a b"}') for _ in range(60)]
        told = [one.status_code for one in sent]
        assert 429 in told and "requests from your address" in sent[-1].text
        assert told == [200] * told.index(429) + [429] * (60 - told.index(429))
        honest = post(server, "call/v2/ask", b'{"prompt": "a b"}', HOME)
        assert post(server, "call/list_adapters", b'{"data": []}', HOME).status_code == 200
        (tmp_path / "gate").touch()
        event = f"{server.url}/gradio_api/call/ask/{honest.json()['event_id']}"
        assert "event: complete" in page(event, headers={"x-forwarded-for": HOME}).text
        assert page(f"{server.url}/health").json()["status"] == "ok"
