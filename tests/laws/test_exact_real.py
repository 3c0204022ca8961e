"""The real base as served, in NF4: the same bits in any schedule, and near the naive run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st

from ramole_core import Request, Settings
from ramole_core.base.model import load_base
from ramole_core.base.shapes import read_shapes
from ramole_core.composition import Lora, LoraSet
from ramole_core.composition.trained import WeightsFolder
from ramole_core.engine.engine import Engine, EngineSizes
from ramole_core.engine.request_state import RequestState
from ramole_core.pool import Limits, Pool
from tests.support.naive_segments import NaiveModel, NaiveTurn
from tests.support.schedules import Job, Pair, events_of, examples
from tests.support.tiny_engine import Heard, TinyEngine

NAMES = dict.fromkeys(("banking77", "squad_v1", "spider_sql", "true_case", "nl2bash"), 0)
STORY = (
    "The harbour of Halvik has been closed since Monday, because a storm broke the outer wall. "
    "Ferries to the islands wait in the next bay, and fish is sold from lorries on the road. "
)


def ask(prompt: str, method: str = "ramole", **options) -> Request:
    options = {"max_new_tokens": 4, "ignore_eos": True, "trace": False} | options
    return Request(prompt, method=method, **options)


TURN = (("List all files that are larger than a megabyte.", "find . -size +1M"),)
JOBS = [
    Job(ask("Why?", "base", raw=True, max_new_tokens=6)),
    Job(ask("My card was swallowed.", "selection", max_new_tokens=6), ("banking77",)),
    Job(ask("put capitals: anna flew to oslo", "mixture", raw=True), ("true_case", "squad_v1")),
    Job(ask("How many singers are there?", trace=True), ("spider_sql", "nl2bash", "squad_v1")),
    Job(ask(STORY + "Why is it closed?", "ramole_plus", raw=True), ("squad_v1", "banking77")),
    Job(ask(STORY * 7, "ramole", raw=True, max_new_tokens=2), ("squad_v1", "true_case")),
    Job(ask("count lines", "arrow", raw=True, trace=True), ("nl2bash", "spider_sql", "true_case")),
    Job(ask(STORY + "Who waits?", "base", raw=True, temperature=0.8, seed=3)),
    Job(ask("And in bytes?", history=TURN, trace=True), ("spider_sql",), (("nl2bash",),)),
    Job(ask("And in bytes?", "arrow", history=TURN), ("nl2bash", "squad_v1"), (("nl2bash",),)),
    Job(
        ask("How many?", raw=True, without=[("nl2bash", 3, None, 1), (None, None, "up_proj", 2)]),
        ("nl2bash", "spider_sql"),
    ),
    Job(ask("Why?", "selection", raw=True, without=[(None, 7, None)]), ("squad_v1",)),
]
EVENTS = events_of(JOBS, names=0, chunks=[7, 64, 256])


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


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The root of the mean squared difference of logits, as a share of their deviation."""
    return float((ours.float() - theirs).square().mean().sqrt() / theirs.std())


@pytest.fixture(scope="module")
def real(real_base_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    sizes = EngineSizes(
        max_batch=4, max_queue=1000, prefill_chunk=64, kv_cache_bytes=2**26, units_dir=folder
    )
    return RealEngine(real_base_folder, folder, sizes)


@pytest.fixture(scope="module")
def pair(real):
    """One engine for those alone and for all who meet."""
    return Pair(JOBS, real, real, NAMES)


@examples(50)
@given(st.lists(EVENTS, min_size=3, max_size=7))
def test_no_bit_differs_in_any_schedule_of_the_real_base(pair, events):
    for what, job, _ in events:
        if what == "ask":
            pair.alone(job, NAMES)  # before the others come
    assert pair.play(events) == 0
    assert pair.narrow.engine.stats()["kv_bytes"] == 0


def logits_of(real, job: Job) -> tuple[list[int], list[int], torch.Tensor]:
    """Prompt, answer and logits of a job that runs now."""
    earlier = [[(name, 0) for name in turn] for turn in job.earlier]
    state = real.submit(job.request, [(name, 0) for name in job.names], earlier=earlier)
    real.finish()
    heard = real.heard.pop(state)
    return heard.prompt, heard.tokens, torch.stack(heard.logits)


def test_a_chat_equals_the_naive_run(real):
    naive, job = NaiveModel(real.engine), JOBS[8]
    prompt, tokens, logits = logits_of(real, job)
    turns, end = [], 0
    parts = real.engine.read(job.request).parts
    for turn, part, own in zip(job.request.turns, parts, [*job.earlier, job.names], strict=True):
        end += len(part)
        chosen = real.chosen([(name, 0) for name in own])
        turns.append(NaiveTurn(turn, tuple(chosen), end))

    def off(turns) -> float:
        expected, _ = naive.read(prompt + tokens, turns)
        return apart(logits, expected[len(prompt) - 1 : -1])

    rounding = off(turns)
    assert rounding < 0.08  # 0.02 to 0.06 by prompt and CPU: what bfloat16 rounds
    moved = [replace(turns[0], end=turns[0].end - 16), *turns[1:]]
    assert off(moved) > 3 * rounding, "another boundary would not be noticed"
