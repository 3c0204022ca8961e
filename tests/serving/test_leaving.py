"""Who goes in the midst of an answer is no fault of the page's; what is one stays one."""

import asyncio
import logging
from concurrent.futures import Future

import pytest
import ray._raylet
from ray.exceptions import RayActorError, TaskCancelledError

from ramole_core.serving.ray_page import ignore_cancelled_results, with_leaving


def heard(raised: Exception) -> list[str]:
    """What an application receives that asks three times, where Serve raises after the body."""
    found, news = [], [{"type": "http.request"}, raised]

    async def receive():
        if not news:
            await asyncio.Event().wait()  # as Serve's does, once it has raised
        one = news.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    async def app(scope, receive, send):
        for _ in range(3):
            found.append((await receive())["type"])

    async def run():
        async with asyncio.timeout(120):
            await with_leaving(app)({"type": "http"}, receive, None)

    asyncio.run(run())
    return found


def test_a_visitor_who_goes_is_told_as_such():
    assert heard(TaskCancelledError()) == ["http.request", "http.disconnect", "http.disconnect"]


@pytest.mark.parametrize("fault", [RayActorError(), KeyError("words")])
def test_any_other_fault_is_one(fault):
    with pytest.raises(type(fault)):
        heard(fault)


def test_a_result_whose_future_was_cancelled_meanwhile_is_not_reported(caplog):
    """Ray's own logger, with what its callback meets there; any other fault is told."""
    ray_log = logging.getLogger(ray._raylet.__name__)  # pyright: ignore[reportAttributeAccessIssue]
    before = list(ray_log.filters)
    ignore_cancelled_results()
    try:
        for broken in (False, True):
            future = Future()
            future.cancel()
            try:
                future.set_exception(RayActorError()) if not broken else future.exception(None, 1)
            except Exception:
                ray_log.exception("failed to run async callback (user func)")
        assert [one.exc_info[0] for one in caplog.records if one.exc_info] == [TypeError]
    finally:
        ray_log.filters[:] = before
