"""A base with plain mixed layers in it, and adapters to be mixed: what gates are trained in."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from ramole_core.base.model import BaseModel, dequantised
from ramole_core.composition import (
    Adapter,
    Ask,
    Composition,
    Decision,
    Gate,
    Lora,
    Router,
    Sites,
    Trained,
    decide,
    even,
    orthonormal,
)
from ramole_core.layers.plain import MixedInstallation, Mixer, install, place
from ramole_core.methods import complete_options

Loras = Mapping[str, Mapping[str, Lora]]
"""Adapters by name, each its LoRA by module path."""
Shapes = Mapping[str, tuple[int, int]]
"""Module path -> (i, o)."""


class MixedModel:
    """The base is dequantised; base and adapters never change."""

    def __init__(
        self,
        base: BaseModel,
        *,
        loras: Loras,
        shapes: Shapes,
        checksums: Mapping[str, str] | None = None,
    ) -> None:
        """`checksums` of the adapters' content, by name; by default their names."""
        self.plain: PreTrainedModel = dequantised(base)
        self.names, self.shapes = tuple(loras), shapes
        self.sites = Sites(tuple(shapes), shapes)
        self._uploaded = loras
        self._adapters = {
            name: Adapter(
                name,
                checksums[name] if checksums else name,
                torch.tensor([path in modules for path in self.sites.paths]),
                {path: _packed(lora, base) for path, lora in modules.items()},
                max((lora.A.shape[0] for lora in modules.values()), default=0),
            )
            for name, modules in loras.items()
        }
        self._installed: MixedInstallation = install(self.plain, shapes)

    @property
    def mixer(self) -> Mixer:
        """Scores and weights of a forward that was asked to keep them."""
        return self._installed.mixer

    @contextmanager
    def mixing(
        self,
        method: Composition,
        trained: Trained | None,
        *,
        names: Sequence[str],
        watch: bool = False,
    ) -> Iterator[None]:
        """Forwards inside mix these adapters in every row as the method decides with these weights,
        which the gradient reaches. `watch` keeps scores and weights in `mixer`."""
        ask = Ask(
            tuple(self._adapters[name] for name in names),
            self.sites,
            complete_options(method.row.name, None),
            None,
            trained,
        )
        with self._placed(decide(method, ask), names, watch=watch):
            yield

    @contextmanager
    def gated_by(self, router: Router | None, *, names: Sequence[str]) -> Iterator[None]:
        """The same under this RouterLoRA; `None` is the uniform gate."""
        present = torch.stack([self._adapters[name].present for name in names], dim=1)
        with self._placed(Decision(even(present), gate=Gate(router=router)), names):
            yield

    @contextmanager
    def _placed(
        self, decision: Decision, names: Sequence[str], *, watch: bool = False
    ) -> Iterator[None]:
        mix = place(
            decision,
            [self._adapters[name].loras for name in names],
            self.sites,
            uploaded=[self._uploaded[name] for name in names],
        )
        with self.mixer.mixing([mix], trace=watch):
            yield

    def close(self) -> None:
        """Take the mixed layers out again."""
        self._installed.remove()


def _packed(lora: Lora, base: BaseModel) -> Lora:
    """As the engine holds it: B orthonormal, in the base's dtype."""
    packed = orthonormal(lora)
    return Lora(A=packed.A.to(base.device, base.dtype), B=packed.B.to(base.device, base.dtype))
