"""The pool: every adapter on disk, its cards in memory, adding and removing."""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ramole_core.errors import AdapterRefused, RamoleError
from ramole_core.pool.card import AdapterCard, Limits
from ramole_core.pool.disk import WriterLock, closed_on_error, refused_by_disk, usable_folder
from ramole_core.pool.examples_and_readme import EXAMPLES, check_examples, write_examples
from ramole_core.pool.inspection import fingerprint, inspect_folder, other_base, read_pairs
from ramole_core.pool.manifest import MANIFEST, record, renew
from ramole_core.pool.names import clean_name, free_name, near_names
from ramole_core.pool.sources import Source, stage_source
from ramole_core.pool.store import Store, link_file
from ramole_core.pool.uploads import Aside, Uploads, read_samples, without

if TYPE_CHECKING:
    from ramole_core.pool.tensors import AdapterTensors


class NameTaken(AdapterRefused):
    """Another adapter has the name; under a free one it may be added."""


class Pool(AbstractContextManager["Pool"]):
    """The sample pool (read-only) and all uploads. Opening it imports no torch."""

    def __init__(
        self,
        *,
        adapters_dir: Path,
        data_dir: Path,
        shapes: Callable[[], Mapping[str, tuple[int, int]]],
        limits: Limits | None = None,
        shared_uploads: bool = False,
        read_only: bool = False,
        base_name: str = "",
    ):
        """Read every card.

        `shapes` gives (i, o) of the base's linear layers by module path; it is called only when an
        adapter is added or its tensors are read. `read_only`: no lock is taken and nothing can be
        changed. `base_name`: the base's OWNER/NAME, which cards of other bases are compared with.
        Raises Busy when another process writes to `data_dir`, RamoleError when that is no
        folder that can be used.
        """
        self.limits = limits or Limits()
        self.shared_uploads = shared_uploads
        self._base_name = base_name
        self.problems: list[str] = []
        """A sentence for each folder that is on disk but cannot be served."""
        self._unfit: set[tuple[str | None, str]] = set()
        """Owner and name of adapters of another base: on disk, so their names stay taken."""
        self._shapes = shapes
        self._change = threading.RLock()
        self._store = Store(data_dir)
        self._uploads = Uploads(self._store)
        self.listeners = self._uploads.listeners
        self._writer: WriterLock | None = None
        self._samples, problems = read_samples(adapters_dir)
        with usable_folder(data_dir), closed_on_error(self):
            if not read_only:
                data_dir.mkdir(parents=True, exist_ok=True)
                self._writer = WriterLock(data_dir)
                self.problems += self._store.sweep()
            more = self._uploads.read()
        self.problems += problems + more

    def close(self) -> None:
        """Release the writer's lock; reading cards and tensors still works."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __exit__(self, *_: object) -> None:
        self.close()

    # Reading

    def all_cards(self) -> list[AdapterCard]:
        """All owners' cards, sample pool first."""
        return [*self._samples.values(), *self._uploads.cards.values()]

    def cards(self, owner: str | None = None) -> list[AdapterCard]:
        """The cards that `owner` may use, one a name, as `card` finds it: their own hides the
        shared one."""
        cards = self.all_cards()
        shared = {card.name: card for card in cards if card.owner is None}
        own = {card.name: card for card in cards if card.owner == owner}
        return list({**shared, **own}.values())

    def card(self, name: str, owner: str | None = None) -> AdapterCard:
        """The owner's adapter of that name, else the shared one; raises RamoleError."""
        own, shared = (owner, name), (None, name)
        uploads = self._uploads.cards
        found = uploads.get(own) or uploads.get(shared) or self._samples.get(shared)
        if found is None:
            known = (card.name for card in self.cards(owner))
            raise RamoleError(
                f"There is no adapter {name[:80]!r} in the pool; {near_names(name[:80], known)}"
            )
        return found

    def tensors(self, card: AdapterCard) -> "AdapterTensors":
        """The adapter's tensors, read from disk; raises RamoleError if its files were changed,
        AdapterRefused if it does not fit the base."""
        from ramole_core.pool.tensors import load_tensors

        return load_tensors(card, shapes=self._shapes())

    # Changing

    def add(
        self,
        path: Source,
        name: str | None = None,
        examples: Sequence[str] | None = None,
        owner: str | None = None,
        *,
        login: bool = True,
        may_replace: Callable[[AdapterCard], bool] = lambda card: True,
    ) -> AdapterCard:
        """Add the adapter at `path`, whole or not at all.

        The same content again returns the card that is there, with the new examples where there are
        some and `may_replace` allows it. `owner`: whose session it belongs to; None, or with
        `shared_uploads`, everyone. `login`: whether what is for everyone may be fetched with the
        operator's Hub login. Raises AdapterRefused with the reason.
        """
        self._check_writable()
        owner = self._owner(owner)
        wanted = clean_name(name) if name is not None else None
        self._check_room()
        with refused_by_disk("added"), self._store.stage() as stage:
            suggested, staged, example_notes = stage_source(
                path,
                stage,
                examples=examples,
                limits=self.limits,
                use_token=login and owner is None,
            )
            facts, notes = inspect_folder(stage, shapes=self._shapes(), limits=self.limits)
            notes += [*staged, *other_base(facts["base_model"], self._base_name)]
            if name is not None and wanted != name:
                notes.append(f"The name {name[:80]!r} was written as {wanted!r}.")
            recorded = partial(
                record, stage, facts, owner=owner, notes=notes, example_notes=example_notes
            )
            card = recorded(name=wanted or suggested)
            with self._change:
                self._check_writable()  # it may have been closed while this was fetched
                there = self._same_content(card)
                if there is None:
                    return self._publish(stage, card)
                same, own = card.examples in ((), there.examples), there.owner is not None
                if there.sample or (same and own) or not may_replace(there):
                    return there
                if same:
                    write_examples(stage, there.examples)
                # A shared one is added anew, so that one that the Hub had fetched is not evicted.
                card = recorded(name=there.name, added=there.added if own else None)
                return self._uploads.publish(stage, card, earlier=there)

    def remove(self, name: str, owner: str | None = None) -> None:
        """Remove an upload of `owner`'s; raises AdapterRefused for any other adapter, and where the
        disk refuses: then the card stays too."""
        if aside := self.set_aside(name, owner):
            aside.discard()

    def set_aside(self, name: str, owner: str | None = None) -> Aside | None:
        """Remove as `remove` does, but keeps the files, so that the adapter can be brought back;
        None for a damaged one, which is gone."""
        self._check_writable()
        owner = self._owner(owner)
        with self._change, refused_by_disk("removed"):
            card = self._uploads.cards.get((owner, name))
            if card is not None:
                return self._uploads.set_aside(card)
            self._remove_damaged(name, owner)
            return None

    def bring_back(self, aside: Aside) -> AdapterCard:
        """Restore what was set aside to the pool; raises AdapterRefused, and then it stays
        aside."""
        self._check_writable()
        card = aside.card
        with self._change, refused_by_disk("brought back"):
            if (there := self._same_content(card)) is not None:
                raise AdapterRefused(
                    f"{card.name} was added again meanwhile, as {there.name}; it is in the pool."
                )
            self._check_free(card, "the removed one cannot come back beside it; remove that first")
            return self._uploads.bring_back(aside)

    def set_examples(
        self, name: str, examples: Sequence[str], owner: str | None = None
    ) -> AdapterCard:
        """Replace the example inputs of an upload of `owner`'s; raises AdapterRefused, and then
        the upload is as it was."""
        self._check_writable()
        owner = self._owner(owner)
        kept, notes = check_examples(examples)
        with self._change, refused_by_disk("changed"):
            old = self._uploads.cards.get((owner, name))
            if old is None:
                raise self._not_yours(name, owner)
            with self._store.stage() as stage:
                for file in old.folder.iterdir():
                    if file.name not in (EXAMPLES, MANIFEST):
                        link_file(file, stage / file.name)
                write_examples(stage, kept)
                card = renew(stage, old.folder, example_notes=notes)
                return self._uploads.publish(stage, card, earlier=old)

    def leave_out_unfit(self) -> list[AdapterCard]:
        """Drop adapters of another base, which do not fit this one, from the cards (not from the
        disk); `problems` has the reason. Call it before the index is checked."""
        shapes = self._shapes()
        mark = fingerprint(shapes)
        unfit = []
        with self._change:
            for card in self.all_cards():
                if card.fits == mark:
                    continue
                try:
                    read_pairs(card.folder, shapes=shapes)
                except (AdapterRefused, OSError) as error:
                    self.problems.append(f"The adapter {card.name!r} is left out: {error}")
                    unfit.append(card)
            self._unfit |= {(card.owner, card.name) for card in unfit}
            self._samples = without(self._samples, unfit)
            self._uploads.cards = without(self._uploads.cards, unfit)
        return unfit

    def _publish(self, stage: Path, card: AdapterCard) -> AdapterCard:
        seen = (None, card.owner)  # names of others' uploads must not show through the numbers
        taken = (n for o, n in (*self._uploads.cards, *self._samples, *self._unfit) if o in seen)
        other = free_name(card.name, taken)
        self._check_free(
            card, f"give this one another name, {other!r} for instance, or remove that one first"
        )
        return self._uploads.publish(stage, card)

    def _check_free(self, card: AdapterCard, advice: str) -> None:
        """Raise AdapterRefused where the card's name is taken, or the pool is full."""
        key = (card.owner, card.name)
        if key in self._uploads.cards or key in self._samples:
            raise NameTaken(f"There is already another adapter named {card.name!r}; {advice}.")
        if key in self._unfit:
            raise NameTaken(f"An adapter of another base is named {card.name!r}; {advice}.")
        self._check_room()

    def _remove_damaged(self, name: str, owner: str | None) -> None:
        """Remove an upload without a card."""
        target = self._store.place(name, owner)
        if name != clean_name(name) or not target.is_dir():
            raise self._not_yours(name, owner)
        self._store.discard(self._store.hide(target))
        self._unfit.discard((owner, name))
        named = re.compile(rf"{re.escape(str(target))}(?![\w-])")
        self.problems = [problem for problem in self.problems if not named.search(problem)]

    def _same_content(self, card: AdapterCard) -> AdapterCard | None:
        cards = self.all_cards()
        same = (c for c in cards if c.owner == card.owner and c.content == card.content)
        return next(same, None)

    def _owner(self, owner: str | None) -> str | None:
        return None if self.shared_uploads else owner

    def _not_yours(self, name: str, owner: str | None) -> RamoleError:
        card = self.card(name, owner)
        whose = "of the sample pool, which is read-only" if card.sample else "everyone's"
        return AdapterRefused(
            f"The adapter {name!r} is {whose}; only uploads of your own can be changed or removed."
        )

    def _check_writable(self) -> None:
        if self._writer is None:
            raise RamoleError("The pool is open for reading only, or closed; open it for writing.")

    def _check_room(self) -> None:
        if len(self._samples) + len(self._uploads.cards) >= self.limits.max_adapters:
            raise AdapterRefused(
                f"The pool is full with {self.limits.max_adapters} adapters; remove one, or raise "
                "RAMOLE_MAX_ADAPTERS."
            )
