"""The engine on the real base in NF4, with the sample adapters."""

from dataclasses import replace
from pathlib import Path

import torch

from ramole_core.base.model import load_base
from ramole_core.base.shapes import read_shapes
from ramole_core.composition import Lora, LoraSet
from ramole_core.composition.trained import WeightsFolder
from ramole_core.engine.engine import Engine, EngineSizes
from ramole_core.engine.request_state import RequestState
from ramole_core.pool import Limits, Pool
from ramole_core.settings import Settings
from tests.support.tiny_engine import Heard, TinyEngine


class RealEngine(TinyEngine):
    """As `TinyEngine`; an adapter's content is its name."""

    def __init__(self, folder: Path, data_dir: Path, sizes: EngineSizes | None = None):
        adapters = Settings.model_fields["adapters_dir"].default
        self.base = load_base(
            str(folder), data_dir=data_dir, device="cpu", quantization="nf4", dtype="bfloat16"
        )
        self.shapes = read_shapes(folder)
        self._pool = Pool(
            adapters_dir=adapters,
            data_dir=data_dir,
            shapes=lambda: self.shapes,
            limits=Limits(),
            read_only=True,
        )
        weights = WeightsFolder(adapters)
        kept = Settings().data_dir / "reference"  # known by its checksum, made once for this user
        self.engine = Engine(
            self.base,
            shapes=self.shapes,
            weights=lambda method: weights.get(method.row, needed=method.needs_weights),
            sizes=replace(sizes or EngineSizes(), reference_dir=kept),
        )
        self.heard: dict[RequestState, Heard] = {}

    def learn(self, named) -> None:
        """The weights that ship know what they know."""

    def content(self, name: str, version: int) -> str:
        return name

    def adapter(self, content: str, rank: int) -> LoraSet:
        tensors = self._pool.tensors(self._pool.card(content))
        return {path: Lora(A=A, B=B) for path, (A, B) in tensors.modules.items()}

    def count_tokens(self, text: str) -> int:
        return len(self.base.tokenizer(text)["input_ids"])


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The root of the mean squared difference of logits, as a share of their deviation."""
    return float((ours.float() - theirs).square().mean().sqrt() / theirs.std())
