"""Accounts: users with a password (RAMOLE_AUTH) and users with keys (RAMOLE_KEYS_FILE).

Wrong passwords are counted by user and address. After some, each further try of that user from
there waits for its turn before it is compared, so who guesses is slow. The right password waits in
the same queue, of MAX_WAIT_SECONDS: nothing distinguishes it from a guess before it is compared,
and if the right one were let in out of turn, or past a full line, guesses would be as fast as they
are sent. A key is too long to be guessed: it is looked up at once, whatever tries are waiting.
"""

import asyncio
import base64
import binascii
import hmac
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from ramole_core import ApiKey, RamoleError, hash_of, read_keys, today

from .counts import shares

log = logging.getLogger(__name__)
TRIES = 10
"""Wrong passwords for one user from one address in SPAN_SECONDS that cost no waiting."""
TRIES_UNKNOWN = 100
"""The same from all addresses that are unknown."""
SPAN_SECONDS = 300.0
TRY_SECONDS, TRY_UNKNOWN_SECONDS = 2.0, 0.2
"""Time between two tries beyond that."""
MAX_WAIT_SECONDS = 60.0
"""Where more tries are under way at once than fit into that, one more is refused; proxies wait as
long for an answer."""
MAX_REMEMBERED = 4096
POLL_SECONDS = 2.0
"""Interval at which the file of keys is checked for changes."""
CALLER: ContextVar[str] = ContextVar("address of who logs in", default="")


class TooManyTries(Exception):
    def __init__(self, seconds: float):
        super().__init__()
        self.seconds = seconds
        """Seconds until the next try is compared."""


@dataclass
class Tried:
    """Wrong passwords of one user from one prefix."""

    at: list[float] = field(default_factory=list)
    free: float = -math.inf
    """Time at which the last waiting try is compared."""


class Tries:
    """Wrong passwords by user and address; bounded in memory."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._lock = Lock()
        self._tried: OrderedDict[tuple[str, str], Tried] = OrderedDict()

    def begin(self, user: str, address: str) -> tuple[float, float]:
        """Begin a try, wrong until `right` is called; returns (its number for `right`, seconds to
        wait). Raises TooManyTries."""
        now = self._clock()
        with self._lock:
            told = [(self._of(user, key, now), many) for key, many in shares(address) or (("", 1),)]
            most, every = (TRIES, TRY_SECONDS) if address else (TRIES_UNKNOWN, TRY_UNKNOWN_SECONDS)
            slow = [(tried, every / many) for tried, many in told if len(tried.at) >= most * many]
            turns = [max(now, tried.free) + pause for tried, pause in slow]
            wait = max(turns, default=now) - now
            if wait > MAX_WAIT_SECONDS:
                raise TooManyTries(wait - MAX_WAIT_SECONDS)
            for (tried, _), turn in zip(slow, turns, strict=True):
                tried.free = turn
            for tried, _ in told:
                tried.at.append(now)
        return now, wait

    def right(self, user: str, address: str, begun: float) -> None:
        """Mark the try `begun` as right; others stay, which may be guesses at another user's
        password."""
        with self._lock:
            for key, _ in shares(address) or (("", 1),):
                with suppress(KeyError, ValueError):
                    self._tried[user, key].at.remove(begun)

    def _of(self, user: str, key: str, now: float) -> Tried:
        tried = self._tried.pop((user, key), None) or Tried()
        tried.at = [at for at in tried.at if now - at < SPAN_SECONDS][-10 * TRIES_UNKNOWN :]
        self._tried[user, key] = tried
        while len(self._tried) > MAX_REMEMBERED:
            self._tried.popitem(last=False)
        return tried


class KeyFile:
    """The keys of a file, reloaded when it changes; while it is unreadable the earlier ones
    stay."""

    def __init__(self, path: Path | None):
        """Raises RamoleError where it cannot be read."""
        self._path, self._looked, self._stamp = path, -math.inf, self._state(path)
        keys = () if path is None else read_keys(path)
        self._keys: dict[str, ApiKey] = {key.sha256: key for key in keys}

    def find(self, key: str) -> ApiKey | None:
        """This key's line; None for an unknown or expired one."""
        self._reload()
        found = self._keys.get(hash_of(key))
        return found if found is not None and found.opens(today()) else None

    def _reload(self) -> None:
        if self._path is None or time.monotonic() - self._looked < POLL_SECONDS:
            return
        self._looked = time.monotonic()
        if (stamp := self._state(self._path)) != self._stamp:
            self._stamp = stamp
            try:
                self._keys = {key.sha256: key for key in read_keys(self._path)}
            except RamoleError as error:
                log.warning("%s Those that were read before still hold.", error)

    @staticmethod
    def _state(path: Path | None) -> tuple[float, int] | None:
        with suppress(OSError):
            if path is not None:
                found = path.stat()
                return found.st_mtime, found.st_size
        return None


class Accounts:
    """All accounts; without any, access is open."""

    def __init__(
        self,
        passwords: Sequence[tuple[str, str]] = (),
        keys_file: Path | None = None,
        *,
        tries: Tries | None = None,
    ):
        """`passwords` are (user, password). Raises RamoleError for a file of keys that cannot be
        read."""
        self._known = [f"{user}:{password}".encode() for user, password in passwords]
        self._users = {user for user, _ in passwords}
        self._keys = KeyFile(keys_file)
        self._asks = bool(passwords) or keys_file is not None
        self._tries = tries or Tries()

    def __bool__(self) -> bool:
        """Whether logins are required."""
        return self._asks

    async def caller(self, authorization: str | None, address: str) -> str | None:
        """The user of this header, `Bearer KEY`, `Bearer user:password` or Basic; None for nobody.
        Raises TooManyTries."""
        given = _given(authorization or "")
        if (key := self._key(given)) is not None:
            return key.user
        return await self._opened(given, address) if b":" in given else None

    def is_operator(self, authorization: str | None) -> bool:
        """Whether this header brings an operator's key: what the call adds is everyone's."""
        key = self._key(_given(authorization or ""))
        return key is not None and key.operator

    async def log_in(self, user: str, password: str) -> bool:
        """Return whether the login is valid; a key is a password too. Raises TooManyTries."""
        key = self._keys.find(password)
        if key is not None and key.user == user:
            return True
        given = f"{user}:{password}".encode("utf-8", "replace")
        return await self._opened(given, CALLER.get()) is not None

    def _key(self, given: bytes) -> ApiKey | None:
        return self._keys.find(given.rpartition(b":")[2].decode("utf-8", "replace"))

    async def _opened(self, given: bytes, address: str) -> str | None:
        user = given.partition(b":")[0].decode("utf-8", "replace")
        counted = user if user in self._users else ""
        begun, wait = self._tries.begin(counted, address)
        if wait:
            await asyncio.sleep(wait)
        if not any([hmac.compare_digest(given, known) for known in self._known]):  # all: no timing
            return None
        self._tries.right(counted, address, begun)
        return user


@contextmanager
def calling_from(address: str):
    token = CALLER.set(address)
    try:
        yield
    finally:
        CALLER.reset(token)


def _given(header: str) -> bytes:
    """A key, or `user:password`, of an Authorization header; empty where there is none."""
    kind, _, rest = header.partition(" ")
    said = rest.strip().encode("latin-1", "replace")
    if kind.lower() == "bearer":
        return said
    if kind.lower() != "basic":
        return b""
    try:
        return base64.b64decode(said, validate=True)
    except binascii.Error:
        return b""
