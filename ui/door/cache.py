"""How much may lie in Gradio's cache of uploads: from one address, and in all.

Files lie there until a handler takes them. Where one more would be too much, old ones go first,
those of the same address or of all; where all is full of young ones, those of the address that
holds most, as long as it holds more than who asks. Bytes on their way count as they come.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from threading import Lock

from .refusal import Refused

GRACE = 60.0
"""Seconds that a file is left to whoever sent it."""
SMALLEST = 2**16
"""Bytes that a file counts for at least: so the number of files is bounded too."""
BETWEEN = 1.0
"""Seconds between two looks for what is too much."""
MIB = 2**20


@dataclass(frozen=True)
class Held:
    """A file in the cache."""

    path: Path
    bytes: int
    since: float
    address: str


class UploadCache:
    """The room in the cache; every thread may use it."""

    def __init__(
        self,
        folder: Path,
        *,
        address_bytes: int,
        all_bytes: int,
        clock: Callable[[], float] = time.time,
    ):
        """At most `address_bytes` from one address, where it is known, and `all_bytes` in all."""
        self._folder = folder
        self._address_bytes, self._all_bytes = address_bytes, all_bytes
        self._clock = clock
        self._lock = Lock()
        self._whose: dict[Path, str] = {}
        self._coming: Counter[str] = Counter()
        self._looked = 0.0

    def check(self, address: str, size: int = 0) -> None:
        """Make room for so many bytes more; raises Refused where there is none."""
        if address and size > self._address_bytes:
            raise Refused(
                413,
                f"These files come to {size // MIB} MiB, and {self._address_bytes // MIB} are the "
                "most at a time; send fewer at once.",
                reason="too_long",
            )
        with self._lock:
            held = self._held()
            self._whose = {one.path: one.address for one in held}
            mine = [one for one in held if address and one.address == address]
            own = self._coming[address] + size if address else 0
            gone, fits = _oldest(mine, own, self._address_bytes, before=self._clock() - GRACE)
            if not fits:
                raise Refused(
                    429,
                    f"Uploads from your address that nothing has used yet may come to "
                    f"{self._address_bytes // MIB} MiB; wait a minute and try again.",
                    retry=GRACE,
                    reason="uploads_full",
                )
            left = [one for one in held if one not in gone]
            more, fits = self._in_all(left, address, size)
            if not fits:
                raise Refused(
                    503,
                    "The server has no room for uploads now; try again later.",
                    retry=GRACE,
                    reason="uploads_full",
                )
            for one in (*gone, *more):
                with suppress(OSError):
                    one.path.unlink()

    def tidy(self) -> None:
        """Delete the oldest files where they come to more than all may, those first that nobody
        uploaded, such as downloads; looks at most once a second."""
        with self._lock:
            if self._clock() - self._looked < BETWEEN:
                return
            self._looked = self._clock()
            held = self._held()
            total = sum(one.bytes for one in held)
            for one in sorted(held, key=lambda one: (one.address != "", one.since)):
                if total <= self._all_bytes:
                    return
                total -= one.bytes
                with suppress(OSError):
                    one.path.unlink()

    def coming(self, address: str, size: int) -> None:
        """So many bytes more are on their way, or fewer."""
        with self._lock:
            self._coming[address] += size
            if not self._coming[address]:
                del self._coming[address]

    def arrived(self, address: str, answer: bytes) -> None:
        """Remember who sent the files that Gradio's answer names."""
        with suppress(ValueError, TypeError):
            with self._lock:
                self._whose |= {Path(path): address for path in json.loads(answer)}

    def _held(self) -> list[Held]:
        now, found = self._clock(), []
        for path in everything_below(self._folder):
            try:
                status = path.lstat()
            except OSError:
                continue
            writing = path.parent == self._folder and now - status.st_mtime < GRACE
            if S_ISREG(status.st_mode) and not writing:  # what is written counts as it comes
                size = max(status.st_size, SMALLEST)
                found.append(Held(path, size, status.st_mtime, self._whose.get(path, "")))
        return found

    def _in_all(self, held: Sequence[Held], address: str, size: int) -> tuple[list[Held], bool]:
        """What goes so that all of it fits, and whether it does then."""
        coming = sum(self._coming.values()) + size
        gone, fits = _oldest(held, coming, self._all_bytes, before=self._clock() - GRACE)
        left = [one for one in held if one not in gone]
        uses = Counter[str]()
        for one in left:
            uses[one.address] += one.bytes
        asked = uses[address] + self._coming[address] + size
        for one in sorted(left, key=lambda one: one.since):
            if fits:
                break
            most = max(uses, key=uses.__getitem__)
            if most == address or uses[most] <= asked:
                break
            if one.address == most:
                gone.append(one)
                uses[most] -= one.bytes
                fits = sum(uses.values()) + coming <= self._all_bytes
        return gone, fits


def everything_below(folder: Path) -> Iterator[Path]:
    """Files and folders, those of a folder before it; what goes meanwhile is passed over."""
    for place, folders, files in os.walk(folder, topdown=False):
        yield from (Path(place, name) for name in (*files, *folders))


def _oldest(
    held: Sequence[Held], size: int, most: int, *, before: float
) -> tuple[list[Held], bool]:
    """The oldest files, none that came after `before`, that go so that `size` more fits into
    `most`; and whether it does then."""
    total, gone = sum(one.bytes for one in held) + size, []
    for one in sorted(held, key=lambda one: one.since):
        if total <= most or one.since > before:
            break
        gone.append(one)
        total -= one.bytes
    return gone, total <= most
