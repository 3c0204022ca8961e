"""The files in the cache with running sums, and the choice of those to delete.

Bytes and files are two measures of the same room, each with a bound: thousands of empty files fill
the one and leave the other to large files.
"""

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CachedFile:
    """A file in the cache."""

    path: Path
    bytes: int
    since: float
    address: str


class FileIndex:
    """The files by path, with the bytes and the number of each address."""

    def __init__(self, files: Iterable[CachedFile] = ()):
        self._files: dict[Path, CachedFile] = {}
        self.bytes, self.files = Counter[str](), Counter[str]()
        self.all_bytes = 0
        for one in files:
            self.add(one)

    def __iter__(self) -> Iterator[CachedFile]:
        return iter(self._files.values())

    def __len__(self) -> int:
        return len(self._files)

    def whose(self, path: Path) -> str:
        """The address that sent it; '' where none did."""
        return self._files[path].address if path in self._files else ""

    def add(self, one: CachedFile) -> None:
        """One file more, or another state of it."""
        self.drop(one)
        self._files[one.path] = one
        self._count(one, 1)

    def drop(self, *files: CachedFile) -> None:
        """Remove files, by their paths."""
        for one in files:
            if (known := self._files.pop(one.path, None)) is not None:
                self._count(known, -1)

    def _count(self, one: CachedFile, sign: int) -> None:
        self.bytes[one.address] += sign * one.bytes
        self.files[one.address] += sign
        self.all_bytes += sign * one.bytes
        if not self.files[one.address]:
            del self.files[one.address], self.bytes[one.address]


def going(
    held: Sequence[CachedFile],
    size: int,
    most: int,
    *,
    of: Callable[[CachedFile], int],
    before: float,
    asker: str | None = None,
    asked: int = 0,
) -> list[CachedFile] | None:
    """The files to delete so that `size` more fits into `most`; None where that does not suffice.

    The first ones go, until one that came after `before`. With an `asker`, an address, then those
    of whoever holds most, the first ones first, as long as that is more than the asker would have:
    `asked`, and what it holds.
    """
    total, gone = sum(map(of, held)) + size, []
    for one in held:
        if total <= most or one.since > before:
            break
        gone.append(one)
        total -= of(one)
    files: defaultdict[str, deque[CachedFile]] = defaultdict(deque)
    uses = Counter[str]()
    for one in held[len(gone) :]:
        files[one.address].append(one)
        uses[one.address] += of(one)
    heap = [] if asker is None else [(-used, address) for address, used in uses.items()]
    heapq.heapify(heap)
    while total > most and heap:
        used, address = heapq.heappop(heap)
        if address == asker or -used <= asked + uses[asker or ""]:
            break
        one = files[address].popleft()
        gone.append(one)
        total -= of(one)
        if files[address]:
            heapq.heappush(heap, (used + of(one), address))
    return gone if total <= most else None


def without(held: Iterable[CachedFile], gone: Iterable[CachedFile]) -> list[CachedFile]:
    """The files that stay, in their order."""
    paths = {one.path for one in gone}
    return [one for one in held if one.path not in paths]
