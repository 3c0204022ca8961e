"""Fitted thresholds: when the base answers in place of adapters, when a follow-up keeps them.

    the adapters answer    where  best - slope base                        >= threshold
      an upload of one's own:     best - slope base                        >= min(threshold, 0)
      in doubt (within `doubt` of it), where they were measured:
                                  best - slope base + own z + all mean z   >= threshold
    where some show no examples    all mean z - slope base                  >= threshold
    those of the turn before       go_on - slope base - gap (best - leader) >= threshold

best is the similarity of a text to its nearest adapter, base and go_on those to the two cards of
`own_cards.py`, leader that to the first adapter of the turn before; z is the nearest adapter's
surprise, mean z that of all that were examined. All of it hangs on the encoder; on the base model
only the lines with responses do. The adapters of the pool come and go without making it stale.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from ramole_core.errors import RamoleError
from ramole_core.whole_file import replacing

FILE = "calibration.json"
SCHEMA = 2


@dataclass(frozen=True)
class SimilarityLine:
    """The line by similarity alone."""

    slope: float = 1.0
    threshold: float = 0.0
    doubt: float = 0.0
    """Closer to the threshold than this, the adapters' responses decide, where there are any."""


@dataclass(frozen=True)
class ResponseLine:
    """The line by similarity and the adapters' responses."""

    slope: float = 1.0
    threshold: float = 0.0
    own: float = 0.0
    all: float = 0.0


@dataclass(frozen=True)
class BlindLine:
    """The line for adapters without examples, by responses; by default they always answer."""

    slope: float = 0.0
    threshold: float = 0.0
    all: float = 0.0


@dataclass(frozen=True)
class FollowUpLine:
    """The line for a follow-up message."""

    slope: float = 0.5
    gap: float = 0.5
    threshold: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """The numbers in use; only thresholds and weights of responses are fitted, and the defaults are
    the plain comparison: the nearest card wins."""

    alone: SimilarityLine = SimilarityLine()
    heard: ResponseLine = ResponseLine()
    blind: BlindLine = BlindLine()
    kept: FollowUpLine = FollowUpLine()
    encoder: str = ""
    """Checksum of the encoder that it holds for."""
    cards: str = ""
    """Checksum of the two cards."""
    base: str = ""
    """The kind of base model whose responses were measured (`Ramole.base_kind`); empty: none."""
    vectors: Mapping[str, list[float]] = field(default_factory=dict)
    """Vectors of the two cards: `everyday` and `going_on`."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """How it was fitted, and its results on held-out prompts."""

    def save(self, folder: Path) -> Path:
        """Write it atomically; returns the file."""
        file = folder / FILE
        said = {"schema": SCHEMA, **asdict(self)}
        vectors = json.dumps(said.pop("vectors"))  # on one line
        text = json.dumps(said, indent=1).removesuffix("\n}")
        with replacing(file) as part:
            part.write_text(f'{text},\n "vectors": {vectors}\n}}\n', "utf-8")
        return file

    def vector(self, card: str) -> Float32[np.ndarray, "d"]:
        """The vector of one of the two cards."""
        return np.array(self.vectors[card], np.float32)


PARTS = {"alone": SimilarityLine, "heard": ResponseLine, "blind": BlindLine, "kept": FollowUpLine}


def read_calibration(folder: Path) -> Calibration | None:
    """Read what `save` wrote; None where there is none. Raises RamoleError where it is broken."""
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        said = json.loads(file.read_text("utf-8"))
        if said.pop("schema") != SCHEMA or set(said) != {one.name for one in fields(Calibration)}:
            raise ValueError("it has other fields")
        for name, kind in PARTS.items():
            said[name] = kind(**{key: float(value) for key, value in said[name].items()})
        found = Calibration(**said)
        vectors = [found.vector(card) for card in ("everyday", "going_on")]
        if not all(np.isfinite(v).all() and v.ndim == 1 for v in vectors):
            raise ValueError("its vectors are not numbers")
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RamoleError(
            f"{file} cannot be read ({error}); run `python -m ramole_core calibrate` to make it "
            "anew, or delete it."
        ) from None
