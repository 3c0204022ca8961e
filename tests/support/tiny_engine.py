"""An engine on a tiny model, with adapters made up; for tests of schedules."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from ramole_core import Generation, Request, Step
from ramole_core.base.model import PACKED, load_base
from ramole_core.base.packed import PackedLinear
from ramole_core.composition import Candidate, Lora, LoraSet, Response, Sites, Trained
from ramole_core.engine import reference
from ramole_core.engine.engine import Engine, EngineSizes
from ramole_core.engine.prompt import Turn
from ramole_core.engine.request_state import RequestState
from tests.support.tiny_methods import KNOWN, make_gates, make_recovered, make_trained


@dataclass
class Heard:
    """What came of one request."""

    prompt: list[int] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    logits: list[torch.Tensor] = field(default_factory=list)
    """Those that each token was chosen of."""
    end: Generation | Exception | None = None

    @property
    def tokens(self) -> list[int]:
        return [step.token for step in self.steps]

    @property
    def answer(self) -> Generation:
        assert isinstance(self.end, Generation), self.end
        return self.end


def _size(module: torch.nn.Module) -> tuple[int, int] | None:
    """(i, o) of a linear layer."""
    if isinstance(module, torch.nn.Linear | PackedLinear):
        return module.in_features, module.out_features
    return (module.nx, module.nf) if isinstance(module, Conv1D) else None


class TinyEngine:
    """The engine, and all that its requests were answered."""

    def __init__(
        self,
        folder: Path,
        sizes: EngineSizes | None = None,
        *,
        kind: str = "float32",
        head: str = "full",
    ):
        """`kind`: float32, bfloat16, or nf4 or int4 (with bfloat16 beside)."""
        self.base = base = load_base(
            str(folder),
            data_dir=folder.with_name(f"{folder.name}-data"),
            device="cpu",
            quantization=kind if kind in PACKED else "none",
            dtype="bfloat16" if kind in PACKED else kind,
            head=head,
        )
        model = base.model
        self.shapes = {
            path: size
            for path, module in model.named_modules()
            if "lm_head" not in path and (size := _size(module)) is not None
        }
        self._sites = Sites(tuple(self.shapes), self.shapes)
        self.trained = make_trained(self._sites, rank=5, seed=3)
        self._known: dict[tuple[str, str], None] = {}
        self._made: dict[str, int] = {}
        self.engine = self.build(sizes)
        self.heard: dict[RequestState, Heard] = {}

    def build(self, sizes: EngineSizes | None) -> Engine:
        """The engine, with two of the everyday prompts: to read all 48 takes two seconds."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reference, "PROMPTS", reference.PROMPTS[:2])
            return Engine(
                self.base,
                shapes=self.shapes,
                weights=lambda method: self.weights_of(method.row.weights),
                sizes=sizes,
            )

    def content(self, name: str, version: int) -> str:
        """What is in that version of an adapter of that name."""
        return f"{name}{version}"

    def adapter(self, content: str, rank: int) -> LoraSet:
        """An adapter that says something of its own; the same content has the same weights."""
        generator = torch.Generator().manual_seed(sum(content.encode()) * 131 + rank)
        return {
            path: Lora(
                A=torch.randn(rank, i, generator=generator) * i**-0.5,
                B=torch.randn(o, rank, generator=generator) * 0.7,
            )
            for path, (i, o) in self.shapes.items()
        }

    def learn(self, named: Collection[tuple[str, str]]) -> None:
        """Whatever knows a fixed pool knows these (name, checksum) too, once it is asked."""
        self._known |= dict.fromkeys(named)

    def weights_of(self, folder: str) -> Trained | None:
        """What is in that folder: of a fixed pool, of all that are known by now."""
        if self._made.get(folder) != len(self._known):
            self._made[folder] = len(self._known)
            if folder == "_ca_lora":
                known = [*KNOWN, *(checksum for _, checksum in self._known)]
                self.trained[folder] = make_recovered(self._sites, known=known, seed=3)
            elif self._known:
                self.trained |= make_gates(self._sites, list(self._known), only=folder)
        return self.trained.get(folder)

    def chosen(self, contents: Sequence[tuple[str, int]]) -> list[Candidate]:
        """(content, rank) of each adapter; the same content has the same evidence. Gates of a fixed
        pool know whatever was ever chosen."""
        named = dict.fromkeys((name, f"{name}_{rank}") for name, rank in contents)
        self.learn(named)
        return [
            Candidate(
                name,
                0.3 + sum(name.encode()) % 7 * 0.04,
                f"{name}_{rank}",
                lambda name=name, rank=rank: self.adapter(name, rank),
                self._response(name),
            )
            for name, rank in contents
        ]

    def _response(self, content: str) -> Response:
        usual = torch.tensor([0.0, 1.0]).repeat(len(self.shapes), 1)
        generator = torch.Generator().manual_seed(sum(content.encode()))
        loud = torch.randn(len(self.shapes), generator=generator)
        return Response(loud, usual, torch.ones(len(self.shapes), dtype=torch.bool))

    def submit(
        self,
        request: Request,
        contents: Sequence[tuple[str, int]],
        *,
        earlier: Sequence[Sequence[tuple[str, int]]] = (),
        dropped: int = 0,
        session: str = "",
        address: str = "",
    ) -> RequestState:
        """`contents`: the adapters of the answered turn; `earlier`: those of each turn before, but
        for the first ones that are `dropped`."""
        heard = Heard()

        def deliver(state: RequestState, item: Step | Generation | Exception) -> None:
            if isinstance(item, Step):
                heard.steps.append(item)
            else:
                heard.end = item
                vars(state).pop("advance", None)  # or the state would hold itself

        turns = [
            Turn(turn, tuple(self.chosen(adapters)))
            for turn, adapters in zip(request.turns[dropped:-1], earlier, strict=True)
        ]
        prepared = self.engine.prepare(request, self.chosen(contents), earlier=turns)
        state = self.engine.submit(prepared, session=session, address=address, deliver=deliver)
        heard.prompt, self.heard[state] = list(state.prompt_ids), heard
        advance = state.advance

        def advanced(token: int, logits: torch.Tensor):
            heard.logits.append(logits.clone())
            return advance(token, logits)

        state.advance = advanced
        return state

    def finish(self, after: Callable[[], object] = lambda: None) -> None:
        """Step until nothing is left."""
        while not self.engine.scheduler.idle:
            self.engine.step()
            after()

    def run(self, *jobs: tuple[Request, Sequence[tuple[str, int]]]) -> list[Heard]:
        """What comes of these requests and their adapters, all of them at once."""
        assert self.engine.scheduler.idle
        states = [self.submit(*job) for job in jobs]
        self.finish()
        return [self.heard.pop(state) for state in states]

    def alone(self, request: Request, contents: Sequence[tuple[str, int]]) -> list[int]:
        """The tokens where nobody else is there."""
        (heard,) = self.run((request, contents))
        assert heard.answer
        return heard.tokens
