"""Limits of Gradio's cache of uploads: by address, and in all.

Files lie there until a handler takes them. Where one more would be too much, old ones go first,
those of the same address or of all; where all is full of young ones, those of the address that
holds most, as long as it holds more than the sender. Bytes of a running upload count as they come;
announced bytes delete nothing.

The folder is looked through at most so often that it costs a part of the time, and never under the
lock that every request takes; in between, sums are kept.
"""

import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from stat import S_ISREG
from threading import Lock

from .refusal import Refused, too_long
from .room import CachedFile, FileIndex, going, without

GRACE_SECONDS = 60.0
"""Seconds in which a file is kept for its sender."""
BYTES_PER_FILE = 2**16
"""Bytes of room for each allowed file, which bounds their number too."""
SCAN_SECONDS = 1.0
"""Seconds between two scans of the folder."""
FAST_SCAN_SECONDS = 0.05
"""A scan that takes at most so many seconds may run at any time."""
SCAN_REST_FACTOR = 10
"""Pause after a longer scan, over its duration."""
UNNAMED = "?"
"""Prefix of the stand-in for an unknown address, one for each upload."""
MIB = 2**20
BY_AGE = attrgetter("since")


class UploadCache:
    """The room in the cache; thread-safe."""

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
        self._lock, self._looking = Lock(), Lock()
        self._shelf = FileIndex()
        self._new: list[CachedFile] = []
        self._coming: Counter[str] = Counter()
        self._looked = -math.inf
        self._seen, self._took = float("-inf"), 0.0

    def check(self, address: str, size: int = 0, *, announced: bool = False) -> None:
        """Make room for so many bytes more, or only check that, where they are `announced`; raises
        Refused where there is none."""
        known = bool(address) and not address.startswith(UNNAMED)
        most = self._address_bytes if known else self._all_bytes
        if size > most:
            raise too_long(
                f"These files come to {size // MIB} MiB, and {most // MIB} are the "
                "most at a time; send fewer at once."
            )
        self._scan(SCAN_SECONDS)
        with self._lock:
            if self._fits(address, size, known):
                return
        self._scan(0)
        with self._lock:
            before, gone = self._clock() - GRACE_SECONDS, []
            if known:
                own = sorted((one for one in self._shelf if one.address == address), key=BY_AGE)
                coming = self._coming[address] + size
                gone = self._going(own, self._address_bytes, coming, before=before)
            if gone is None:
                raise Refused(
                    429,
                    f"Uploads from your address that nothing has used yet may come to "
                    f"{self._address_bytes // MIB} MiB; wait a minute and try again.",
                    retry=GRACE_SECONDS,
                    reason="uploads_full",
                )
            left = sorted(without(self._shelf, gone), key=BY_AGE)
            coming, asker = sum(self._coming.values()) + size, self._coming[address] + size
            more = self._going(left, self._all_bytes, coming, before=before, asker=(address, asker))
            if more is None:
                raise Refused(
                    503,
                    "The server has no room for uploads now; try again later.",
                    retry=GRACE_SECONDS,
                    reason="uploads_full",
                )
            if announced:
                return
            gone += more
            self._shelf.drop(*gone)
        _delete(gone)

    def tidy(self) -> None:
        """Delete the oldest files where they come to more than all may, those without an uploader
        first, such as downloads; scans at most once a second."""
        with self._lock:
            if 0 <= self._clock() - self._looked < SCAN_SECONDS:  # the clock may be set back
                return
            self._looked = self._clock()
        self._scan(0)
        with self._lock:
            if self._fits("", 0, False):
                return
            held = sorted(self._shelf, key=lambda one: (one.address != "", one.since))
            gone = self._going(held, self._all_bytes, 0, before=math.inf) or []
            self._shelf.drop(*gone)
        _delete(gone)

    def coming(self, address: str, size: int) -> None:
        """Count so many more arriving bytes, or fewer."""
        with self._lock:
            self._coming[address] += size
            if not self._coming[address]:
                del self._coming[address]

    def arrived(self, address: str, answer: bytes) -> None:
        """Record the sender of the files in Gradio's response."""
        with suppress(ValueError, TypeError):
            for path in map(Path, json.loads(answer)):
                with suppress(OSError), self._lock:
                    status = path.lstat()
                    one = CachedFile(path, status.st_size, status.st_mtime, address)
                    self._shelf.add(one)
                    self._new.append(one)

    def _scan(self, age: float) -> None:
        """Scan the folder, unless that was done in the last `age` seconds or is slow and was done
        lately."""
        with self._looking:
            began = time.monotonic()
            rest = SCAN_REST_FACTOR * self._took if self._took > FAST_SCAN_SECONDS else 0
            if began - self._seen < max(age, rest):
                return
            with self._lock:
                self._new = []
            found = self._held()
            with self._lock:
                whose = self._shelf.whose
                self._shelf = FileIndex(replace(one, address=whose(one.path)) for one in found)
                for one in self._new:
                    self._shelf.add(one)
            self._seen = time.monotonic()
            self._took = self._seen - began

    def _held(self) -> list[CachedFile]:
        now, found = self._clock(), []
        for path in everything_below(self._folder):
            try:
                status = path.lstat()
            except OSError:
                continue
            writing = path.parent == self._folder and now - status.st_mtime < GRACE_SECONDS
            if S_ISREG(status.st_mode) and not writing:  # what is written counts as it comes
                found.append(CachedFile(path, status.st_size, status.st_mtime, ""))
        return found

    def _fits(self, address: str, size: int, known: bool) -> bool:
        """Whether so many bytes more fit without deleting, by the sums."""
        shelf, coming = self._shelf, self._coming
        return (
            shelf.all_bytes + sum(coming.values()) + size <= self._all_bytes
            and len(shelf) <= self._all_bytes // BYTES_PER_FILE
            and not (
                known
                and (
                    shelf.bytes[address] + coming[address] + size > self._address_bytes
                    or shelf.files[address] > self._address_bytes // BYTES_PER_FILE
                )
            )
        )

    def _going(
        self,
        held: list[CachedFile],
        most: int,
        coming: int,
        *,
        before: float,
        asker: tuple[str, int] | None = None,
    ) -> list[CachedFile] | None:
        """The files, first ones first, none younger than `before`, to delete so that `coming` more
        bytes fit into `most`, and files into their number; None where that does not suffice. With
        an `asker`, an address and its own bytes to come, those of who holds more go after them."""
        gone: list[CachedFile] = []
        address, own = asker or (None, 0)
        for of, bound, size, asked in (
            (lambda one: one.bytes, most, coming, own),
            (lambda one: 1, most // BYTES_PER_FILE, 0, 0),
        ):
            more = going(held, size, bound, of=of, before=before, asker=address, asked=asked)
            if more is None:
                return None
            held, gone = without(held, more), gone + more
        return gone


def everything_below(folder: Path) -> Iterator[Path]:
    """Files and folders, those of a folder before it; what goes meanwhile is passed over."""
    for place, folders, files in os.walk(folder, topdown=False):
        yield from (Path(place, name) for name in (*files, *folders))


def _delete(files: Iterable[CachedFile]) -> None:
    for one in files:
        with suppress(OSError):
            one.path.unlink()
