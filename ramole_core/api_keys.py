"""Keys of users who call the server: a file of hashes, a line of JSON each.

A key is 256 random bits, so its SHA-256 reveals nothing of it and it cannot be guessed.
"""

import hashlib
import json
import re
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from ramole_core.errors import RamoleError
from ramole_core.whole_file import locked, replacing

PREFIX = "ramole_"
"""Beginning of every key."""
USER = re.compile(r"[A-Za-z0-9._@-]{1,64}")


@dataclass(frozen=True)
class ApiKey:
    """One key's line."""

    user: str
    sha256: str
    """SHA-256 of the key, in hexadecimal."""
    made: str
    """Day, as YYYY-MM-DD."""
    until: str | None = None
    """Its last valid day; None: it does not expire."""
    operator: bool = False
    """Adapters that a call with this key adds are everyone's, and stay."""

    def opens(self, today: date) -> bool:
        """Whether it is valid on this day."""
        return self.until is None or today <= date.fromisoformat(self.until)


def hash_of(key: str) -> str:
    """The hash of a key, as the file has it."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def read_keys(path: Path) -> list[ApiKey]:
    """The keys of a file; raises RamoleError for one that cannot be read."""
    try:
        lines = path.read_text("utf-8").splitlines()
        keys = [ApiKey(**json.loads(line)) for line in lines if line.strip()]
        for key in keys:
            key.opens(date.min)
        return keys
    except (OSError, ValueError, TypeError) as error:
        raise RamoleError(
            f"The file of keys {path} cannot be read ({type(error).__name__}); make one with "
            "`python -m ramole_core keys add NAME --file PATH`, or unset RAMOLE_KEYS_FILE."
        ) from None


def add_key(
    path: Path, user: str, *, today: date, days: int | None = None, operator: bool = False
) -> str:
    """Make a key for a user and write its hash into the file; the key is returned, and nowhere
    else. A user may have several. Raises RamoleError for a name that is none, or too many days."""
    if not USER.fullmatch(user):
        raise RamoleError(
            f"{user[:80]!r} is no name for a user; take up to 64 letters, digits and . _ @ -."
        )
    key = PREFIX + secrets.token_urlsafe(32)
    try:
        until = None if days is None else str(today + timedelta(days=days))
    except OverflowError:
        raise RamoleError(
            f"A key that is good for {days} days ends after the year 9999; give fewer days, or "
            "none for a key that does not expire."
        ) from None
    with locked(path):
        there = read_keys(path) if path.exists() else []
        _write(path, [*there, ApiKey(user, hash_of(key), str(today), until, operator)])
    return key


def remove_keys(path: Path, user: str) -> int:
    """Remove a user's keys; returns how many. Raises RamoleError where there is none."""
    read_keys(path)  # one that is not there is refused, and its folder not made
    with locked(path):
        there = read_keys(path)
        left = [key for key in there if key.user != user]
        if len(left) == len(there):
            known = ", ".join(sorted({key.user for key in there})) or "nobody"
            raise RamoleError(f"{user[:80]!r} has no key in {path}; there are keys of {known}.")
        _write(path, left)
    return len(there) - len(left)


def today() -> date:
    """The day in UTC, by which keys expire."""
    return datetime.now(UTC).date()


def _write(path: Path, keys: list[ApiKey]) -> None:
    with replacing(path, synced=True) as part:
        part.touch(0o600)
        part.write_text("".join(json.dumps(asdict(key)) + "\n" for key in keys), "utf-8")
