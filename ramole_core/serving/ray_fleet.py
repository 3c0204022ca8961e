"""The engines of a Ray cluster: one deployment, its replicas named by Serve's own ids.

Every call goes through Serve's handle, from a loop of its own: the page's threads wait for its
result.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from ramole_core.serving.fleet import EngineLost, Item
from ramole_core.serving.served_engine import Reply
from ramole_core.serving.wire import Job

log = logging.getLogger(__name__)
DEPLOYMENT = "Engine"
RETRY_SECONDS = 20.0
"""Time before a lost engine is called again, unless Serve lists it as live."""
LIVE: dict[str, tuple[str, ...]] = {}
"""Ids of the live replicas, by application; Serve's router writes them in this process."""
T = TypeVar("T")


class RayFleet:
    """`Fleet` over the replicas of an application of Ray Serve."""

    def __init__(self, application: str):
        self._application = application
        self._loop = asyncio.new_event_loop()
        self._lost: dict[str, float] = {}
        threading.Thread(target=self._loop.run_forever, name="fleet", daemon=True).start()
        self._handles: tuple[Any, Any] | None = None
        self._run(self._first_call())

    def keys(self) -> Sequence[str]:
        now = time.monotonic()
        there = LIVE.get(self._application, ())
        return [key for key in there if now - self._lost.get(key, -math.inf) >= RETRY_SECONDS]

    def call(self, key: str, name: str, *args: object) -> object:
        return self._run(self._call(key, name, *args)).result()

    def notify(self, key: str, name: str, *args: object) -> None:
        self._run(self._notify(key, name, *args))

    def answer(
        self, key: str, job: Job, receive: Callable[[Sequence[Item]], None]
    ) -> Callable[[], None]:
        self._run(self._answer(key, job, receive))

        return lambda: self.notify(key, "cancel", job.number)

    def close(self) -> None:
        self._run(self._end())

    async def _end(self) -> None:
        """Stop, and leave what still runs."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=1)
        self._loop.stop()

    def _run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _first_call(self) -> None:
        """Call once, so that Serve's router exists."""
        while True:
            try:
                await self._call("", "process")
                return
            except Exception as error:  # whatever Serve says of what is not deployed yet
                log.info("No engine can be asked yet: %s", type(error).__name__)
                self._handles = None
                await asyncio.sleep(0.5)

    async def _invoke(self) -> tuple[Any, Any]:
        if self._handles is None:
            try:
                handle = serve.get_deployment_handle(DEPLOYMENT, self._application)
            except RayServeException as error:
                raise EngineLost(self._application) from error
            self._handles = (
                handle.options(method_name="call"),
                handle.options(method_name="answer", stream=True),
            )
        return self._handles

    async def _call(self, key: str, name: str, *args: object) -> object:
        calls, _ = await self._invoke()
        try:
            reply: Reply = await calls.remote(key, name, *args)
        except (RayError, RayServeException) as error:
            raise self._translate(key, error) from None
        if reply.error is not None:
            raise reply.error
        return reply.value

    async def _notify(self, key: str, name: str, *args: object) -> None:
        with suppress(EngineLost, RuntimeError):  # then the stream says so
            await self._call(key, name, *args)

    async def _answer(self, key: str, job: Job, receive: Callable[[Sequence[Item]], None]) -> None:
        try:
            _, streams = await self._invoke()
            async for items in streams.remote(key, job):
                receive(items)
        except (RayError, RayServeException, EngineLost) as error:
            receive([self._translate(key, error)])
        except Exception as error:
            receive([error])

    def _translate(self, key: str, error: Exception) -> Exception:
        """Translate an error of Ray: the call failed, or the engine is gone."""
        if isinstance(error, RayTaskError) and not isinstance(error.cause, RayError):
            return RuntimeError(f"a call of an engine failed: {type(error.cause).__name__}")
        self._lost[key] = time.monotonic()
        return EngineLost(key)
