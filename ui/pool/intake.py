"""Add uploads to the pool, with a verdict on each."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from ramole_core import AdapterCard, Hit, Ramole, RamoleError

from ..session.quota import Quota
from ..session.uploads import ARCHIVE, Drop, group, taken
from ..watch.events import uploaded
from .cards import modules_in_words, ranks_in_words
from .declared import declared_name, free_name
from .details import neighbours_html, try_html, verdict_html

log = logging.getLogger(__name__)
UNNAMED = "my-adapter"
NO_NAME = (
    "These files do not say its name; to give it one, remove it, type the name and drop them again."
)


@dataclass(frozen=True)
class Verdict:
    """The verdict on one upload."""

    label: str
    card: AdapterCard | None
    """None: refused."""
    reason: str = ""
    """Why it was refused."""
    neighbours: tuple[Hit, ...] = ()
    known: bool = False
    """The same content was there already, and its card is this one."""
    unnamed: bool = False
    """Whether its files had no name, so that it has a default one."""

    @property
    def outcome(self) -> str:
        """`usable`, `usable with a note` or `refused`."""
        if self.card is None:
            return "refused"
        return "usable with a note" if self.card.notes else "usable"

    def as_html(self) -> str:
        if self.card is None:
            return verdict_html(self.label, self.outcome, self.reason)
        near = neighbours_html(self.neighbours)
        sentence = (
            f"It {'was' if self.known else 'is'} in the pool {'already ' if self.known else ''}"
            f"as {self.card.name}: {modules_in_words(self.card)}; "
            f"{ranks_in_words(self.card)}; scale {self.card.scale:.3g}."
        )
        if self.unnamed:
            sentence += f" {NO_NAME}"
        below = near + try_html(self.card)
        return verdict_html(self.label, self.outcome, sentence, notes=self.card.notes, near=below)


def judge(
    ramole: Ramole,
    quota: Quota,
    paths: Sequence[str],
    *,
    owner: str | None,
    address: str = "",
    name: str | None = None,
    examples: Sequence[str] = (),
    operator: bool = False,
) -> Iterator[Verdict]:
    """Add each uploaded adapter in turn and yield its verdict at once. An operator's is shared,
    stays, and takes no session's room.

    A name, and examples, can only be given to one adapter. The files leave Gradio's cache first and
    are gone when this ends.
    """

    def add(drop: Drop, name: str | None, examples: Sequence[str]) -> Verdict:
        room = nullcontext() if operator else quota.room(owner, drop.size, address=address)
        try:
            with room:
                there = {card.key for card in ramole.pool.all_cards()}
                card = ramole.pool.add(
                    drop.path,
                    name=name,
                    examples=list(examples) or None,
                    owner=owner,
                    may_replace=lambda old: operator or quota.owns(old, owner),
                )
                known = card.key in there
                if not known:
                    quota.added(card, owner)
        except RamoleError as error:
            return Verdict(drop.label, None, str(error))
        return Verdict(drop.label, card, neighbours=near(ramole, card, owner), known=known)

    try:
        with taken(paths) as files:
            drops = group(files, files[0].parent.parent / "loose") if files else []
            single = len(drops) == 1
            for drop in drops:
                used = {card.name for card in ramole.pool.cards(owner)}
                said = (name if single else None) or None
                if not said and drop.path.suffix.lower() != ARCHIVE:  # a zip has its own
                    said = declared_name(drop.path, taken=used)
                unnamed = said == ""
                said = free_name(UNNAMED, used) if unnamed else said
                verdict = add(drop, said, examples if single else ())
                uploaded("known" if verdict.known else verdict.outcome)
                yield replace(verdict, unnamed=unnamed and not verdict.known)
    except RamoleError as error:
        uploaded("refused")
        yield Verdict(_label(paths), None, str(error))


def _label(paths: Sequence[str]) -> str:
    """Names of the files, as far as they are some."""
    listed = paths if isinstance(paths, list | tuple) else ()
    names = [Path(path).name[:80] for path in listed[:3] if isinstance(path, str)]
    return ", ".join(names) or "Upload"


def near(ramole: Ramole, card: AdapterCard, owner: str | None) -> tuple[Hit, ...]:
    """The three nearest adapters; none where the index fails, which is no fault of the card."""
    try:
        return tuple(ramole.neighbours(card.name, k=3, owner=owner))
    except RamoleError as error:
        log.warning("No neighbours of an upload: %s", type(error).__name__)
        return ()
