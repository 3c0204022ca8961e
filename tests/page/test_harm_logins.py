"""Under passwords nothing is open but the way to log in, and who guesses is slowed down."""

import asyncio
import itertools
import socket
import time
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError, AuthenticationError
from starlette.datastructures import Headers

from ramole_core.api_keys import add_key, today
from tests.page.test_api import speak_mcp
from tests.support import asgi
from tests.support.pool_fakes import write_adapter, write_sample, zipped
from tests.support.serving import client_of, fake, fake_page, main, wait_until
from ui import serve
from ui.middleware import logins
from ui.middleware.crowds import Crowds
from ui.middleware.logins import Logins
from ui.middleware.routes import RULES, Routes
from ui.session import accounts as accounts_module
from ui.session.accounts import (
    TRIES,
    TRIES_UNKNOWN,
    TRY_SECONDS,
    TRY_UNKNOWN_SECONDS,
    Accounts,
    Tries,
)
from ui.session.owner import is_operator

ANN = {"username": "ann", "password": "secret"}


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
    gradio = SimpleNamespace(startup_events_triggered=True, cookie_id="x", tokens={})
    locked = Logins(asgi.page, accounts=Accounts([("ann", "secret")]))
    app = Routes(locked, table=RULES)
    assert asgi.status(app, path, root_path=root, app=gradio) == status


def test_operator_rights_go_with_the_key_that_a_call_brings_not_with_its_user(tmp_path):
    keys, day = tmp_path / "keys", today()
    own, boss = (add_key(keys, "ann", today=day, operator=operator) for operator in (False, True))
    old = add_key(keys, "ann", today=day - timedelta(days=9), days=8, operator=True)
    operators = []

    async def page(scope, receive, send):
        operators.append(is_operator(Headers(scope=scope)))
        await asgi.page(scope, receive, send)

    gradio = SimpleNamespace(startup_events_triggered=True, cookie_id="x", tokens={})
    locked = Routes(Logins(page, accounts=Accounts([("ann", "secret")], keys)), table=RULES)
    told = [
        asgi.status(
            locked,
            "/gradio_api/info",
            headers=[("authorization", f"Bearer {said}")],
            app=gradio,
        )
        for said in (boss, f"ann:{boss}", own, f"ann:{own}", "ann:secret", boss, old)
    ]
    assert told == [200] * 6 + [401]
    assert operators == [True, True, False, False, False, True]


def test_the_right_password_is_let_in_behind_all_guesses_that_wait(monkeypatch):
    """As on a Space, where all come from an unknown address: as many as 50 seconds compare."""
    accounts = Accounts([("ann", "secret")], tries=Tries(lambda: 0.0))
    waiting = int(50 / TRY_UNKNOWN_SECONDS)

    async def page(scope, receive, send):
        fine = await accounts.log_in("ann", scope["password"])
        await send({"type": "http.response.start", "status": 200 if fine else 400})

    async def scenario() -> tuple[list[int], list[float], int]:
        told, waits, over = [], [], asyncio.Event()

        async def wait(seconds: float):
            waits.append(seconds)
            await over.wait()

        async def send(message):
            told.append(message.get("status"))

        monkeypatch.setattr(accounts_module, "asyncio", SimpleNamespace(sleep=wait))
        app = Routes(Crowds(page, streams=4096), table=RULES)

        def log_in(password: str) -> asyncio.Task:
            scope = {"type": "http", "method": "POST", "path": "/login", "headers": []}
            scope |= {"app": None, "password": password}
            return asyncio.create_task(app(scope, lambda: asyncio.sleep(60), send))

        tasks = [log_in(f"guess{n}") for n in range(TRIES_UNKNOWN + waiting)]
        await asyncio.sleep(0)
        tasks.append(log_in("secret"))
        await asyncio.sleep(0)
        early = len(told)
        over.set()
        await asyncio.gather(*tasks)
        return told, waits, early

    told, waits, early = asyncio.run(scenario())
    assert early == TRIES_UNKNOWN and len(waits) == waiting + 1
    assert waits[-1] == max(waits) == pytest.approx(50 + TRY_UNKNOWN_SECONDS)
    assert told[-1] == 200 and set(told[:-1]) == {400}


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


def test_a_path_that_only_looks_like_an_open_one_is_not_open(server):
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
    assert time.monotonic() - began >= TRY_SECONDS - 0.1
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
    client = client_of(server.url, headers=said)
    assert client.predict("a b", api_name="/ask")[0] == "a b"
    client.close()
    ann = {"authorization": "Bearer ann:secret"}
    for way in (said, ann):
        _, (listed,) = asyncio.run(speak_mcp(server.url, [("list_adapters", {})], **way))
        assert "squad" in listed.content[0].text


def test_what_an_operator_adds_is_everyones_and_stays_when_he_goes(server, key, tmp_path):
    keys = server.log.with_name("keys")
    boss = add_key(keys, "boss", today=today(), operator=True)
    archive = str(zipped(write_adapter(tmp_path / "mine", seed=3), tmp_path / "mine.zip"))
    mine, others = ({"authorization": f"Bearer {one}"} for one in (boss, key))
    models = partial(httpx.get, f"{server.url}/v1/models", headers=mine, timeout=30)
    wait_until(lambda: models().status_code == 200)  # the file is looked at again
    client = client_of(server.url, headers=mine)
    added = client.predict(handle_file(archive), "shared", None, api_name="/add_adapter")
    assert added["name"] == "shared"
    client.close()
    carl = client_of(server.url, headers=others)
    seen = [card["name"] for card in carl.predict(api_name="/list_adapters")]
    assert sorted(seen) == ["shared", "squad"]
    with pytest.raises(AppError, match="not this session's to change"):
        carl.predict("shared", api_name="/remove_adapter")
    carl.close()
    client = client_of(server.url, headers=mine)
    with pytest.raises(AppError, match="sample pool"):
        client.predict("squad", api_name="/remove_adapter")
    client.predict("shared", api_name="/remove_adapter")
    assert [card["name"] for card in client.predict(api_name="/list_adapters")] == ["squad"]
    client.close()


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
    client = client_of(server.url, auth=("ann", "secret"))
    assert client.predict("a b", api_name="/ask")[0] == "a b"
    assert [card["name"] for card in client.predict(api_name="/list_adapters")] == ["squad"]
    client.close()
    for wrong in (None, ("ann", "other"), ("", "")):
        with pytest.raises((AuthenticationError, ValueError)):
            client_of(server.url, auth=wrong)
    assert "secret" not in server.log.read_text()


def test_a_login_of_a_running_page_ends(tmp_path):
    with fake_page(__name__, tmp_path, str(tmp_path), auth="ann:secret") as page:
        with httpx.Client(base_url=page.url, timeout=60) as client:

            def told() -> int:
                return client.get("/gradio_api/info").status_code

            def logged_in() -> bool:
                assert client.post("/login", data=ANN).status_code == 200
                return told() == 200

            wait_until(logged_in)  # a login may be over before it is used
            wait_until(lambda: told() == 401)
            assert client.post("/login", data=ANN).status_code == 200


if __name__ == "__main__":  # a page whose logins end soon
    logins.TOKEN_SECONDS = serve.TIDY_SECONDS = 2.0
    main()
