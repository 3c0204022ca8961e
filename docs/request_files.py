"""Which files of the core one request passes: those in which a function runs while it is answered.

    python docs/request_files.py [METHOD]

In every thread, from the request to its last token. The first request of a process is not counted:
it loads and compiles.
"""

import sys
import threading
from pathlib import Path
from types import FrameType

CORE = Path(__file__).resolve().parents[1] / "ramole_core"
sys.path.insert(0, str(CORE.parent))

from ramole_core import DEFAULT_METHOD, Ramole, Request, Settings  # noqa: E402

PROMPT = "Is this sentence positive or negative? A charming and often affecting journey."


def main() -> None:
    """Print the files, in the order in which the request reaches them, and their number."""
    seen: dict[str, None] = {}

    def watch(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(CORE)):
            seen.setdefault(str(Path(frame.f_code.co_filename).relative_to(CORE)))

    threading.setprofile(watch)  # in the threads that are started from here on: the engine's too
    sys.setprofile(watch)
    method = sys.argv[1] if len(sys.argv) > 1 else DEFAULT_METHOD
    with Ramole(Settings()) as ramole:
        ramole.generate([Request("warm up", method=method, max_new_tokens=3)])
        seen.clear()
        ramole.generate([Request(PROMPT, method=method, max_new_tokens=4)])
        found = list(seen)
    print(*found, sep="\n")
    print(f"{len(found)} files")


if __name__ == "__main__":
    main()
