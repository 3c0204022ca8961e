"""Count what tests start that is expensive: engines, page servers, browsers, clusters, processes.

Each start belongs to the folder of the test that is running. The counts stand at the end of a run
(`tests.support.report`), so that growth is seen.
"""

import functools
import sys
from collections import Counter

KINDS = ("engine", "server", "browser", "cluster", "process")
STARTED: Counter[tuple[str, str]] = Counter()
"""How often each kind was started, by folder of the test and kind."""


class Place:
    """The folder of the test that is running."""

    folder = "-"


def started(kind: str) -> None:
    """Count one start."""
    assert kind in KINDS, kind
    STARTED[Place.folder, kind] += 1


def count_processes() -> None:
    """Count every process that this one starts from here on, whoever starts it."""
    sys.addaudithook(lambda event, _: started("process") if event == "subprocess.Popen" else None)


def count_engines() -> None:
    """Count every engine that is built from here on."""
    from ramole_core.engine.engine import Engine

    build = Engine.__init__

    @functools.wraps(build)
    def counted(self, *arguments, **named):
        started("engine")
        build(self, *arguments, **named)

    Engine.__init__ = counted
