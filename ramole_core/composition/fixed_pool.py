"""What methods share that know a fixed pool: the adapters that they were trained on, no others."""

from collections.abc import Mapping, Sequence

from ramole_core.composition.decision import Ask
from ramole_core.composition.method import Candidate, Composition
from ramole_core.composition.trained import Trained, known_places


class FixedPool(Composition):
    """Takes all of its pool where none are named, and refuses an adapter that came later."""

    def pool(self, trained: Trained | None) -> Mapping[str, str] | None:
        return None if trained is None else trained.adapters

    def check(self, candidates: Sequence[Candidate], trained: Trained | None) -> None:
        if trained is not None:
            names = [(one.name, one.checksum) for one in candidates]
            known_places(trained, names, method=self.row.name)

    def places(self, ask: Ask) -> list[int]:
        """The place of each adapter among those of the trained weights."""
        assert ask.trained is not None  # the row names them
        names = [(one.name, one.checksum) for one in ask.adapters]
        return known_places(ask.trained, names, method=self.row.name)
