"""Steps that run again without Python: the same bits and traces, and when they must not."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from ramole_core.composition import METHODS
from ramole_core.engine.capture import is_view_only, recording
from ramole_core.engine.engine import EngineSizes
from ramole_core.kernels import pointwise
from ramole_core.kernels.call_args import TILES
from ramole_core.kernels.pointwise import POINTS
from tests.support.schedules import ask
from tests.support.tiny_engine import TinyEngine

NAMES = [("ant", 3), ("bee", 5), ("cat", 2)]


def numbers(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture(scope="module")
def every(tiny_llama):
    tiny = TinyEngine(tiny_llama, EngineSizes(max_batch=4, draft_rows=0))
    yield tiny
    tiny.engine.close()


SHAPES = (
    lambda x, y: (x, y),
    lambda x, y: (x.transpose(1, 2), y.transpose(1, 2)),
    lambda x, y: (x[..., 1::2], y[..., :17]),
    lambda x, y: (x, y[:, :1, :1]),
    lambda x, y: (x[0, 0], y[0, 0]),
    lambda x, y: (x, y[..., :1]),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_points_are_pytorchs_own(dtype, shape):
    x, y = shape(numbers(2, 150, 9, 34, dtype=dtype), numbers(2, 150, 9, 34, dtype=dtype, seed=1))
    wanted = {pointwise.ADD: x + y, pointwise.MULTIPLY: x * y}
    wanted |= {pointwise.NEGATE: -x, pointwise.COPY: x.clone()}
    for kind, result in wanted.items():
        out = torch.zeros_like(result)
        words = pointwise.words_of(kind, out, x, y if kind < pointwise.NEGATE else None)
        POINTS.run(words, int(words[TILES]))
        assert torch.equal(out, result)


def test_what_points_cannot_do_is_said():
    x = numbers(2, 3, dtype=torch.float32)
    assert pointwise.words_of(pointwise.ADD, x, x.bfloat16(), x) is None
    assert pointwise.words_of(pointwise.COPY, x.long(), x.long()) is None
    deep = x.view(1, 1, 1, 2, 3)
    assert pointwise.words_of(pointwise.COPY, deep, deep) is None


def test_a_recording_does_again_what_was_done():
    """Views, joins, products by numbers, indices, sums along a row: with other numbers inside."""
    x, at = numbers(4, 6, dtype=torch.float32), torch.tensor([2, 0])
    total = torch.zeros(())

    def work() -> Tensor:
        left, right = x[:, :3], x.T[3:].T
        turned = torch.cat([-right, left], dim=-1)
        return (turned * x + 1.5)[at].softmax(-1).view(-1)

    with recording() as made:
        out = work()
        torch._foreach_add_([total], 1)
    assert not made.fault and torch.equal(out, work())
    before = out.clone()
    x.copy_(numbers(4, 6, dtype=torch.float32, seed=1))
    at.copy_(torch.tensor([3, 3]))
    made.run()
    assert torch.equal(out, work()) and not torch.equal(out, before) and total == 2


@pytest.mark.parametrize(
    "read",
    [
        lambda x: float(x.sum()),
        lambda x: torch.equal(x, x),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: bool((x > 0).any()),
        lambda x: torch.where(x > 0),
        lambda x: x.repeat_interleave((x > 0).long()),
        lambda x: x.narrow(0, (x > 9).sum(), 1),
    ],
)
def test_a_number_that_python_reads_is_a_fault(read):
    """A step runs in inference mode, where PyTorch does not take all operators apart."""
    x = numbers(3, dtype=torch.float32)
    for how in (torch.inference_mode(), nullcontext()):
        with how, recording() as made:
            read(x)
        assert made.fault
    with recording() as made, made.aside():
        float(x.sum())
    assert not made.fault


def one_by_one(tiny: TinyEngine, *, replays: bool):
    """Requests of other methods, adapters and lengths, one after another: tokens and traces, and
    the steps that were not replayed of each."""
    tiny.engine._runner.replays = replays
    tiny.engine.forget_prefixes()
    found, slow = [], []
    jobs = [
        ("ramole", NAMES),
        ("ramole", [("dog", 4), ("elk", 1), ("fox", 2)]),
        ("mixture", [("dog", 4), ("cat", 2), ("ant", 3)]),
        ("ramole_plus", NAMES),
        ("arrow", [("dog", 4), ("elk", 1), ("fox", 2)]),
        ("meteora", NAMES),
        ("meteora", [("dog", 4), ("cat", 2), ("ant", 3)]),
        ("base", []),
        ("ramole", [("gnu", 5), ("ant", 3), ("bee", 5)]),
    ]
    for n, (method, names) in enumerate(jobs):
        before = tiny.engine.stats()
        asked = ask(9 + n, method, max_new_tokens=12, trace=True)
        (heard,), after = tiny.run((asked, names)), tiny.engine.stats()
        trace = heard.answer.trace
        found.append((heard.tokens, np.stack([trace.weights, trace.contribution])))
        steps = after["decode_forwards"] - before["decode_forwards"]
        slow.append(steps - (after["replayed"] - before["replayed"]))
    return found, slow


@pytest.mark.parametrize("kind", ["float32", "int4"])
def test_a_step_is_recorded_once_for_all_rows_of_its_sizes(tiny_nf4, kind):
    tiny = TinyEngine(tiny_nf4, EngineSizes(max_batch=4, draft_rows=0), kind=kind)
    found, slow = one_by_one(tiny, replays=True)
    own, none = one_by_one(tiny, replays=False)
    for (tokens, gates), (same, alike) in zip(found, own, strict=True):
        assert tokens == same
        np.testing.assert_array_equal(gates, alike)
    assert none == [11] * 9
    # gates that read inputs are of a kind of their own, and the base alone has no tables; what was
    # recorded before the memory of keys grew is recorded again, at once
    assert slow == [2, 0, 0, 0, 1, 2, 0, 2, 1]
    _, again = one_by_one(tiny, replays=True)
    assert max(again) <= 1, "recorded before the memory of keys grew"
    _, again = one_by_one(tiny, replays=True)
    assert again == [0] * 9


def test_recorded_steps_go_where_memory_was_made_anew_and_with_the_engines_faults(tiny_llama):
    tiny = TinyEngine(tiny_llama, EngineSizes(max_batch=4, draft_rows=0))
    runner, bank = tiny.engine._runner, tiny.engine.bank
    asked = ask(5, "mixture", max_new_tokens=9)

    def replayed(names) -> int:
        before = tiny.engine.stats()["replayed"]
        tiny.run((asked, names))
        return int(tiny.engine.stats()["replayed"] - before)

    assert replayed(NAMES) == 6
    assert replayed(NAMES) == 9, "the last token of its known prompt, and 8 steps"
    assert runner._replays and runner._batch is None
    made = bank.tensors.made
    assert replayed([(f"big{n}", 15) for n in range(3)]) == 6, "other sizes"
    assert bank.tensors.made > made and replayed(NAMES) == 8, (
        "the bank's tensors grew: recorded at once"
    )
    tiny.engine.scheduler.fail()
    assert not runner._replays and replayed(NAMES) == 7


def test_views_are_known_by_their_kind_and_copies_never_taken_for_them():
    """Of what each gives back for a tensor that is not contiguous, where the two differ."""
    aten, x = torch.ops.aten, numbers(4, 6, dtype=torch.float32).t()
    looks = {
        aten.view.default: lambda: aten.view.default(x.t(), [24]),
        aten.transpose.int: lambda: x.transpose(0, 1),
        aten.slice.Tensor: lambda: x[1:],
        aten.split.Tensor: lambda: x.split(2)[1],
        aten.expand.default: lambda: x[:, :1].expand(6, 3),
    }
    for func, look in looks.items():
        assert is_view_only(func) and place(look()) == place(x), func
    copies = {
        aten.contiguous.default: lambda: x.contiguous(),
        aten.reshape.default: lambda: x.reshape(24),
        aten.clone.default: lambda: x.clone(),
        aten._to_copy.default: lambda: x.double(),
        aten.add.Tensor: lambda: x + 1,
    }
    for func, copy in copies.items():
        assert not is_view_only(func) and place(copy()) != place(x), func
    assert not is_view_only(aten.add_.Tensor), "it writes"
    assert is_view_only(aten.empty.memory_format), "nothing is in it"


def place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


IN_PYTORCH: set[str] = set()
"""Methods whose score is a function in PyTorch: their steps are computed anew."""


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_steps_of_every_method_are_replayed(every, method):
    """Scores that PyTorch computes would be computed by Python, in every step again."""
    for run in range(3):
        before = every.engine.stats()
        every.run((ask(9, method, max_new_tokens=12), NAMES))
        after = every.engine.stats()
        steps = after["decode_forwards"] - before["decode_forwards"]
        replayed = after["replayed"] - before["replayed"]
        assert steps == 11 and (
            run < 2 or (replayed == 0 if method in IN_PYTORCH else replayed >= 11)
        )
