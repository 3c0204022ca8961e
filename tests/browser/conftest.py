"""One Chromium a worker, and pages in it. Browser tests run last: Playwright keeps an event loop in
the thread that it started in, where later tests could start none of their own."""

import pytest


@pytest.fixture(scope="session")
def chromium():
    """The worker's browser."""
    from tests.support.browser import chromium_running

    with chromium_running() as browser:
        yield browser


@pytest.fixture
def visit(chromium):
    """Open a page in a fresh context; every request and page error is kept."""
    from tests.support.browser import visits

    with visits(chromium) as open_page:
        yield open_page
