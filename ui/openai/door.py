"""The routes under `/v1`: who may call, what is asked, and the answer, at once or as it grows."""

import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request as Http
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from ..model.loading import loading_of
from ..model.reading import BEAT
from ..model.spaces import ELSEWHERE
from ..session.accounts import Accounts
from ..session.address import address_of
from ..session.owner import secret_owner
from ..session.quota import quota_of
from .call import Call, read_call
from .completion import Completion
from .errors import Refused, refused
from .keys import check_key
from .models import list_models, model_object, read_model
from .running import Places, Running

if TYPE_CHECKING:
    from ramole_core import Generation, Ramole

LONGEST_BODY = 2 * 2**20
"""Bytes of a call: the longest prompt, each character escaped, with room for earlier turns."""
LOADING = 5
"""Seconds after which to ask again while the model loads."""
LEFT = 499
"""Status of an answer that nobody waits for."""
Endpoint = Callable[[Http], Awaitable[Response]]


def openai_routes(ramole: "Ramole", accounts: Accounts) -> list[BaseRoute]:
    """What `/v1` serves; `accounts` are those that the page asks for."""
    door = Door(ramole, accounts)
    told = door.told
    anything = ["GET", "POST", "PUT", "DELETE", "PATCH"]
    return [  # one by one: behind a proxy under a path, Starlette loses its way in a Mount
        Route("/v1/models", told(door.models)),
        Route("/v1/models/{name:path}", told(door.model)),
        Route("/v1/chat/completions", told(door.chat), methods=["POST"]),
        Route("/v1/{path:path}", told(door.other), methods=anything),
    ]


class Door:
    """The endpoints; each answers, or refuses in OpenAI's words."""

    def __init__(self, ramole: "Ramole", accounts: Accounts):
        settings = ramole.settings
        self.ramole, self.accounts = ramole, accounts
        self.presence = quota_of(ramole).presence
        self.places = Places(settings.max_batch + settings.max_queue)

    def told(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint for those who may call; what it raises becomes its answer."""

        async def answer(http: Http) -> Response:
            try:
                await check_key(self.accounts, http)
                self.presence.seen(secret_owner(http.headers))
                return await endpoint(http)
            except ClientDisconnect:
                return Response(status_code=LEFT)
            except Exception as error:
                return refused(error).response

        return answer

    async def models(self, http: Http) -> Response:
        """Everything that may be named."""
        found = list_models(self.ramole, secret_owner(http.headers))
        return JSONResponse({"object": "list", "data": found})

    async def model(self, http: Http) -> Response:
        """One of them."""
        name = http.path_params["name"]
        read_model(name, self.ramole, secret_owner(http.headers))
        return JSONResponse(model_object(name))

    async def other(self, http: Http) -> Response:
        """Whatever else OpenAI may have."""
        raise Refused(
            f"{http.method} {http.url.path[:80]!r} is not served here; there are GET /v1/models "
            "and POST /v1/chat/completions.",
            status=404,
            code="unknown_url",
        )

    async def chat(self, http: Http) -> Response:
        """One answer."""
        owner = secret_owner(http.headers)
        call = read_call(await _json(http), self.ramole, owner)
        self._refuse_unready()
        running = Running(
            self.ramole, call.request, address=address_of(http.headers), places=self.places
        )
        pictures = running.pictures(self.presence.alive(owner))
        async for _ in pictures:
            if await http.is_disconnected():
                await pictures.aclose()
                return Response(status_code=LEFT)
            if call.stream and (running.steps or running.place):
                break  # it is accepted; what fails before that has a status of its own
        if call.stream:
            return StreamingResponse(
                _events(http, call, running, pictures),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
            )
        answer = _finished(running)
        return JSONResponse(Completion(call.model).whole(answer, call.request, running.steps))

    def _refuse_unready(self) -> None:
        loading = loading_of(self.ramole)
        if loading.error:
            sentence = loading.error
            loading.start()
            raise Refused(sentence, status=503, code="model_not_loaded", retry_after=LOADING)
        if not loading.ready:
            loading.start()
            raise Refused(
                f"The model is loading ({loading.stage}, {loading.fraction:.0%}); ask again in a "
                "moment.",
                status=503,
                code="model_loading",
                retry_after=LOADING,
            )
        if ELSEWHERE:
            raise Refused(
                "This Space lends its GPU to calls of the page and of Gradio's API alone; ask "
                "/ask.",
                status=503,
                code="gpu_elsewhere",
            )


async def _events(
    http: Http, call: Call, running: Running, pictures: AsyncGenerator[None, None]
) -> AsyncGenerator[str, None]:
    """The answer as server-sent events; while nothing comes, a comment says that it is alive."""
    completion, grown = Completion(call.model, usage=call.usage), _Grown(running)
    yield _event(completion.chunk(role="assistant", content=""))
    try:
        async with aclosing(pictures):
            if text := grown.text():
                yield _event(completion.chunk(content=text))
            async for _ in pictures:
                if await http.is_disconnected():
                    return
                if text := grown.text():
                    yield _event(completion.chunk(content=text))
                elif grown.quiet():
                    yield f": place {running.place} in the queue\n\n"
        answer = _finished(running)
        yield _event(completion.end(answer, call.request, running.steps))
        if call.usage:
            yield _event(completion.count(answer))
        yield "data: [DONE]\n\n"
    except Exception as error:
        yield _event(refused(error).body)


def _finished(running: Running) -> "Generation":
    """The answer; raises Refused where the server ended it."""
    if running.answer.finish_reason == "cancelled":
        raise Refused(
            "The server was told to end, and this answer with it; ask again in a moment.",
            status=503,
            code="ending",
            retry_after=LOADING,
        )
    return running.answer


class _Grown:
    """By how much an answer has grown since somebody looked."""

    def __init__(self, running: Running):
        self._running, self._read, self._said = running, 0, time.monotonic()

    def text(self) -> str:
        """What is new of it."""
        steps = self._running.steps[self._read :]
        self._read += len(steps)
        text = "".join(step.text for step in steps)
        if text:
            self._said = time.monotonic()
        return text

    def quiet(self) -> bool:
        """Whether nothing was said for a while; asking counts as saying."""
        quiet = time.monotonic() - self._said > BEAT
        if quiet:
            self._said = time.monotonic()
        return quiet


def _event(said: dict) -> str:
    return f"data: {json.dumps(said, ensure_ascii=False, allow_nan=False)}\n\n"


async def _json(http: Http) -> object:
    """The body; raises Refused for one that is too long, or no JSON."""
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # which no foreign page may send unasked
        raise Refused(
            f"The body is {kind[:60] or 'of no type'}; send JSON, with Content-Type: "
            "application/json.",
            status=415,
        )
    body = bytearray()
    async for part in http.stream():
        body += part
        if len(body) > LONGEST_BODY:
            raise Refused(
                f"The body has more than {LONGEST_BODY} bytes, the most that is read; shorten it.",
                status=413,
            )
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError):
        raise Refused("The body is no JSON; send an object with model and messages.") from None
