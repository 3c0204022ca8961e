"""The routes under `/v1`: authorisation, requests, and answers, whole or streamed."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from starlette.requests import ClientDisconnect, Request as Http
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from ramole_core import Ramole, Step

from ..model.loading import FAILED, loading_of
from ..model.reading import HEARTBEAT_SECONDS
from ..model.spaces import ELSEWHERE
from ..session.accounts import Accounts, TooManyTries
from ..session.address import address_of
from ..session.owner import secret_owner
from ..session.quota import quota_of
from .call import read_call, read_prompts
from .completion import Answered, Completion, TextCompletion, with_text
from .embeddings import embed, read_texts
from .errors import Refused, refused
from .models import find_model, list_models
from .parameters import Call
from .running import RequestSlots, Running

LOADING_RETRY_SECONDS = 5
"""Retry-After while the model loads, in seconds."""
CLIENT_CLOSED = 499
"""Status of an answer whose client has gone."""
Endpoint = Callable[[Http], Awaitable[Response]]


def openai_routes(ramole: Ramole, accounts: Accounts) -> list[BaseRoute]:
    """The routes of `/v1`; `accounts` are the page's."""
    door = Door(ramole, accounts)
    guarded = door.guarded
    anything = ["GET", "POST", "PUT", "DELETE", "PATCH"]
    return [  # one by one: behind a proxy under a path, Starlette loses its way in a Mount
        Route("/v1/models", guarded(door.models)),
        Route("/v1/models/{name:path}", guarded(door.model)),
        Route("/v1/chat/completions", guarded(door.chat), methods=["POST"]),
        Route("/v1/completions", guarded(door.completions), methods=["POST"]),
        Route("/v1/embeddings", guarded(door.embeddings), methods=["POST"]),
        Route("/v1/{path:path}", guarded(door.other), methods=anything),
    ]


async def check_key(accounts: Accounts, http: Http) -> None:
    """Check the key or password of a call, as API key or Basic; raises Refused where it is invalid,
    or where too many tries are waiting."""
    if not accounts:
        return
    try:
        caller = await accounts.caller(http.headers.get("authorization"), address_of(http.headers))
    except TooManyTries as many:
        raise Refused(
            "Too many passwords for this user are being tried; try again in a moment.",
            status=429,
            code="guesses",
            retry_after=max(1, round(many.seconds)),
        ) from None
    if caller is None:
        raise Refused(
            "This server asks for a password or key; send a key that its operator gave you, or "
            "user:password, as the API key (Authorization: Bearer KEY), or as Basic.",
            status=401,
            code="invalid_api_key",
        )


class Door:
    """The endpoints; errors are in OpenAI's format."""

    def __init__(self, ramole: Ramole, accounts: Accounts):
        settings = ramole.settings
        self.ramole, self.accounts = ramole, accounts
        self.presence = quota_of(ramole).presence
        self.places = RequestSlots(settings.max_batch + settings.max_queue)
        self.embedding = asyncio.Semaphore(1)

    def guarded(self, endpoint: Endpoint) -> Endpoint:
        """Wrap an endpoint: check the caller, and return its errors as responses."""

        async def answer(http: Http) -> Response:
            try:
                await check_key(self.accounts, http)
                self.presence.seen(secret_owner(http.headers))
                return await endpoint(http)
            except ClientDisconnect:
                return Response(status_code=CLIENT_CLOSED)
            except Exception as error:
                return refused(error).response

        return answer

    async def models(self, http: Http) -> Response:
        found = list_models(self.ramole, secret_owner(http.headers))
        return JSONResponse({"object": "list", "data": found})

    async def model(self, http: Http) -> Response:
        owner = secret_owner(http.headers)
        return JSONResponse(find_model(http.path_params["name"], self.ramole, owner))

    async def other(self, http: Http) -> Response:
        """Refuse other routes of OpenAI's API."""
        raise Refused(
            f"{http.method} {http.url.path[:80]!r} is not served here; there are GET /v1/models, "
            "POST /v1/chat/completions, /v1/completions and /v1/embeddings.",
            status=404,
            code="unknown_url",
        )

    async def chat(self, http: Http) -> Response:
        call = read_call(await _json(http), self.ramole, secret_owner(http.headers))
        self._refuse_unready()
        return await self._answered(http, call, Completion(call, self.ramole.spell))

    async def completions(self, http: Http) -> Response:
        body = await _json(http)
        self._refuse_unready()
        call = read_prompts(body, self.ramole, secret_owner(http.headers))
        return await self._answered(http, call, TextCompletion(call, self.ramole.spell))

    async def embeddings(self, http: Http) -> Response:
        """Embed texts, for one call at a time."""
        asked = read_texts(await _json(http))
        self.places.take()
        try:
            async with self.embedding:
                return JSONResponse(await asyncio.to_thread(embed, asked, self.ramole))
        finally:
            self.places.give_back()

    async def _answered(self, http: Http, call: Call, completion: Completion) -> Response:
        owner = secret_owner(http.headers)
        running = Running(
            self.ramole, call.requests, address=address_of(http.headers), places=self.places
        )
        pictures = running.looks(self.presence.alive(owner))
        async for _ in pictures:
            if await http.is_disconnected():
                await pictures.aclose()
                return Response(status_code=CLIENT_CLOSED)
            if call.stream and (any(running.steps) or running.place):
                break  # it is accepted; what fails before that has a status of its own
        if call.stream:
            return StreamingResponse(
                _events(http, completion, running, pictures),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
            )
        return JSONResponse(completion.whole(_finished(running)))

    def _refuse_unready(self) -> None:
        loading = loading_of(self.ramole)
        if loading.error:
            sentence = FAILED if {"/", "\\"} & {*loading.error} else loading.error  # no path
            loading.start()
            raise Refused(sentence, status=503, code="model_not_loaded")
        if not loading.ready:
            loading.start()
            raise Refused(
                f"The model is loading ({loading.stage}, {loading.fraction:.0%}); ask again in a "
                "moment.",
                status=503,
                code="model_loading",
                retry_after=LOADING_RETRY_SECONDS,
            )
        if ELSEWHERE:
            raise Refused(
                "This Space lends its GPU to calls of the page and of Gradio's API alone; ask "
                "/ask.",
                status=503,
                code="gpu_elsewhere",
            )


async def _events(
    http: Http, completion: Completion, running: Running, pictures: AsyncGenerator[None, None]
) -> AsyncGenerator[str, None]:
    """Stream the answers as server-sent events, with comments to keep the connection alive."""
    grown = [_Grown(running, n) for n in range(len(running.requests))]
    said = time.monotonic()
    for n in range(len(grown)):
        if (first := completion.begin(n)) is not None:
            yield _event(first)
    try:
        async with aclosing(pictures):
            async for _ in _at_once(pictures):
                if await http.is_disconnected():
                    return
                for n, one in enumerate(grown):
                    text, steps = one.take()
                    if text and not completion.call.bare:
                        said = time.monotonic()
                        yield _event(completion.chunk(n, text, steps))
                if time.monotonic() - said > HEARTBEAT_SECONDS:
                    said = time.monotonic()
                    yield f": place {running.place} in the queue\n\n"
        answers = _finished(running)
        for n, one in enumerate(answers):
            yield _event(completion.end(n, one, () if completion.call.bare else grown[n].waiting))
        if completion.call.usage:
            yield _event(completion.count(answers))
        yield "data: [DONE]\n\n"
    except Exception as error:
        yield _event(refused(error).body)


async def _at_once(pictures: AsyncGenerator[None, None]) -> AsyncGenerator[None, None]:
    """Yield once at once, then each picture: the first may be there already."""
    yield
    async for _ in pictures:
        yield


def _finished(running: Running) -> list[Answered]:
    """The answers; raises Refused where the server ended one."""
    answers = [running.answers[n] for n in range(len(running.requests))]
    if any(answer.finish_reason == "cancelled" for answer in answers):
        raise Refused(
            "The server was told to end, and this answer with it; ask again in a moment.",
            status=503,
            code="ending",
            retry_after=LOADING_RETRY_SECONDS,
        )
    return [Answered(*one) for one in zip(answers, running.requests, running.steps, strict=True)]


class _Grown:
    """The growth of an answer since the last update."""

    def __init__(self, running: Running, index: int):
        self._running, self._index, self._read = running, index, 0
        self.waiting: list[Step] = []
        """Tokens without text behind the last one that has some."""

    def take(self) -> tuple[str, list[Step]]:
        """Return its new part; tokens that end inside a character come with the next text."""
        steps = self._running.steps[self._index][self._read :]
        self._read += len(steps)
        every = [*self.waiting, *steps]
        new = [*with_text(every)]
        self.waiting = every[len(new) :]
        return "".join(step.text for step in new), new


def _event(said: dict) -> str:
    return f"data: {json.dumps(said, ensure_ascii=False, allow_nan=False)}\n\n"


async def _json(http: Http) -> object:
    """The body; raises Refused for one that is no JSON."""
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # which no foreign page may send unasked
        raise Refused(
            f"The body is {kind[:60] or 'of no type'}; send JSON, with Content-Type: "
            "application/json.",
            status=415,
        )
    try:
        return await http.json()
    except ValueError:
        raise Refused("The body is no JSON; send an object with model and what is asked.") from None
