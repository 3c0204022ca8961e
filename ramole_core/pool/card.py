"""The card: all that is known of an adapter without reading its tensors."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

VECTOR_EXAMPLES = 20
"""Most example inputs that an adapter's vector is the mean of (LoraRetriever)."""


@dataclass(frozen=True)
class Limits:
    """The limits of an upload."""

    max_upload_mb: int = 64
    """Largest upload, packed or unpacked, in MiB."""
    max_rank: int = 256
    """Largest rank in any module."""
    max_adapters: int = 10_000
    """Most adapters in the pool, all owners together."""

    @property
    def bytes(self) -> int:
        return self.max_upload_mb * 2**20


@dataclass(frozen=True)
class AdapterCard:
    """One adapter of the pool."""

    name: str
    owner: str | None
    """None: everyone's, that is of the sample pool or added by the operator."""
    rank: int
    """Largest rank in any module."""
    ranks: dict[str, int]
    """By base module path."""
    modules: tuple[str, ...]
    """Short names such as `q_proj`, in the file's order."""
    layers: tuple[int, ...]
    scale: float
    """The largest alpha/r."""
    scales: dict[str, float]
    """By base module path."""
    dtype: str
    parameters: int
    bytes: int
    """Of adapter_model.safetensors."""
    sha256: str
    """Of adapter_model.safetensors."""
    base_model: str | None
    licence: str | None
    description: str
    notes: tuple[str, ...]
    examples: tuple[str, ...]
    added: str
    """ISO 8601, UTC."""
    vector_from: Literal["examples", "card", "name"]
    folder: Path
    sample: bool
    """Of the sample pool, which is read-only."""
    fits: str
    """Fingerprint of the base's linear layers that the shapes were checked against."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of the adapter's vector: at most 20 examples, else the model card's words, else
        the name."""
        return texts_of(self.examples, self.description, self.name)

    @property
    def blind(self) -> bool:
        """Whether it shows no examples, so that its vector is a poor guide to its task."""
        return not self.examples

    @property
    def key(self) -> str:
        """Stable id in the whole pool; a name holds no slash, so it is unambiguous."""
        return f"{self.owner or 'pool'}/{self.name}"

    @cached_property
    def content(self) -> str:
        """Checksum of weights and scales: two adapters may share weights and differ in scale."""
        return content_of(self.sha256, self.scales)

    def as_dict(self) -> dict[str, object]:
        """Every field for JSON, `key`, and the folder as a string."""
        fields = asdict(self)
        for field in ("modules", "layers", "notes", "examples"):
            fields[field] = list(fields[field])
        return {**fields, "key": self.key, "folder": str(self.folder)}


def texts_of(examples: tuple[str, ...], description: str, name: str) -> tuple[str, ...]:
    """The texts that an adapter's vector is made of."""
    if examples:
        return examples[:VECTOR_EXAMPLES]
    return (description or name.replace("_", " ").replace("-", " "),)


def content_of(sha256: str, scales: Mapping[str, float]) -> str:
    """Checksum of weights and scales."""
    said = repr(tuple(scales.values())).encode()
    return f"{sha256}-{hashlib.sha256(said).hexdigest()[:16]}"
