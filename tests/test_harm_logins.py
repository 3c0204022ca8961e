"""Under passwords nothing is open but the way to log in, and who guesses is slowed down."""

import asyncio
import base64
import itertools
import socket
import time
from contextlib import suppress
from datetime import timedelta
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import pytest
from gradio_client import Client

from ramole_core import RamoleError
from ramole_core.api_keys import add_key, remove_keys, today
from tests.pool_fakes import write_sample
from tests.serving import fake
from tests.test_api import speak_mcp
from ui.middleware.logins import TOKEN_SECONDS, Logins, OldTokens
from ui.middleware.routes import RULES, Routes
from ui.session import accounts as accounts_module
from ui.session.accounts import (
    EVERY_SECONDS,
    EVERY_UNKNOWN_SECONDS,
    MAX_REMEMBERED,
    MAX_WAIT_SECONDS,
    SPAN_SECONDS,
    TRIES,
    TRIES_UNKNOWN,
    Accounts,
    TooManyTries,
    Tries,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def waits(tries: Tries, address: str, *, user: str = "ann") -> float | None:
    """How long one more wrong try waits; None where it is refused."""
    try:
        return tries.begin(user, address)[1]
    except TooManyTries as many:
        assert many.seconds > 0
        return None


def test_after_too_many_wrong_passwords_each_try_waits_its_turn_and_others_do_not():
    clock = Clock()
    tries = Tries(clock)
    assert [waits(tries, "evil") for _ in range(TRIES + 3)] == [0] * TRIES + [2, 4, 6]
    assert waits(tries, "home") == waits(tries, "evil", user="ben") == 0
    clock.now += SPAN_SECONDS - 1
    assert waits(tries, "evil") == EVERY_SECONDS
    clock.now += 2
    assert [waits(tries, "evil") for _ in range(TRIES - 1)][-1] == 0


def test_only_tries_at_the_same_moment_are_refused_and_a_later_one_waits_for_seconds():
    clock = Clock()
    tries = Tries(clock)
    told = [waits(tries, "evil") for _ in range(100)]
    assert told.count(None) == 80 and max(one or 0 for one in told) == MAX_WAIT_SECONDS
    clock.now += MAX_WAIT_SECONDS
    assert waits(tries, "evil") == EVERY_SECONDS


def test_a_right_password_takes_back_its_own_try_alone():
    tries = Tries(Clock())
    for _ in range(50):
        tries.right("ann", "home", tries.begin("ann", "home")[0])
    told = []
    for _ in range(TRIES + 1):  # who has an account guesses at another
        told.append(waits(tries, "home", user="ben"))
        tries.right("ann", "home", tries.begin("ann", "home")[0])
    assert told == [0] * TRIES + [EVERY_SECONDS]


def test_who_shares_an_unknown_address_has_more_tries_together_and_never_waits_long():
    tries = Tries(Clock())
    told = [waits(tries, "") for _ in range(TRIES_UNKNOWN + 1)]
    assert told == [0] * TRIES_UNKNOWN + [pytest.approx(EVERY_UNKNOWN_SECONDS)]


def test_a_network_of_ipv6_has_the_tries_of_four_however_many_addresses_it_has():
    tries = Tries(Clock())
    told = [waits(tries, f"2001:db8:0:{n:x}00::/64") for n in range(200)]
    assert told.count(0) == 4 * TRIES and None in told


def test_guessing_from_many_addresses_fills_no_memory():
    tries = Tries(Clock())
    for n in range(3 * MAX_REMEMBERED):
        tries.begin("ann", str(n))
    assert len(tries._tried) == MAX_REMEMBERED


def call(accounts: Accounts, header: str | None, address: str = "") -> str | None:
    return asyncio.run(accounts.caller(header, address))


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_who_calls_is_a_user_with_its_password_as_bearer_or_basic():
    accounts = Accounts([("ann", "se:cret"), ("zoë", "ü")])
    for fine in ("Bearer ann:se:cret", "bearer  ann:se:cret", basic("ann:se:cret")):
        assert call(accounts, fine) == "ann"
    wire = "Bearer zoë:ü".encode().decode("latin-1")
    assert call(accounts, wire) == call(accounts, basic("zoë:ü")) == "zoë"
    wrong = (None, "", "Bearer", "Bearer ann", "Bearer ann:", basic("ann:x"), "Basic %%%")
    for header in (*wrong, "Digest ann:se:cret", "Bearer \u20ac", basic("")):
        assert call(accounts, header) is None
    assert accounts and not Accounts()


def test_a_key_of_a_file_opens_for_its_user_until_its_last_day_and_never_waits(tmp_path):
    path, day = tmp_path / "keys", today()
    ann = add_key(path, "ann", today=day)
    old = add_key(path, "old", today=day - timedelta(days=9), days=8)
    assert ann.startswith("ramole_") and ann not in path.read_text("utf-8")
    assert path.stat().st_mode & 0o77 == 0
    tries = Tries(Clock())
    accounts = Accounts([("ann", "secret")], path, tries=tries)
    for _ in range(200):
        with suppress(TooManyTries):
            tries.begin("ann", "")
    assert call(accounts, f"Bearer {ann}") == call(accounts, basic(f"ann:{ann}")) == "ann"
    assert call(accounts, f"Bearer {old}") is call(accounts, "Bearer ramole_x") is None
    assert asyncio.run(accounts.log_in("ann", ann))
    assert not asyncio.run(accounts.log_in("ben", "x"))


def test_a_key_that_is_added_or_removed_counts_without_a_new_start(tmp_path, monkeypatch):
    monkeypatch.setattr(accounts_module, "LOOK_SECONDS", 0.0)
    path, day = tmp_path / "keys", today()
    ann = add_key(path, "ann", today=day)
    accounts = Accounts(keys_file=path)
    ben = add_key(path, "ben", today=day, days=1)
    assert call(accounts, f"Bearer {ben}") == "ben"
    assert remove_keys(path, "ann") == 1
    assert call(accounts, f"Bearer {ann}") is None and call(accounts, f"Bearer {ben}") == "ben"
    path.write_text("broken", "utf-8")
    assert call(accounts, f"Bearer {ben}") == "ben", "what was read before holds"
    with pytest.raises(RamoleError, match="cannot be read"):
        Accounts(keys_file=path)
    with pytest.raises(RamoleError, match="no name for a user"):
        add_key(path, "a b", today=day)


def test_a_login_ends_after_a_week():
    clock = Clock()
    tokens, old = {"a": "ann"}, OldTokens(clock)
    old.sweep(tokens)
    clock.now += TOKEN_SECONDS - 1
    tokens["b"] = "ben"
    old.sweep(tokens)
    assert set(tokens) == {"a", "b"}
    clock.now += 2
    old.sweep(tokens)
    assert set(tokens) == {"b"}


@pytest.mark.parametrize(
    ("path", "root", "status"),
    [
        ("/ramole/", "/ramole", 200),
        ("/ramole", "/ramole", 200),
        ("/ramole/login", "/ramole", 200),
        ("/ramole/health", "/ramole", 200),
        ("/health", "/ramole", 200),
        ("/ramole/v1/models", "/ramole", 200),
        ("/ramole/gradio_api/app_id", "/ramole", 401),
        ("/ramolehealth", "/ramole", 404),
        ("/ramole/health", "", 404),
    ],
)
def test_under_a_path_that_the_proxy_leaves_on_the_same_is_open(path, root, status):
    told = []

    async def page(scope, receive, send):
        told.append(200)

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        told.append(message.get("status"))

    gradio = SimpleNamespace(startup_events_triggered=True, cookie_id="x", tokens={})
    scope = {"type": "http", "method": "GET", "headers": [], "app": gradio}
    scope |= {"path": path, "root_path": root}
    locked = Logins(page, accounts=Accounts([("ann", "secret")]))
    asyncio.run(Routes(locked, table=RULES)(scope, receive, send))
    assert told[0] == status


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("locked")
    write_sample(root / "adapters", "squad", rank=5, seed=1, examples=["where is the cat"])
    keys = root / "keys"
    key = add_key(keys, "carl", today=today())
    said = {"auth": "ann:secret", "keys_file": keys, "trusted_proxies": "127.0.0.1"}
    with fake(root, **said) as running:
        running.log.with_name("key").write_text(key, "utf-8")
        yield running


@pytest.fixture(scope="module")
def key(server) -> str:
    """Carl's."""
    return server.log.with_name("key").read_text("utf-8")


ROUTES = {
    "GET": "user token app_id startup-events info openapi.json queue/status theme.css login_check "
    "heartbeat/abcdefgh upload_progress?upload_id=x queue/data?session_hash=abcdefgh runs "
    "stream/a/b/1/playlist.m3u8 stream/a/b/1/playlist-file stream/a/b/1/s.ts vibe-code mcp/ "
    "deep_link?session_hash=x file=/etc/passwd dev/reload monitoring profiling/traces",
    "POST": "cancel reset stream/abc stream/abc/close queue/join upload run/ask api/ask call/ask "
    "call/v2/ask component_server process_recording vibe-edit vibe-code mcp/",
}
SAID = {"cancel": {"session_hash": "a", "fn_index": 1, "event_id": "b"}, "reset": {"event_id": "b"}}
KNOWN = {"theme.css"}
"""Open, and the same for everybody."""


@pytest.mark.parametrize(
    ("method", "route"),
    [(method, route) for method, routes in ROUTES.items() for route in routes.split()],
)
def test_no_route_is_open_without_a_password(server, method, route):
    url = f"{server.url}/gradio_api/{route}"
    with httpx.stream(method, url, json=SAID.get(route), timeout=60) as told:
        assert (told.status_code == 200) == (route in KNOWN)
        assert told.status_code in (200, 401, 404)


def test_neither_is_a_path_that_only_looks_like_an_open_one(server):
    for path in ("/static/../gradio_api/app_id", "//gradio_api/app_id", "/health/../config", "/x"):
        told = httpx.get(httpx.URL(server.url).copy_with(raw_path=path.encode()), timeout=30)
        assert told.status_code in (401, 403, 404), path


def test_the_page_for_logging_in_and_its_files_are_open(server):
    page = httpx.get(server.url, timeout=30)
    assert page.status_code == 200 and "squad" not in page.text
    assert httpx.get(f"{server.url}/health", timeout=30).status_code == 200
    files = {part.split('"')[0] for part in page.text.split('"./assets/')[1:]}
    assert files and all(
        httpx.get(f"{server.url}/assets/{file}", timeout=30).status_code == 200
        for file in itertools.islice(sorted(files), 3)
    )


def test_the_numbers_ask_for_a_password_too(server):
    for auth, status in ((None, 401), (("ann", "wrong"), 401), (("ann", "secret"), 200)):
        told = httpx.get(f"{server.url}/metrics", auth=auth, timeout=30)
        assert told.status_code == status


def log_in(server, password: str, address: str) -> httpx.Response:
    return httpx.post(
        f"{server.url}/login",
        data={"username": "ann", "password": password},
        headers={"x-forwarded-for": address},
        timeout=30,
    )


def test_a_guesser_is_slowed_and_the_owner_of_the_password_is_not(server):
    wrong = [log_in(server, f"guess{n}", "203.0.113.9").status_code for n in range(TRIES)]
    assert wrong == [400] * TRIES
    began = time.monotonic()
    assert log_in(server, "secret", "203.0.113.9").status_code == 200, "the right one never fails"
    assert time.monotonic() - began >= EVERY_SECONDS - 0.1
    assert log_in(server, "secret", "198.51.100.1").status_code == 200


def test_wrong_passwords_through_a_proxy_that_tells_no_address_lock_nobody_out(server, key):
    """As on a Space, where all visitors come from there."""
    for n in range(TRIES_UNKNOWN + 2):
        assert log_in(server, f"guess{n}", "unknown").status_code == 400
    assert log_in(server, "secret", "unknown").status_code == 200
    said = {"x-forwarded-for": "unknown", "authorization": f"Bearer {key}"}
    assert httpx.get(f"{server.url}/v1/models", headers=said, timeout=30).status_code == 200


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mcp renames its own client function
def test_a_key_opens_the_endpoints_and_mcp(server, key):
    said = {"authorization": f"Bearer {key}"}
    assert httpx.get(f"{server.url}/gradio_api/info", timeout=30).status_code == 401
    client = Client(server.url, headers=said, verbose=False)
    assert client.predict("a b", api_name="/ask")[0] == "a b"
    client.close()
    _, (listed,) = asyncio.run(speak_mcp(server.url, [("list_adapters", {})], **said))
    assert "squad" in listed.content[0].text


def test_without_a_password_an_announced_upload_is_asked_for_it_first(server):
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as line:
        line.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n"
            b"Content-Length: 99999999999\r\n\r\n"
        )
        assert b" 401 " in line.recv(4096).partition(b"\r\n")[0]


def test_who_has_logged_in_does_all_as_before(server):
    client = Client(server.url, auth=("ann", "secret"), verbose=False)
    assert client.predict("a b", api_name="/ask")[0] == "a b"
    assert [card["name"] for card in client.predict(api_name="/list_adapters")] == ["squad"]
    client.close()
