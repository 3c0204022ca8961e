"""Comes before everything that the tests import."""

import tests.signatures


def pytest_runtest_setup() -> None:
    tests.signatures.CALLS.clear()
