"""How a call of the OpenAI door runs: for whom, how many at once, and when the server ends it."""

import asyncio
import contextlib
import threading
import time
from types import SimpleNamespace

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from ramole_core import Generation, Request, Step
from ramole_core.errors import Busy
from tests.support.fake_ramole import FakeRamole
from tests.support.serving import wait_until
from ui.model.loading import loading_of
from ui.openai import door, running
from ui.openai.running import RequestSlots
from ui.session.accounts import Accounts
from ui.session.address import Addresses
from ui.session.owner import owner_of

SAID = {"model": "base", "messages": [{"role": "user", "content": "hi"}]}
SECRET = {"x-ramole-session": "a long secret of mine"}


def ask(
    ramole, *, count: int = 1, came: list[httpx.Response] | None = None, **said
) -> list[httpx.Response]:
    """What so many calls at once are told, from one address; `came` has it as it comes."""
    routes = door.openai_routes(ramole, Accounts())
    app = Starlette(routes=routes, middleware=[Middleware(Addresses)])

    async def all_at_once():
        transport = httpx.ASGITransport(app, client=("203.0.113.9", 50000))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:

            async def call() -> httpx.Response:
                body = {**SAID, **said}
                told = await client.post("/v1/chat/completions", json=body, headers=SECRET)
                if came is not None:
                    came.append(told)
                return told

            return await asyncio.gather(*(call() for _ in range(count)))

    return asyncio.run(all_at_once())


@pytest.mark.parametrize("stream", [True, False])
def test_a_call_is_its_address_s_and_its_session_s(stream):
    ramole = FakeRamole()
    (told,) = ask(ramole, stream=stream)
    tab = SimpleNamespace(headers=SECRET, session_hash="any")
    assert told.status_code == 200 and ramole.addresses == ["203.0.113.9"]
    assert ramole.sessions == [owner_of(tab)] and ramole.requests[0].owner == owner_of(tab)


def test_more_than_may_be_on_their_way_are_told_to_come_again():
    came: list[httpx.Response] = []

    class Held(FakeRamole):
        def stream_batch(self, requests, **how):
            wait_until(lambda: len(came) >= 2, seconds=60)  # those that are refused
            yield from super().stream_batch(requests, **how)

    ramole = Held(max_batch=1, max_queue=1)
    codes = sorted(told.status_code for told in ask(ramole, count=4, came=came))
    assert codes == [200, 200, 429, 429] and ramole.batches == 2


def test_places_are_given_back_also_where_nothing_runs(monkeypatch):
    places = RequestSlots(1)
    for _ in range(3):
        places.take()
        with pytest.raises(Busy, match="1 requests are on their way"):
            places.take()
        places.give_back()

    def start(thread):
        raise RuntimeError("can't start new thread")

    async def run() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            running.Running(None, [Request("hi")], address="", places=places)

    with pytest.raises(RuntimeError, match="new thread"):
        asyncio.run(run())
    places.take()


def test_more_answers_than_all_places_are_refused_for_good():
    ramole = FakeRamole(max_batch=2, max_queue=1)
    (told,) = ask(ramole, n=4)
    assert told.status_code == 400 and "retry-after" not in told.headers
    assert told.json()["error"]["message"] == (
        "4 answers are asked for at once, and this server has 3 places; ask for fewer."
    )
    assert ask(ramole, n=3)[0].status_code == 200


class Half(FakeRamole):
    """Says one token, and then, once it may `go`, breaks or ends for a reason."""

    def __init__(self, end: str | Exception, *, waits: bool = False):
        super().__init__()
        self.end, self.go, self.let = end, threading.Event(), False
        if not waits:
            self.go.set()

    def stream_batch(self, requests, **how):
        time.sleep(0.05)
        yield 0, Step(1, "half", None)
        self.let = self.go.wait(60)
        if isinstance(self.end, Exception):
            raise self.end
        yield 0, Generation("half", [], [], None, self.end, 7, 1, 0.5, 0.25)


def test_the_first_token_waits_for_no_picture(monkeypatch):
    """However many streams there are, and however rare each one's pictures."""
    monkeypatch.setattr(running.PACE, "pause", lambda: 600.0)

    async def look() -> int:
        late, seen = Half("eos", waits=True), 0
        one = running.Running(late, [Request("hi")], address="", places=RequestSlots(1))
        async for _ in one.looks(contextlib.nullcontext()):
            seen = seen or len(one.steps[0])
            late.go.set()
        assert one.answers[0].text == "half"
        assert late.let, "the first picture came before the end"
        return seen

    assert asyncio.run(look()) == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("end", "status", "sentence"),
    [
        ("cancelled", 503, "was told to end"),
        (ZeroDivisionError("secret"), 500, "Something went wrong on the server"),
    ],
)
def test_half_an_answer_is_never_told_as_a_whole_one(end, status, sentence, stream):
    (told,) = ask(Half(end), stream=stream)
    assert sentence in told.text and "[DONE]" not in told.text and "secret" not in told.text
    assert '"finish_reason": "' not in told.text and told.status_code in (status, 200)
    assert told.status_code == status or stream


def test_where_a_gpu_is_lent_to_gradio_s_calls_alone_it_is_said(monkeypatch):
    monkeypatch.setattr(door, "ELSEWHERE", True)
    (told,) = ask(FakeRamole())
    assert (told.status_code, told.json()["error"]["code"]) == (503, "gpu_elsewhere")


@pytest.mark.parametrize("where", ["", " in {folder}"])
def test_a_model_that_could_not_be_loaded_says_why_without_a_path_of_the_server(where, tmp_path):
    ramole = FakeRamole(loaded=False)
    ramole.load_error = f"There is no such base{where.format(folder=tmp_path)}."
    first, *_ = ask(ramole)
    assert first.json()["error"]["code"] == "model_loading"
    assert loading_of(ramole).ended.wait(60)
    (told,) = ask(ramole)
    assert told.status_code == 503 and told.json()["error"]["code"] == "model_not_loaded"
    assert "retry-after" not in told.headers, "waiting is no help"
    if where:
        assert "/" not in told.text and "the server's log says why" in told.text
    else:
        assert told.json()["error"]["message"] == ramole.load_error


@pytest.mark.parametrize("end", ["eos", Busy("full")])
def test_what_ends_while_somebody_looks_is_looked_at_once_more(end):
    async def looks() -> int:
        system, seen = Half(end, waits=True), 0
        one = running.Running(system, [Request("hi")], address="", places=RequestSlots(1))
        async for _ in one.looks(contextlib.nullcontext()):
            seen += 1
            if seen == 1:
                system.go.set()
                await asyncio.to_thread(one.ended.wait, 60)
        return seen

    if end == "eos":
        assert asyncio.run(looks()) == 2, "one look after the end"
    else:
        with pytest.raises(Busy, match="full"):
            asyncio.run(looks())
