"""A fixture for the files whose engines are tiny and whose law is not of the everyday prompts.

Each engine reads all 48 when it is made, and measures every adapter on each of them: two seconds of
a core. Two of them give the same kinds of numbers. A file imports the fixture to use it.
"""

from collections.abc import Iterator

import pytest

from ramole_core.engine import reference


@pytest.fixture(scope="module", autouse=True)
def few_reference_prompts() -> Iterator[None]:
    """Two everyday prompts, for all engines of a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "PROMPTS", reference.PROMPTS[:2])
        yield
