"""Products, widening and activations: float64's numbers, and one token's bits whoever is beside."""

import os
import shutil
import subprocess
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from ramole_core import Settings
from ramole_core.base.model import QUANTIZATIONS
from ramole_core.kernels import ahead, code_cache, direct, ways
from ramole_core.kernels.all import ROUNDING, compile_kernels, parts_of
from ramole_core.kernels.call_args import TILES, WORDS, take, words_at
from ramole_core.kernels.elementwise import GELU, GELU_TANH, SILU, TILE, activate
from ramole_core.kernels.half_dots import MULTIPLIES
from ramole_core.kernels.likeliest import likeliest
from ramole_core.kernels.matrix_unit import MATRIX, keep_layout, lay_out, layouts
from ramole_core.kernels.narrow import NARROW, NARROW_TO_GRID
from ramole_core.kernels.outputs import MIN_COPIED_ROWS
from ramole_core.kernels.product import span_of
from ramole_core.kernels.team import Kernel
from ramole_core.kernels.vectors import LANES, paired
from ramole_core.kernels.weight import way_here
from ramole_core.kernels.widen import PAIR, widened
from ramole_core.own_model import load_here
from tests.support.kernel_fakes import FLOATS, HALVES, Product
from tests.support.workers import python

KINDS = (FLOATS, HALVES, "nf4", "int4", "int8")
DTYPES = (FLOATS, HALVES)
COUNTS = (1, 2, 3, 5, 8, 33, 97, 200)


def sizes_of(kind):
    if kind in ("nf4", "int4"):
        return ((41, 64), (16, 128), (67, 192), (397, 64), (35, 704))
    return ((41, 37), (5, 1), (67, 130), (397, 96))


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def products(kind, way=None):
    for n, (o, i) in enumerate(sizes_of(kind)):
        for half in (False, True) if way is None else (True,):
            yield Product(kind, o, i, bias=(n + half) % 2 == 0, half=half, way=way)


def check_numbers(kind, way=None):
    for product in products(kind, way):
        for updated in (False, True):
            wanted, most = product.slowly(updated=updated)
            for count in COUNTS:
                found = product.run(range(count), updated=updated)
                assert found.dtype == product.dtype
                assert ((found.double() - wanted[:count]).abs() <= most[:count]).all()


def check_bits(kind, way=None):
    pick = torch.Generator().manual_seed(0)
    for product in products(kind, way):
        for updated in (False, True):
            whole = product.run(range(product.N), updated=updated)
            for count in COUNTS[1:]:
                at = torch.randperm(product.N, generator=pick)[:count].tolist()
                assert torch.equal(product.run(at, updated=updated), whole[at])
                start = int(torch.randint(product.N - count + 1, (), generator=pick))
                side_by_side = range(start, start + count)
                assert torch.equal(product.run(side_by_side, updated=updated), whole[side_by_side])
            for n in range(0, product.N, 7):
                assert torch.equal(product.run([n], updated=updated)[0], whole[n])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_product_gives_what_float64_gives(kind):
    check_numbers(kind)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_other_row_and_no_thread_changes_a_bit_of_a_product(kind, threads):
    check_bits(kind)


@pytest.mark.parametrize("kind", [HALVES, "nf4", "int4"], ids=str)
def test_no_rows_give_no_rows(kind):
    assert Product(kind, 67, 192, bias=True, half=True).run([]).shape == (0, 67)


def test_the_number_of_threads_changes_no_bit():
    product, found = Product("nf4", 203, 64, bias=True), []
    before = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(product.run(range(200), updated=True))
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_the_sizes_above_meet_both_ways_of_rows_and_of_runs(threads):
    """Else the tests above would see one of two ways only; and tiles of few rows are longer."""
    ends = np.flatnonzero(np.diff(Product(FLOATS, 16, 16, bias=False).row_of)) + 1
    lengths = np.diff(ends)
    assert (lengths < MIN_COPIED_ROWS).any() and (lengths >= MIN_COPIED_ROWS).any()
    assert min(COUNTS) <= direct.MAX_DIRECT_ROWS < max(COUNTS)
    assert all(any(i % PAIR == 0 for _, i in sizes_of(kind)) for kind in (HALVES, "nf4"))
    assert span_of(1, 397) > span_of(direct.MAX_DIRECT_ROWS + 1, 397)


def test_an_update_is_what_pytorch_adds_without_a_kernel():
    product = Product(FLOATS, 41, 37, bias=False)
    every = list(range(product.N))
    found = product.update(every).added_to(product.run(every))
    torch.testing.assert_close(found, product.run(every, updated=True), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("i", [1, 31, 32, 33, 64, 95, 130])
def test_widening_keeps_every_number(dtype, i):
    """Even places of each 2 LANES first, then odd ones, and zeros behind the last."""
    x = torch.randn(3, 17, i, generator=torch.Generator().manual_seed(i)).to(dtype)
    x[0, 0, 0] = torch.inf
    found = widened(x)
    assert found.shape == (51, paired(i)) and found.dtype == torch.float32
    whole = torch.zeros(51, paired(i))
    whole[:, :i] = x.view(51, i).float()
    assert torch.equal(found, whole.view(51, -1, LANES, 2).transpose(2, 3).reshape(51, -1))
    assert torch.equal(widened(x.transpose(0, 1)), widened(x.transpose(0, 1).contiguous()))


def gelu_tanh(x):
    return torch.nn.functional.gelu(x, approximate="tanh")


ACTIVATIONS = (
    (SILU, torch.nn.functional.silu),
    (GELU, torch.nn.functional.gelu),
    (GELU_TANH, gelu_tanh),
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind, wanted", ACTIVATIONS)
def test_activations_give_what_float64_gives(dtype, kind, wanted):
    x = torch.cat([torch.linspace(-30, 30, 5001), torch.tensor([-200.0, 0.0, 1e-30, 200.0])])
    x = x.to(dtype).view(5, -1)
    found, exact = activate(x, kind), wanted(x.double())
    assert found.dtype == dtype and found.shape == x.shape
    most = 3e-7 * (1 + x.double().abs()) + (exact.abs() * 2**-8 if dtype == HALVES else 0)
    assert ((found.double() - exact).abs() <= most).all()
    assert activate(torch.tensor([torch.nan], dtype=dtype), kind).isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [SILU, GELU, GELU_TANH])
def test_no_cut_changes_a_bit_of_an_activation(dtype, kind, threads):
    pick = torch.Generator().manual_seed(kind)
    x = (torch.randn(2 * TILE + 77, generator=pick) * 4).to(dtype)
    whole = activate(x, kind)
    for start, end in ((0, 1), (1, 18), (3, 3 + TILE), (TILE - 5, TILE + 5), (77, 2 * TILE + 77)):
        assert torch.equal(activate(x[start:end], kind), whole[start:end])
    for at in range(0, 40):
        assert torch.equal(activate(x[at : at + 1], kind), whole[at : at + 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("columns", [1, 7, 64, 1003])
def test_the_likeliest_is_pytorchs_own(dtype, columns):
    rows = torch.randn(9, columns, generator=torch.Generator().manual_seed(columns)).to(dtype)
    rows[1] = -1 - rows[1].abs()
    rows[2] = 0
    rows[2, ::2] = -0.0
    rows[3] = -torch.inf
    rows[4, columns // 2] = torch.inf
    rows[5, columns // 3 :] = rows[5].max()
    rows[6, columns // 2 :] = torch.nan
    rows[7, columns // 2] = -torch.tensor(torch.nan)
    assert likeliest(rows) == rows.float().argmax(-1).tolist()
    assert likeliest(rows[:, ::2]) == rows[:, ::2].float().argmax(-1).tolist()
    assert likeliest(rows[:0]) == []


MIXING = """
import torch
from ramole_core.kernels.likeliest import likeliest
from ramole_core.kernels.matrix_unit import MATRIX
from tests.units import test_rows_mixing
assert not MATRIX
test_rows_mixing.check_numbers(torch.bfloat16, 64)
test_rows_mixing.check_bits(torch.bfloat16, 64)
"""
PRODUCTS = """
from tests.units import test_flat_attention, test_kernels
for kind in ("nf4", "int4", "int8", test_kernels.HALVES):  # as it is served
    test_kernels.check_numbers(kind)
    test_kernels.check_bits(kind)
test_flat_attention.check_attention()
"""


@pytest.mark.skipif(LANES == 8, reason="Every other test here shows it.")
def test_a_cpu_of_shorter_vectors_gives_products_mixing_and_attention_too():
    done = python("-c", MIXING + PRODUCTS, RAMOLE_LANES="8")
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(not MATRIX, reason="Every other test here shows it.")
def test_a_cpu_without_a_matrix_unit_gives_mixing_too():
    """Its products are shown by `test_ways_that_are_slower_here_give_products_too`."""
    done = python("-c", MIXING, RAMOLE_MATRIX="0")
    assert done.returncode == 0, done.stderr[-2000:]


def _configure(address):
    words = words_at(address)
    if take(address) < words[TILES]:
        if words[3]:
            lay_out(words[2])
        else:
            keep_layout(words[2])


@pytest.mark.skipif(not MATRIX, reason="this CPU has no matrix unit")
def test_the_tiles_of_another_library_stay_configured(threads):
    """Instructions of llama.cpp, which configures each thread once, were illegal after ours."""
    configure, words = Kernel(_configure), np.zeros(WORDS, np.int64)
    before, after = layouts()[9].copy(), np.zeros(64, np.uint8)
    words[2], words[3] = before.ctypes.data, 1
    configure.run(words, 1)
    Product("int4", 67, 192, bias=False, half=True, way=ways.TILES).run(range(40))
    words[2], words[3] = after.ctypes.data, 0
    configure.run(words, 1)
    assert after.tolist() == before.tolist()
    before[:] = 0
    words[2], words[3] = before.ctypes.data, 1
    configure.run(words, 1)


@pytest.mark.parametrize("kind", [HALVES, "nf4", "int4"], ids=str)
@pytest.mark.parametrize("way", ways.NAMES)
def test_ways_that_are_slower_here_give_products_too(way, kind):
    if way == ways.TILES and not MATRIX or way == ways.DOTS and not MULTIPLIES:
        pytest.skip("This CPU has no such instructions.")
    if way == way_here():
        pytest.skip("Every other test here shows it.")
    check_numbers(kind, way)
    check_bits(kind, way)


def test_all_are_compiled_by_other_processes_while_the_base_comes(tmp_path, monkeypatch):
    """Where the mark is missing: it is made, and processes that nobody waits for are ended."""
    mark = code_cache.complete("int4")
    if not mark.is_file():  # the suite begins with them
        compile_kernels()
    started, popen = [], subprocess.Popen

    def start(*said, **how):
        started.append(popen(*said, **how))
        return started[-1]

    monkeypatch.setattr(ahead.subprocess, "Popen", start)
    with ahead.compiled_ahead("int4") as wait:
        assert wait is None
    assert started == []
    before = mark.stat().st_mtime_ns
    monkeypatch.setattr(ahead, "complete", lambda quantization: tmp_path / "missing")
    with ahead.compiled_ahead("int4") as wait:
        assert wait and len(started) == ahead.PARTS
        wait(ahead.PARTS)
        assert [one.poll() for one in started] == [0, 0]
    assert mark.stat().st_mtime_ns > before, "they have compiled all, or read it from the cache"
    with ahead.compiled_ahead("int4"):
        pass
    assert all(one.poll() is not None for one in started) and len(started) == 2 * ahead.PARTS
    monkeypatch.setattr(ahead.subprocess, "Popen", no_room)
    with ahead.compiled_ahead("int4") as wait:
        assert wait
        wait(ahead.PARTS)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_start_compiles_what_its_precision_needs(quantization, tmp_path, monkeypatch):
    """Whatever the setting says, the processes are given a precision that they know."""
    given = []

    @contextmanager
    def started(precision):
        given.append(precision)
        yield None

    def stop(*said, **how):
        raise InterruptedError

    monkeypatch.setattr(ahead, "compiled_ahead", started)
    monkeypatch.setattr("ramole_core.base.model.load_base", stop)
    settings = Settings(quantization=quantization, device="cpu", data_dir=tmp_path)
    with pytest.raises(InterruptedError):
        load_here(settings, lambda *_: None)
    assert given == ["int4" if quantization == "auto" else quantization] and parts_of(given[0])


def test_processes_that_compile_nothing_are_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(ahead, "complete", lambda quantization: tmp_path / "missing")
    with ahead.compiled_ahead("no such precision") as wait:
        assert wait
        wait(ahead.PARTS)
    assert "were not compiled ahead (exit [1, 1])" in caplog.text
    assert not (tmp_path / "missing").exists()


def no_room(*said, **how):
    raise BlockingIOError("Resource temporarily unavailable")


def test_versions_that_nobody_used_for_a_month_are_swept(tmp_path, monkeypatch):
    now = code_cache.time.time()
    for name, days, marked in (("old", 40, None), ("fresh", 3, None), ("used", 40, 2)):
        folder = tmp_path / f"kernels-{name}"
        folder.mkdir()
        if marked is not None:
            (folder / "complete-x").touch()
            os.utime(folder / "complete-x", (now - marked * 86400,) * 2)
        os.utime(folder, (now - days * 86400,) * 2)
    own = tmp_path / "kernels-own"
    own.mkdir()
    monkeypatch.setattr(code_cache, "FOLDER", own)
    monkeypatch.setattr(code_cache, "complete", lambda quantization: own / "complete-me")
    monkeypatch.setattr(code_cache, "CACHE", True)
    code_cache.mark_complete("nf4")
    assert {path.name for path in tmp_path.iterdir()} == {
        "kernels-fresh",
        "kernels-used",
        "kernels-own",
    }
    assert [path.name for path in own.iterdir()] == ["complete-me"]


def test_a_base_compiles_the_rounding_of_its_own_precision_alone():
    of = {name: {id(one) for part in parts_of(name) for one in part} for name in ROUNDING}
    assert of["nf4"] - of["none"] == {id(NARROW)}
    assert of["int4"] - of["none"] == {id(NARROW_TO_GRID)}


def test_the_code_is_that_of_all_sources_and_of_this_cpu(tmp_path, monkeypatch):
    """Another checkout finds it; a change in any file makes other code."""
    bare = shutil.ignore_patterns("__pycache__")
    other = shutil.copytree(code_cache.HERE.parent, tmp_path / "ramole_core", ignore=bare)
    code = "from ramole_core.kernels import code_cache as cache; print(cache.HERE, cache.FOLDER); "
    compiles = "from ramole_core.kernels.norm import NORMALISE as one; one.compile(); "
    compiles += "print(one._entry.cache_hits)"

    def run(code: str) -> list[str]:
        done = python("-c", f"import os; os.chdir({str(tmp_path)!r}); {code}")
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.split()

    assert run(code + compiles) == [str(other / "kernels"), str(code_cache.FOLDER), "1"]
    folders = {str(code_cache.FOLDER)}
    for changed in ("kernels/dots.py", "composition/activation.py"):
        with (other / changed).open("a") as file:
            file.write("# another version\n")
        folders.add(run(code)[1])
    assert len(folders) == 3
    mine = code_cache.complete("nf4")
    monkeypatch.setattr(code_cache, "get_host_cpu_name", lambda: "another")
    assert code_cache.complete("nf4") != mine
