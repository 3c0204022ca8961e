"""A base with plain mixed layers and adapters, for training gates."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ramole_core.base.model import BaseModel, dequantised
from ramole_core.composition import (
    Adapter,
    Ask,
    Candidate,
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
    find_method,
    orthonormal,
)
from ramole_core.composition.lora import widened
from ramole_core.engine.layer_inputs import read_ends, read_means, response_of
from ramole_core.engine.reference import Reference
from ramole_core.layers import Layout, Units, find_layout, pack_units
from ramole_core.layers.plain import MixedInstallation, Mixer, PlainMix, install, place
from ramole_core.methods import complete_options

Loras = Mapping[str, Mapping[str, Lora]]
"""Adapters by name, each its LoRA by module path."""
Shapes = Mapping[str, tuple[int, int]]
"""Module path -> (i, o)."""


class MixedModel:
    """A dequantised base with mixed layers; base and adapters are frozen."""

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
            name: Adapter.of(
                name,
                checksums[name] if checksums else name,
                modules,
                self.sites,
                pack=lambda lora: _packed(lora, base),
            )
            for name, modules in loras.items()
        }
        self._installed: MixedInstallation = install(self.plain, shapes)
        self._packed: dict[str, Units] = {}
        self._tokenizer = base.tokenizer

    @property
    def mixer(self) -> Mixer:
        """The mixer, with scores and weights of a forward that keeps them."""
        return self._installed.mixer

    @contextmanager
    def mixing(
        self,
        method: Composition,
        trained: Trained | None,
        *,
        names: Sequence[Sequence[str]],
        prompts: Sequence[Sequence[int]] | None = None,
        watch: bool = False,
    ) -> Iterator[None]:
        """Mix each row's adapters in the forwards inside by the method with these weights, which
        get gradients.

        `names` are those of each row, or of all rows where there is one such list. `prompts` are
        the rows' own, for a method that decides by them, or by what the adapters answer to them.
        `watch` keeps scores and weights in `mixer`.
        """
        rows = [tuple(each) for each in names]
        replies: list[dict[str, Response]] | None = None
        means: list[dict[str, Tensor]] | None = None
        if prompts and (method.examines or method.reads_prompt):
            rows = rows * len(prompts) if len(rows) == 1 else rows
        if prompts and method.examines:
            replies = self._responses(prompts, list(dict.fromkeys(n for row in rows for n in row)))
        if prompts and method.reads_prompt:
            means = read_means(self.plain, self.sites.blocks, prompts)

        def decided(row: int, each: tuple[str, ...]) -> PlainMix:
            found = [replies[row].get(name) if replies else None for name in each]
            adapters = [
                replace(self._adapters[name], response=one, usual=one.usual if one else None)
                for name, one in zip(each, found, strict=True)
            ]
            options = complete_options(method.row.name, None)
            mean = means[row] if means else None
            ask = Ask(tuple(adapters), self.sites, options, None, trained, mean)
            return self._place(decide(method, ask), each)

        made: dict[object, PlainMix] = {}
        keys = [(row if replies or means else None, each) for row, each in enumerate(rows)]
        for row, key in enumerate(keys):
            if key not in made:
                made[key] = decided(row, key[1])
        with self.mixer.mixing([made[key] for key in keys], trace=watch):
            yield

    @contextmanager
    def gated_by(self, router: Router | None, *, names: Sequence[Sequence[str]]) -> Iterator[None]:
        """Mix under this RouterLoRA; `None` is the uniform gate."""
        rows = [tuple(each) for each in names]
        made = {each: self._gated(router, each) for each in dict.fromkeys(rows)}
        with self.mixer.mixing([made[each] for each in rows]):
            yield

    def _gated(self, router: Router | None, names: Sequence[str]) -> PlainMix:
        present = torch.stack([self._adapters[name].present for name in names], dim=1)
        return self._place(Decision(even(present), gate=Gate(router=router)), names)

    def _place(self, decision: Decision, names: Sequence[str]) -> PlainMix:
        return place(
            decision,
            [self._adapters[name].loras for name in names],
            self.sites,
            uploaded=[self._merged[name] for name in names] if decision.merge else None,
        )

    @cached_property
    def _merged(self) -> Loras:
        """The adapters as uploaded, for merges: on the base's device, in float32 or wider, so that
        autograd keeps no copy."""
        return {
            name: {path: _here(widened(lora), self.plain.device) for path, lora in modules.items()}
            for name, modules in self._uploaded.items()
        }

    @torch.no_grad()
    def _responses(
        self, prompts: Sequence[Sequence[int]], names: Sequence[str]
    ) -> list[dict[str, Response]]:
        """Each adapter's response to the end of each prompt, in the bare base."""
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
        """Pack the adapter and measure its usual responses, as the engine does."""
        if name not in self._packed:
            loras = self._adapters[name].loras
            units = pack_units(loras, self._layout, dtype=torch.float32)
            self._packed[name] = replace(units, usual=self._reference.measure(units))
        return self._packed[name]

    def bringing(
        self,
        method: str,
        trained: Trained,
        *,
        uploaded: Sequence[Candidate] = (),
        by: Callable[[Ask], Decision] | None = None,
    ) -> AbstractContextManager[None]:
        """Run the forwards inside with a method's own adapters from these tensors: A and B as they
        are, not made orthonormal, so that they get gradients. `by` decides in the method's
        place."""
        own = find_method(method)
        adapters = tuple(self._brought(one) for one in own.bring(uploaded, trained))
        ask = Ask(adapters, self.sites, complete_options(method, None), None, trained)
        decision = by(ask) if by else decide(own, ask)
        return self.mixer.mixing([place(decision, [one.loras for one in adapters], self.sites)])

    def _brought(self, one: Candidate) -> Adapter:
        return Adapter.of(one.name, one.checksum, one.load(), self.sites, pack=lambda lora: lora)

    def drawn(
        self, begin: Callable[[], Mapping[str, Tensor]], *, seed: int
    ) -> dict[str, nn.Parameter]:
        """The tensors that `begin` draws under this seed, in float32 on the base's device."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tensors = begin()
        device = self.plain.device
        return {name: nn.Parameter(tensor.float().to(device)) for name, tensor in tensors.items()}

    def close(self) -> None:
        """Remove the mixed layers."""
        self._installed.remove()


def _packed(lora: Lora, base: BaseModel) -> Lora:
    """Pack it as the engine does: B orthonormal, in the base's dtype."""
    packed = orthonormal(lora)
    return Lora(A=packed.A.to(base.device, base.dtype), B=packed.B.to(base.device, base.dtype))


def _here(lora: Lora, device: torch.device) -> Lora:
    return Lora(A=lora.A.to(device), B=lora.B.to(device))
