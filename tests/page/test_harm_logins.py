"""Under passwords nothing is open but the way to log in, and who guesses is slowed down."""

import asyncio
import itertools
import socket
import time
from datetime import timedelta
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError, AuthenticationError
from starlette.datastructures import Headers

from ramole_core.api_keys import add_key, today
from tests.page.conftest import Locked
from tests.page.test_api import speak_mcp
from tests.support import asgi
from tests.support.pool_fakes import write_adapter, zipped
from tests.support.serving import client_of, fake, wait_until
from ui.middleware.crowds import Crowds
from ui.middleware.logins import Logins
from ui.middleware.routes import RULES, Routes
from ui.session.accounts import (
    TRIES,
    TRIES_UNKNOWN,
    TRY_SECONDS,
    TRY_UNKNOWN_SECONDS,
    Accounts,
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


def test_as_many_logins_as_may_wait_for_their_turn_come_in_at_once():
    """As on a Space, where all come from an unknown address: those of 50 seconds, and one more."""
    many = TRIES_UNKNOWN + int(50 / TRY_UNKNOWN_SECONDS) + 1
    came, all_here = [], asyncio.Event()

    async def page(scope, receive, send):
        came.append(scope["path"])
        if len(came) == many:
            all_here.set()
        await all_here.wait()
        await asgi.page(scope, receive, send)

    async def scenario() -> list[int]:
        app = Routes(Crowds(page, streams=4096), table=RULES)
        asked = (asgi.ask(app, "/login", method="POST", app=None) for _ in range(many))
        async with asyncio.timeout(120):
            return [sent[0]["status"] for sent in await asyncio.gather(*asked)]

    assert asyncio.run(scenario()) == [200] * many


def test_a_path_that_only_looks_like_an_open_one_is_not_open(locked):
    for path in ("/static/../gradio_api/app_id", "//gradio_api/app_id", "/health/../config", "/x"):
        told = httpx.get(httpx.URL(locked.url).copy_with(raw_path=path.encode()), timeout=30)
        assert told.status_code in (401, 403, 404), path


def test_the_page_for_logging_in_and_its_files_are_open(locked):
    page = httpx.get(locked.url, timeout=30)
    assert page.status_code == 200 and "squad" not in page.text
    assert httpx.get(f"{locked.url}/health", timeout=30).status_code == 200
    files = {part.split('"')[0] for part in page.text.split('"./assets/')[1:]}
    assert files and all(
        httpx.get(f"{locked.url}/assets/{file}", timeout=30).status_code == 200
        for file in itertools.islice(sorted(files), 3)
    )


def test_the_numbers_ask_for_a_password_too(locked):
    for auth, status in ((None, 401), (("ann", "wrong"), 401), (("ann", "secret"), 200)):
        told = httpx.get(f"{locked.url}/metrics", auth=auth, timeout=30)
        assert told.status_code == status


def log_in(locked: Locked, password: str, address: str) -> httpx.Response:
    return httpx.post(
        f"{locked.url}/login",
        data={"username": "ann", "password": password},
        headers={"x-forwarded-for": address},
        timeout=30,
    )


def models(locked: Locked, key: str, address: str) -> httpx.Response:
    said = {"x-forwarded-for": address, "authorization": f"Bearer {key}"}
    return httpx.get(f"{locked.url}/v1/models", headers=said, timeout=30)


def test_a_guesser_is_slowed_and_the_owner_of_the_password_is_not(locked):
    for n in range(TRIES // 2):  # at either door
        assert log_in(locked, f"guess{n}", "203.0.113.9").status_code == 400
        assert models(locked, "ann:guess", "203.0.113.9").status_code == 401
    for number, way in enumerate((log_in, models), 1):
        began = time.monotonic()
        password = "ann:secret" if way is models else "secret"
        assert way(locked, password, "203.0.113.9").status_code == 200, "the right one never fails"
        assert time.monotonic() - began >= TRY_SECONDS - 0.1, number
        assert way(locked, password, "198.51.100.1").status_code == 200


def test_wrong_passwords_through_a_proxy_that_tells_no_address_lock_nobody_out(locked):
    """As on a Space, where all visitors come from there."""
    for n in range(TRIES_UNKNOWN + 2):
        assert log_in(locked, f"guess{n}", "unknown").status_code == 400
    assert log_in(locked, "secret", "unknown").status_code == 200
    assert models(locked, locked.carl, "unknown").status_code == 200


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mcp renames its own client function
def test_a_key_opens_the_endpoints_and_mcp(locked):
    said = {"authorization": f"Bearer {locked.carl}"}
    assert httpx.get(f"{locked.url}/gradio_api/info", timeout=30).status_code == 401
    client = client_of(locked.url, headers=said)
    assert client.predict("a b", api_name="/ask")[0] == "a b"
    client.close()
    ann = {"authorization": "Bearer ann:secret"}
    for way in (said, ann):
        _, (listed,) = asyncio.run(speak_mcp(locked.url, [("list_adapters", {})], **way))
        assert "squad" in listed.content[0].text


def test_what_an_operator_adds_is_everyones_and_stays_when_he_goes(locked, tmp_path):
    archive = str(zipped(write_adapter(tmp_path / "mine", seed=3), tmp_path / "mine.zip"))
    boss, other = ({"authorization": f"Bearer {key}"} for key in (locked.boss, locked.carl))

    def names(client) -> list[str]:
        return sorted(card["name"] for card in client.predict(api_name="/list_adapters"))

    client = client_of(locked.url, headers=boss)
    added = client.predict(handle_file(archive), "shared", None, api_name="/add_adapter")
    assert added["name"] == "shared"
    client.close()
    carl = client_of(locked.url, headers=other)
    assert names(carl) == ["shared", "squad"]
    with pytest.raises(AppError, match="not this session's to change"):
        carl.predict("shared", api_name="/remove_adapter")
    carl.close()
    client = client_of(locked.url, headers=boss)
    with pytest.raises(AppError, match="sample pool"):
        client.predict("squad", api_name="/remove_adapter")
    client.predict("shared", api_name="/remove_adapter")
    assert names(client) == ["squad"]
    client.close()


def test_without_a_password_an_announced_upload_is_asked_for_it_first(locked):
    place = urlsplit(locked.url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as line:
        line.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n"
            b"Content-Length: 99999999999\r\n\r\n"
        )
        assert b" 401 " in line.recv(4096).partition(b"\r\n")[0]


def test_who_has_logged_in_does_all_as_before(locked):
    client = client_of(locked.url, auth=("ann", "secret"))
    assert client.predict("a b", api_name="/ask")[0] == "a b"
    assert [card["name"] for card in client.predict(api_name="/list_adapters")] == ["squad"]
    client.close()
    for wrong in (None, ("ann", "other"), ("", "")):
        with pytest.raises((AuthenticationError, ValueError)):
            client_of(locked.url, auth=wrong)
    assert "secret" not in locked.server.log.read_text()


def test_a_login_of_a_running_page_ends(tmp_path):
    soon = {"token_seconds": 1, "tidy_seconds": 0}
    with fake(tmp_path, variables=soon, auth="ann:secret") as page:
        with httpx.Client(base_url=page.url, timeout=60) as client:

            def told() -> int:
                return client.get("/gradio_api/info").status_code

            def logged_in() -> bool:
                assert client.post("/login", data=ANN).status_code == 200
                return told() == 200

            wait_until(logged_in)  # a login may be over before it is used
            wait_until(lambda: told() == 401)
            assert client.post("/login", data=ANN).status_code == 200
