"""A listed adapter of the Hub: its repository's card, and whether it fits.

Nothing here is believed: every text is bounded and cleaned where it is read (`repository.py`), and
what the weights hold is looked at again, whole, when they come.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ramole_core.pool.card import texts_of

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
    """Of its weights; 0 where they were not reached."""
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


def read_listed(said: Mapping[str, object]) -> Listed:
    """Read what `record` made; raises ValueError, TypeError or KeyError for anything else."""
    verdict, licence, examples = said["verdict"], said["licence"], said["examples"]
    if verdict not in ("fits", "checked", "refused"):
        raise ValueError(f"verdict {verdict!r}")
    if not isinstance(examples, list):
        raise TypeError("examples is no list")
    return Listed(
        repo=str(said["repo"]),
        sha=str(said["sha"]),
        name=str(said["name"]),
        description=str(said["description"]),
        reason=str(said["reason"]),
        downloads=int(str(said["downloads"])),
        bytes=int(str(said["bytes"])),
        rank=int(str(said["rank"])),
        licence=None if licence is None else str(licence),
        examples=tuple(map(str, examples)),
        verdict=verdict,
    )
