"""The half of `Ramole` that needs no model: pool, retrieval, mixes, trained weights.

Opening it reads the pool's cards, nothing else; the index and the sentence encoder load on first
use.
"""

import hashlib
import json
from collections.abc import Iterable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Self

from ramole_core.base.hub_name import hub_name
from ramole_core.errors import RamoleError, WrongField
from ramole_core.hub import Hub
from ramole_core.methods import Method, find_row
from ramole_core.mixes import Mix, Mixes
from ramole_core.own_model import shapes_of
from ramole_core.pool import Limits, Pool
from ramole_core.pool.disk import closed_on_error
from ramole_core.prepack import Prepack
from ramole_core.request import Generation, Request
from ramole_core.request_parts import has_half
from ramole_core.retrieval import AdapterIndex, BaseExpert, Encoder, Hit, Retriever
from ramole_core.selection.finder import Finder
from ramole_core.selection.parts import Parts
from ramole_core.selection.prepare import Preparation
from ramole_core.selection.selector import Selector
from ramole_core.settings import Settings
from ramole_core.weights_here import WeightsHere

if TYPE_CHECKING:
    from ramole_core.composition import Composition, Trained
    from ramole_core.composition.trained import WeightsFolder


class OpenedPool:
    """An opened data folder and what is found in it."""

    def __init__(self, settings: Settings):
        self._closed = False
        s = self.settings = settings
        shapes = partial(shapes_of, s)
        self._here = WeightsHere(s.adapters_dir, base_model=s.base_model, data_dir=s.data_dir)
        self.pool = Pool(
            adapters_dir=s.adapters_dir,
            data_dir=s.data_dir,
            shapes=shapes,
            limits=Limits(
                max_upload_mb=s.max_upload_mb, max_rank=s.max_rank, max_adapters=s.max_adapters
            ),
            shared_uploads=s.shared_uploads,
            base_name=hub_name(s.hub_base or s.base_model),
        )
        with closed_on_error(self.pool):
            encoder = Encoder(s.encoder, data_dir=s.data_dir, adapter=s.trained("_retriever"))
            self.retriever = Retriever(
                pool=self.pool,
                encoder=encoder,
                index=AdapterIndex(data_dir=s.data_dir, url=s.chroma_url),
            )
            self.base_expert = BaseExpert(
                self.retriever, folder=s.trained("_base"), base=lambda: self.base_kind
            )
            self.hub = Hub(
                self.pool,
                self.retriever,
                encoder=encoder,
                shapes=shapes,
                settings=s,
            )
            """The Hub's adapters of this base, that may come into the pool."""
            self._mixes = Mixes(s.data_dir)
            finder = Finder(
                self.pool,
                self.retriever,
                hub=self.hub,
                base=self.base_expert,
                weights=self.weights_of,
            )
            self._selector = Selector(
                finder, self.retriever, base=self.base_expert, max_new_tokens=s.max_new_tokens
            )
            self.packing = Prepack(finder.candidate, folder=s.data_dir)
            """Packs adapters without examples ahead of requests."""
            self.pool.listeners += [self.retriever, self.packing]
            self._parts = Parts(self.pool, self.retriever, base=self.base_expert)
            self._preparation = Preparation(self._selector, finder, self._parts, self._mixes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close index and data folder; later calls raise RamoleError."""
        self._closed = True
        self.retriever.close()
        self.hub.close()
        self.pool.close()

    def methods(self) -> tuple[Method, ...]:
        """The composition methods that can answer here: name, paper, one line on what each does,
        options. One whose trained weights are not there, or of another base model, is left out;
        requested by name, its error has the command that trains it."""
        return self._here.methods()

    def retrieve(
        self, text: str, k: int = 3, exclude: Iterable[str] = (), owner: str | None = None
    ) -> list[Hit]:
        """The k adapters whose vectors are nearest to the text's, best first (cosine)."""
        self._refuse_closed()
        if has_half(text):
            raise WrongField("text", f"={text[:60]!r} has half a character in it; send whole ones.")
        return self.retriever.retrieve(text, k=k, exclude=tuple(exclude), owner=owner)

    def neighbours(self, name: str, k: int = 3, owner: str | None = None) -> list[Hit]:
        """The k adapters nearest to this one, itself left out."""
        self._refuse_closed()
        return self.retriever.neighbours(self.pool.card(name, owner), k=k, owner=owner)

    @property
    def router_checksum(self) -> str | None:
        """SHA-256 of the trained router's file, None where there is none."""
        return self.weights_checksums().get("ramole")

    def weights_checksums(self) -> dict[str, str]:
        """SHA-256 of the trained weights of each method that has some."""
        found = self._weights_folder.checksums()
        return {name: one for name, one in found.items() if self._here.fits(find_row(name))}

    def check(self, request: Request) -> None:
        """Raise RamoleError where the request cannot run, as far as is known without the model."""
        if request.mix is not None:  # it says method and adapters itself
            self._mixes.get(request.mix, request.owner)
            return
        for turn in request.turns:
            self._here.require(find_row(turn.method))
        self._selector.check(request)

    def parts(self, request: Request) -> tuple[str, ...]:
        """The parts of the request's prompt that are answered one after another; the prompt alone
        where it is answered as a whole."""
        return self._parts.of(request)

    def keep_mix(self, name: str, answer: Generation, owner: str | None = None) -> Mix:
        """Keep the weights that a search found, under a name that `Request.mix` takes.

        Raises RamoleError where the answer has none, or the name is taken.
        """
        return self._mixes.keep(name, answer, owner)

    def check_mix_name(self, name: str, owner: str | None = None) -> None:
        """Raise RamoleError where `keep_mix` could not keep a mix of this name."""
        self._mixes.free_name(name, owner)

    def mixes(self, owner: str | None = None) -> list[Mix]:
        """The mixes that were kept: the owner's and the shared ones."""
        return self._mixes.all(owner)

    def remove_mix(self, name: str, owner: str | None = None) -> None:
        """Remove one of the owner's mixes."""
        self._mixes.remove(name, owner)

    def mix_owners(self) -> set[str]:
        """All owners of mixes."""
        return self._mixes.owners()

    def remove_mixes(self, owner: str) -> int:
        """Remove all of the owner's own mixes; returns how many."""
        return self._mixes.remove_all(owner)

    def weights_of(self, method: "Composition") -> "Trained | None":
        """A method's trained weights; None where it has none."""
        if method.needs_weights:
            self._here.check(method.row)
        elif not self._here.fits(method.row):
            return None
        return self._weights_folder.get(method.row, needed=method.needs_weights)

    @cached_property
    def _weights_folder(self) -> "WeightsFolder":
        from ramole_core.composition.trained import WeightsFolder

        return WeightsFolder(self.settings.adapters_dir, own=self.settings.trained_dir)

    @cached_property
    def base_kind(self) -> str:
        """16 hex digits that stand for the base model's layers and their sizes: the same weights in
        another precision, or in another folder, are of one kind."""
        text = json.dumps(sorted(shapes_of(self.settings).items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _refuse_closed(self) -> None:
        if self._closed:
            raise RamoleError("This Ramole is closed; open another one.")
