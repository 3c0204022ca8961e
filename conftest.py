"""Comes before everything that the tests import."""

import tests.support.signatures


def pytest_runtest_setup() -> None:
    tests.support.signatures.CALLS.clear()
