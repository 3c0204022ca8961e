"""Who goes in the midst of an answer is no fault of the page's; what is one stays one."""

import asyncio

import pytest
from ray.exceptions import RayActorError, TaskCancelledError

from ramole_core.serving.ray_leaving import with_leaving


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
        async with asyncio.timeout(5):
            await with_leaving(app)({"type": "http"}, receive, None)

    asyncio.run(run())
    return found


def test_a_visitor_who_goes_is_told_as_such():
    assert heard(TaskCancelledError()) == ["http.request", "http.disconnect", "http.disconnect"]


@pytest.mark.parametrize("fault", [RayActorError(), KeyError("words")])
def test_any_other_fault_is_one(fault):
    with pytest.raises(type(fault)):
        heard(fault)
