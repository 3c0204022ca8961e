"""Comes before everything that the tests import."""

import tests.signatures  # noqa: F401
