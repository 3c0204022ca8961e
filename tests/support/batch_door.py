"""The fake system as the command `batch` opens it, without what only tests import.

A process that a test starts imports it in a second; PyTorch and transformers would take seven.
"""

from ramole_core.request import Generation
from tests.support.fake_ramole import FakeRamole


class Door(FakeRamole):
    """Rows of a call end in reverse order."""

    def __init__(self, **options):
        super().__init__(max_batch=1, **options)
        self.asked: list[list[str]] = []
        self.interrupts = 0

    def __exit__(self, *_: object) -> None:
        self.asked.append(["closed"])

    def stream_batch(self, requests, **options):
        self.asked.append([request.prompt for request in requests])
        ends = []
        for index, item in super().stream_batch(requests, **options):
            if isinstance(item, Generation):
                ends.insert(0, (index, item))
            else:
                yield index, item
        for number, end in enumerate(ends):
            if self.interrupts and number == self.interrupts:
                raise KeyboardInterrupt
            yield end
