"""RAMoLE's page: settings -> Ramole -> page -> launch. Torch is imported behind the open page."""

import logging
import os
import sys

from ramole_core import Ramole, RamoleError, keep_few_heaps, load_settings

from ui.temporary import CACHE  # isort: skip  before Gradio is imported
from ui import build
from ui.serve import serve
from ui.watch.quiet import quiet_logs


def main() -> int:
    """Serve until the process is told to end; one line and 2 where it cannot begin."""
    keep_few_heaps()
    quiet_logs()
    try:
        with Ramole(load_settings()) as ramole:
            serve(build(ramole), ramole)
    except RamoleError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    code = main()
    CACHE.cleanup()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # all is closed; to take Python apart piece by piece takes seconds more
