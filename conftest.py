"""Comes before everything that the tests import."""

import tests.support.signatures

pytest_plugins = ["tests.support.report"]


def pytest_runtest_setup() -> None:
    tests.support.signatures.CALLS.clear()
