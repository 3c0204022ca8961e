"""RAMoLE's page: settings -> Ramole -> page -> launch. Torch is imported behind the open page."""

import logging
import os
import sys
import tempfile

CACHE = tempfile.TemporaryDirectory(prefix="ramole-page-")
os.environ.setdefault("GRADIO_TEMP_DIR", CACHE.name)  # read when gradio is imported
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from ramole_core import Ramole, RamoleError, keep_few_heaps, load_settings  # noqa: E402
from ui import build  # noqa: E402
from ui.serve import serve  # noqa: E402
from ui.watch.quiet import quiet_logs  # noqa: E402


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
