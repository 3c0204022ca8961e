"""The running model: base, mixed layers, routers and device slots; it turns requests into batches.

It has no threads of its own. Each step holds the lock, so that batches of different callers take
turns and a caller who goes away blocks nobody.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ramole_core.base_model import BaseModel
from ramole_core.composition import Plan, Router, find_method
from ramole_core.engine.batch import Batch, Prepared, spell
from ramole_core.engine.prompt import encode_prompt, room_for_answer
from ramole_core.engine.request import Request, Step
from ramole_core.engine.slots import DeviceSlots, LoraSet
from ramole_core.layers import install


@dataclass(frozen=True)
class Chosen:
    """One adapter of a request: its name, similarity, content checksum, and how to read it."""

    name: str
    score: float
    checksum: str
    load: Callable[[], LoraSet]


class Engine:
    """Owns the model while it runs; `close()` gives it back unchanged."""

    def __init__(
        self,
        base: BaseModel,
        *,
        paths: Sequence[str],
        routers: Callable[[str], Router | None],
        device_cache_bytes: int,
    ):
        """`routers` gives the router of a kind (`Composition.router`); None is the zero router."""
        self._base = base
        self._installed = install(base.model, paths)
        self._routers = routers
        self._moved: dict[str, Router | None] = {}
        self._slots = DeviceSlots(device=base.device, dtype=base.dtype, limit=device_cache_bytes)
        self._lock = threading.Lock()
        self._eos = _end_tokens(base)

    def check(self, request: Request) -> tuple[list[int], int]:
        """Prompt tokens, and room for the answer; raises RamoleError where it cannot run."""
        ids = encode_prompt(request, self._base.tokenizer)
        method = find_method(request.method)
        if method.router != "none" and not request.weights:
            self._router(method.router)
        return ids, room_for_answer(request, len(ids), context=self.context)

    def prepare(self, request: Request, chosen: Sequence[Chosen]) -> Prepared:
        """Tokenise and plan one request; raises RamoleError where it cannot run."""
        ids, room = self.check(request)
        with self._lock, torch.inference_mode():
            loras = [self._slots.get(c.checksum, c.load) for c in chosen]
            plans = self._plan(request, loras)
        return Prepared(
            request=request,
            prompt_ids=ids,
            adapters=[c.name for c in chosen],
            scores=[c.score for c in chosen],
            plans=plans,
            room=room,
        )

    def start(self, prepared: Sequence[Prepared]) -> Batch:
        """A batch of these requests; nothing is computed before its first step."""
        with self._lock, torch.inference_mode():
            return Batch(
                self._base.model,
                self._base.tokenizer,
                mixer=self._installed.mixer,
                prepared=prepared,
                eos=self._eos,
            )

    def step(self, batch: Batch) -> list[tuple[int, Step]]:
        """One forward of the batch, while no other batch runs."""
        with self._lock:
            return batch.step()

    def next_tokens(
        self, prepared: Sequence[Prepared], ids: Sequence[int], *, top: int
    ) -> list[list[tuple[str, float]]]:
        """The `top` likeliest tokens after `ids`, with their probabilities, for each plan."""
        rows = [Prepared(p.request, list(ids), p.adapters, p.scores, p.plans, 1) for p in prepared]
        batch = self.start(rows)
        with self._lock:
            logits = batch.peek()
        found = logits.float().softmax(-1).topk(top)
        return [
            list(zip(spell(self._base.tokenizer, tokens), chances, strict=True))
            for tokens, chances in zip(found.indices.tolist(), found.values.tolist(), strict=True)
        ]

    @property
    def context(self) -> int:
        """Most tokens of a prompt and its answer together."""
        config = self._base.model.config.get_text_config()
        return int(config.max_position_embeddings)

    def close(self) -> None:
        """Take the mixed layers out again."""
        with self._lock:
            self._installed.remove()

    def _plan(self, request: Request, loras: Sequence[LoraSet]) -> Mapping[str, Plan]:
        method = find_method(request.method)
        router = None if request.weights else self._router(method.router)
        plans = {}
        for path in self._installed.layers:
            here = [lora.get(path) for lora in loras]
            if any(here):
                plan = method.plan(
                    here,
                    weights=request.weights,
                    router=None if router is None else router.modules.get(path),
                )
                if plan is not None:
                    plans[path] = plan
        return plans

    def _router(self, kind: str) -> Router | None:
        if kind not in self._moved:
            router = self._routers(kind)
            if router is not None:
                router = router.to(device=self._base.device, dtype=self._base.dtype)
            self._moved[kind] = router
        return self._moved[kind]


def _end_tokens(base: BaseModel) -> frozenset[int]:
    generation = getattr(base.model, "generation_config", None)
    found = getattr(generation, "eos_token_id", None) or base.tokenizer.eos_token_id
    if found is None:
        return frozenset()
    return frozenset(int(token) for token in (found if isinstance(found, list) else [found]))
