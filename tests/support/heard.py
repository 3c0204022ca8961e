"""Words that are said one at a time: the next once the reader has the one before.

Both sides look into one folder, and no clock is needed to see that a stream comes as it is made.
"""

import time
from pathlib import Path

POLL_SECONDS = 0.01


class Heard:
    """While it is `begun`, whoever speaks waits for whoever reads."""

    def __init__(self, folder: Path):
        self._folder = folder

    def begin(self, *, patience: float) -> None:
        """From now on; after so many seconds the speaker goes on, and has given up."""
        self._folder.mkdir(exist_ok=True)
        for one in self._folder.iterdir():
            one.unlink()
        (self._folder / "patience").write_text(f"{patience}")

    def hear(self, count: int) -> None:
        """The reader has so many words."""
        (self._folder / f"{count}").touch()

    @property
    def given_up(self) -> bool:
        return (self._folder / "given up").exists()

    def end(self) -> None:
        (self._folder / "patience").unlink()

    def wait(self, count: int) -> None:
        """The speaker's: until the reader has so many."""
        patience = self._folder / "patience"
        try:
            until = time.monotonic() + float(patience.read_text())
        except FileNotFoundError:
            return
        while not (self._folder / f"{count}").exists() and not self.given_up:
            if time.monotonic() > until:
                (self._folder / "given up").touch()
            time.sleep(POLL_SECONDS)
