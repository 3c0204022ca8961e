"""A base with plain mixed layers in it, and adapters to be mixed: what gates are trained in."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial

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
    Response,
    Router,
    Sites,
    Trained,
    decide,
    even,
    orthonormal,
)
from ramole_core.engine.reference import Reference, read_ends, response_of
from ramole_core.layers import Layout, Units, find_layout, pack_units
from ramole_core.layers.plain import MixedInstallation, Mixer, PlainMix, install, place
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
        self._packed: dict[str, Units] = {}
        self._tokenizer = base.tokenizer

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
        prompts: Sequence[Sequence[int]] | None = None,
        watch: bool = False,
    ) -> Iterator[None]:
        """Forwards inside mix these adapters in every row as the method decides with these weights,
        which the gradient reaches.

        `prompts` are the rows' own, for a method that decides by what the adapters answer to them.
        `watch` keeps scores and weights in `mixer`.
        """
        heard = self._responses(prompts, names) if prompts and method.examines else [{}]
        mixes = []
        for responses in heard:
            adapters = [
                replace(self._adapters[n], response=one, usual=one.usual if one else None)
                for n, one in ((n, responses.get(n)) for n in names)
            ]
            options = complete_options(method.row.name, None)
            ask = Ask(tuple(adapters), self.sites, options, None, trained)
            mixes.append(self._place(decide(method, ask), names))
        with self.mixer.mixing(mixes, trace=watch):
            yield

    @contextmanager
    def gated_by(
        self, router: Router | None, *, names: Sequence[str], watch: bool = False
    ) -> Iterator[None]:
        """The same under this RouterLoRA; `None` is the uniform gate."""
        present = torch.stack([self._adapters[name].present for name in names], dim=1)
        decision = Decision(even(present), gate=Gate(router=router))
        with self.mixer.mixing([self._place(decision, names)], trace=watch):
            yield

    def _place(self, decision: Decision, names: Sequence[str]) -> PlainMix:
        return place(
            decision,
            [self._adapters[name].loras for name in names],
            self.sites,
            uploaded=[self._uploaded[name] for name in names],
        )

    @torch.no_grad()
    def _responses(
        self, prompts: Sequence[Sequence[int]], names: Sequence[str]
    ) -> list[dict[str, Response]]:
        """What each adapter answers to the end of each prompt, as the bare base reads it."""
        inputs = read_ends(self.plain, self._layout, prompts)
        return [
            {name: response_of(self._units(name), [x[:, row] for x in inputs]) for name in names}
            for row in range(len(prompts))
        ]

    @cached_property
    def _layout(self) -> Layout:
        return find_layout(self.plain, self.shapes)

    @cached_property
    def _reference(self) -> Reference:
        return Reference(partial(read_ends, self.plain, self._layout), self._tokenizer)

    def _units(self, name: str) -> Units:
        """Packed, and measured against everyday inputs, as the engine does it."""
        if name not in self._packed:
            loras = self._adapters[name].loras
            units = pack_units(loras, self._layout, dtype=torch.float32)
            self._packed[name] = replace(units, usual=self._reference.measure(units))
        return self._packed[name]

    def close(self) -> None:
        """Take the mixed layers out again."""
        self._installed.remove()


def _packed(lora: Lora, base: BaseModel) -> Lora:
    """As the engine holds it: B orthonormal, in the base's dtype."""
    packed = orthonormal(lora)
    return Lora(A=packed.A.to(base.device, base.dtype), B=packed.B.to(base.device, base.dtype))
