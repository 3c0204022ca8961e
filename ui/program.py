"""The page as a program: settings -> Ramole -> page -> launch.

Torch is imported behind the open page.
"""

import logging
import os
import sys
from typing import NoReturn

import ui
from ramole_core import (
    Ramole,
    RamoleError,
    keep_few_heaps,
    load_settings,
    postponed_collection,
)

from .gradio_home import CACHE


def run(*, as_json: bool = False) -> NoReturn:
    """Serve until the process gets a signal to end; `as_json`: its address as JSON."""
    code = main(as_json=as_json)
    CACHE.cleanup()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # all is closed; to take Python apart piece by piece takes seconds more


def main(*, as_json: bool = False) -> int:
    """Serve until the process gets a signal to end; one line and status 2 where it cannot begin."""
    with postponed_collection():
        from .serve import serve
        from .watch.quiet import quiet_logs

    keep_few_heaps()
    quiet_logs()
    try:
        with Ramole(load_settings()) as ramole:
            with postponed_collection():
                page = ui.build(ramole)
            serve(page, ramole, as_json=as_json)
    except RamoleError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
