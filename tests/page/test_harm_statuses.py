"""Every route answers as docs/hosting.md says, whatever comes, and no other route is there."""

import re
import socket
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support import asgi
from tests.support.serving import fake_page, main
from ui.middleware.crowds import Crowds
from ui.middleware.routes import EVERYWHERE, MAX_OPEN, RULES, UNUSED, Most, Routes, rules
from ui.middleware.watched import OTHER_VALUES

KEY = {"authorization": "Bearer ann:secret"}
JSON = {"content-type": "application/json"}
NAMED = {"x-forwarded-for": "192.0.2.7"}
"""From an address that is known."""
NAMES = [rule.path for rule in RULES]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("crowded")
    said = {"auth": "ann:secret", "trusted_proxies": "127.0.0.1", "max_upload_mb": 1}
    with fake_page(__name__, root, str(root), **said) as running:
        yield running


@pytest.fixture(scope="module")
def honest(server) -> dict[str, tuple[str, dict]]:
    """By rule: a path, and what a visitor sends there who does all right."""
    with httpx.Client(base_url=server.url, headers=KEY, timeout=60) as client:
        config = client.get("/config").json()
        asset = re.findall(r'"\./(assets/[^"]+)"', client.get("/").text)[0]
        file = client.post("/gradio_api/upload", files={"files": ("a", b"1")}).json()[0]
        event = client.post("/gradio_api/call/list_adapters", json={"data": []}).json()["event_id"]
    number = next(one["id"] for one in config["dependencies"] if one["api_name"] == "list_adapters")
    call, chat = {"data": [], "session_hash": "abcdefgh"}, {"role": "user", "content": "a b"}
    hello = {"protocolVersion": "2025-03-26", "capabilities": {}}
    hello["clientInfo"] = {"name": "a", "version": "1"}
    mcp = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    told = {
        "/assets/{*}": (asset, {}),
        "/static/{*}": ("static/img/logo.svg", {}),
        "/login": ("login", {"data": {"username": "ann", "password": "secret"}}),
        "/gradio_api/file={*}": (f"gradio_api/file={file}", {}),
        "/gradio_api/upload": ("gradio_api/upload", {"files": {"files": ("a", b"1")}}),
        "/gradio_api/upload_progress": ("gradio_api/upload_progress?upload_id=x", {}),
        "/gradio_api/queue/join": ("gradio_api/queue/join", {"json": call | {"fn_index": number}}),
        "/gradio_api/queue/data": ("gradio_api/queue/data?session_hash=abcdefgh", {}),
        "/gradio_api/call/v2/{}": ("gradio_api/call/v2/list_adapters", {"json": {}}),
        "/gradio_api/call/{}/{}": (f"gradio_api/call/list_adapters/{event}", {}),
        "/gradio_api/mcp/http": (
            "gradio_api/mcp/http",
            {"json": mcp, "headers": {"accept": "application/json, text/event-stream"}},
        ),
        "/v1/chat/completions": (
            "v1/chat/completions",
            {"json": {"model": "mixture", "messages": [chat]}},
        ),
        "/v1/completions": ("v1/completions", {"json": {"model": "mixture", "prompt": "a b"}}),
        "/v1/embeddings": ("v1/embeddings", {"json": {"model": "retriever", "input": "a b"}}),
        "/v1/{*}": ("v1/models", {}),
    }
    for name in ("run", "api", "call"):
        told[f"/gradio_api/{name}/{{}}"] = (f"gradio_api/{name}/list_adapters", {"json": call})
    end = {"session_hash": "abcdefgh", "fn_index": number, "event_id": event}
    told |= {
        f"/gradio_api/{way}": (f"gradio_api/{way}", {"json": end}) for way in ("cancel", "reset")
    }
    return told


def ask(server, path: str, method: str, more: dict[str, str], headers=(), **said) -> int:
    """The status of a request; what streams is left."""
    url, headers = f"{server.url}/{path.lstrip('/')}", {**dict(headers), **more}
    with httpx.stream(method, url, headers=headers, timeout=60, **said) as told:
        return told.status_code


def filled(path: str, name: str = "nothing") -> str:
    return path.replace("{*}", name).replace("{}", name)


BESIDE = {
    "/svelte/{*}": 404,  # this Gradio has no file of it
    "/gradio_api/login_check": 401,  # it asks for the cookie of who logged in, and for no key
    "/gradio_api/upload_progress": 404,  # of no upload
    "/gradio_api/mcp/messages": 404,  # of no session
    "/v1/embeddings": 500,  # the fake system counts no tokens
}
"""Statuses of those that do all right and get nothing here."""


@pytest.mark.parametrize("number", range(len(RULES)), ids=NAMES)
def test_what_comes_of_a_route_is_what_the_table_says(server, honest, number):
    rule, told = rules(max_upload_mb=1)[number], {}
    path, fine = honest.get(rule.path, (filled(rule.path), {}))
    for method in rule.methods.split():
        said = fine if method == "POST" or "POST" not in rule.methods else {}
        told["honest", method] = ask(server, path, method, KEY, **said)
        told["nothing", method] = ask(server, filled(rule.path), method, KEY)
        told["no password", method] = ask(server, path, method, {}, **said)
        told["too many", method] = ask(server, path, method, KEY | NAMED)
        if rule.kind in ("file", "page"):
            for part in ("0-0", "9999999-"):
                told[part] = ask(server, path, method, KEY | {"range": f"bytes={part}"})
        if method != "GET":
            for body in (b"[", b"{}", b"\xff"):
                told[body, method] = ask(server, path, method, KEY | JSON, content=body)
            told["too long", method] = announced(server, method, path, rule.body + 1)
    told["another method"] = ask(server, path, "OPTIONS", KEY)
    assert {*told.values()} <= {*rule.statuses, *EVERYWHERE}, told
    for method in rule.methods.split():
        assert told["too many", method] == 429
        assert rule.open or told["no password", method] == 401
        assert method == "GET" or (rule.body and told["too long", method] == 413)
    best = min(told["honest", method] for method in rule.methods.split())
    assert 200 <= best < 308 or best == BESIDE.get(rule.path), told


def announced(server, method: str, path: str, size: int, *lines: str) -> int:
    """The status of a request that says its body has so many bytes, and sends none."""
    place = urlsplit(server.url)
    head = (f"{method} /{path.lstrip('/')} HTTP/1.1", "Host: localhost", f"Content-Length: {size}")
    said = ("Content-Type: multipart/form-data; boundary=x", "Authorization: Bearer ann:secret")
    with socket.create_connection((place.hostname, place.port), timeout=60) as line:
        line.sendall("\r\n".join([*head, *said, *lines, "", ""]).encode())
        return int(line.recv(4096).split()[1])


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_where_all_addresses_together_have_too_many_one_more_is_told_so(rule, monkeypatch):
    monkeypatch.setitem(MAX_OPEN, rule.kind, Most(4, 0))

    async def page(scope, receive, send):
        raise AssertionError("it came through")

    gradio = SimpleNamespace(get_blocks=lambda: None)
    crowded = Routes(Crowds(page, streams=9), table=[rule])
    assert asgi.status(crowded, filled(rule.path), app=gradio) == 503 and 503 in rule.statuses


@pytest.mark.parametrize("path", UNUSED)
def test_what_gradio_has_besides_is_not_there_with_a_password_either(server, path):
    """`/monitoring/summary` is, as the first rule that fits."""
    for method in ("GET", "POST"):
        assert ask(server, filled(path), method, KEY) == 404, method


def test_the_summary_of_events_is_empty_whatever_was_called(server):
    with httpx.Client(base_url=server.url, headers=KEY, timeout=60) as client:
        for _ in range(3):
            event = client.post("/gradio_api/call/list_adapters", json={"data": []}).json()
            client.get(f"/gradio_api/call/list_adapters/{event['event_id']}")
        told = client.get("/monitoring/summary")
    assert told.status_code == 200 and told.json() == {"functions": {}}


@pytest.mark.parametrize("way", ["call", "call/v2", "run", "api"])
@pytest.mark.parametrize("body", [b"[]", b'"a"', b"3", b"{"])
def test_a_body_that_is_no_call_is_told_so_in_a_sentence(server, way, body):
    headers = {**KEY, "content-type": "application/json"}
    path = f"{server.url}/gradio_api/{way}/list_adapters"
    answer = httpx.post(path, content=body, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()) == (422, {"error": OTHER_VALUES})


if __name__ == "__main__":  # a page on which each known address has too many requests in progress
    MAX_OPEN |= {kind: Most(0, 1024) for kind in MAX_OPEN}
    main()
