"""The register of listed and fetched adapters: two small files that outlive a restart.

    DATA_DIR/hub/listed.json   every repository with its card and verdict
    DATA_DIR/hub/fetched.json  names in the pool that came from it, and when each was used last

The truth on what can be served stays the pool's folders: a name without a folder is forgotten, and
where a file is broken or gone what was fetched is everyone's like any other adapter.
"""

import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import TypeAdapter

from ramole_core.base.files import read_json
from ramole_core.pool.card import AdapterCard, texts_of
from ramole_core.pool.manifest import write_json

SCHEMA = 1
T = TypeVar("T")
Verdict = Literal["fits", "checked", "refused"]


@dataclass(frozen=True)
class Listed:
    """One repository; retrieval finds it as it finds an adapter of the pool (`retrieval.Card`)."""

    repo: str
    """owner/name."""
    sha: str
    """The commit that was read, and the one that is fetched."""
    name: str
    """Its name in the pool."""
    licence: str | None = None
    downloads: int = 0
    bytes: int = 0
    """Bytes of its weights; 0 where they were not read."""
    rank: int = 0
    description: str = ""
    examples: tuple[str, ...] = ()
    verdict: Verdict = "fits"
    """`fits`: by the names and shapes of its tensors; `checked`: its weights came once and were
    read whole; `refused`."""
    reason: str = ""
    """Why it was refused."""

    @property
    def key(self) -> str:
        """Its id in the index of what is listed."""
        return self.repo

    @property
    def owner(self) -> str | None:
        """None: every user of the pool may use it."""
        return None

    @property
    def blind(self) -> bool:
        """Whether it shows no examples."""
        return not self.examples

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of its vector, as of an adapter of the pool."""
        return texts_of(self.examples, self.description, self.name)

    @property
    def source(self) -> str:
        """The argument of `Pool.add`."""
        return f"hf:{self.repo}@{self.sha}"

    def record(self) -> dict[str, object]:
        """For JSON."""
        return {**vars(self), "examples": list(self.examples)}


@dataclass(frozen=True)
class Fetched:
    """An adapter of the pool that came from what is listed."""

    repo: str
    sha: str
    name: str
    bytes: int
    used: float
    """Seconds since 1970."""
    ours: bool = True
    """False: a user had added the same before, so it is not removed with the list."""
    mark: str = ""
    """`mark_of` its card; '' in a file of an earlier version."""

    def made(self, card: AdapterCard) -> bool:
        """Whether the card of its name is its own, and not of another that has the name now."""
        if not self.mark:
            return any(self.sha in note for note in card.notes)
        return self.mark == mark_of(card)


def mark_of(card: AdapterCard) -> str:
    """Its content and time, which another adapter, or the same added anew, does not have."""
    return f"{card.content} {card.added}"


class Register:
    """Thread-safe; read on first use. Its cards, for retrieval, are the fetchable adapters."""

    def __init__(self, folder: Path, *, base: str):
        """`base`: the base's name on the Hub; a list of another base is ignored."""
        self._folder, self._base = folder, base
        self._lock = threading.RLock()
        self._listed: dict[str, Listed] | None = None
        self._fetched: dict[str, Fetched] = {}
        self.when: float | None = None
        """When it was listed, in seconds since 1970."""

    def all_cards(self) -> list[Listed]:
        """The cards that are not refused."""
        return [one for one in self.rows() if one.verdict != "refused"]

    def cards(self, owner: str | None = None) -> list[Listed]:
        """All cards: they are everyone's."""
        return self.all_cards()

    def rows(self) -> list[Listed]:
        """All rows, in listed order."""
        return list(self._read().values())

    def get(self, name: str) -> Listed | None:
        """Find by name in the pool, or by repository, with or without `hf:`."""
        repo = name.removeprefix("hf:").partition("@")[0]
        return next((one for one in self.rows() if name == one.name or repo == one.repo), None)

    def put(self, rows: Iterable[Listed]) -> None:
        """Add these, replacing those of the same repository."""
        with self._lock:
            self._listed = self._read() | {one.repo: one for one in rows}
            self._write()

    def keep_only(self, repos: Iterable[str], *, when: float) -> None:
        """Keep only these, in this order."""
        with self._lock:
            known = self._read()
            self._listed = {repo: known[repo] for repo in repos if repo in known}
            self.when = when
            self._write()

    def judge(self, one: Listed, *, reason: str = "") -> None:
        """Note the verdict on its weights: checked, or the reason of their refusal; where the file
        cannot be written, until the next start. Nothing where it is listed no more, or by another
        commit."""
        verdict = "refused" if reason else "checked"
        with self._lock, suppress(OSError):
            listed = self._read().get(one.repo)
            if listed is not None and listed.sha == one.sha:
                self.put([replace(one, verdict=verdict, reason=reason)])

    def fetched(self) -> list[Fetched]:
        """The fetched adapters, in no order."""
        self._read()
        return list(self._fetched.values())

    def note(self, came: Fetched) -> None:
        """Note that it is in the pool, or was used just now."""
        with self._lock:
            self._read()
            self._fetched[came.name] = came
            self._write_fetched()

    def touch(self, names: Sequence[str], *, now: float) -> None:
        """Mark these as used; written with the next change."""
        with self._lock:
            self._read()
            for name in names:
                if name in self._fetched:
                    self._fetched[name] = replace(self._fetched[name], used=now)

    def forget(self, name: str) -> None:
        """Note that it has left the pool; a failed write does no harm."""
        with self._lock, suppress(OSError):
            self._read()
            if self._fetched.pop(name, None) is not None:
                self._write_fetched()

    def _read(self) -> dict[str, Listed]:
        with self._lock:
            if self._listed is None:
                said = read_json(self._folder / "listed.json")
                mine = said.get("base") == self._base and said.get("schema") == SCHEMA
                rows = said.get("adapters") if mine else None
                self._listed = {one.repo: one for one in _sound(Listed, rows)}
                when = said.get("when")
                self.when = float(when) if mine and isinstance(when, int | float) else None
                came = read_json(self._folder / "fetched.json").get("fetched")
                self._fetched = {one.name: one for one in _sound(Fetched, came)}
            return self._listed

    def _write(self) -> None:
        rows = [one.record() for one in self._read().values()]
        said = {"schema": SCHEMA, "base": self._base, "when": self.when, "adapters": rows}
        write_json(self._folder / "listed.json", said, indent=None)

    def _write_fetched(self) -> None:
        write_json(
            self._folder / "fetched.json", {"fetched": [*map(asdict, self._fetched.values())]}
        )


def _sound(kind: type[T], rows: object) -> list[T]:
    """Return the intact rows of a file."""
    adapter, found = TypeAdapter(kind), []
    for row in rows if isinstance(rows, list) else []:
        with suppress(ValueError):
            found.append(adapter.validate_python(row))
    return found
