"""Switched off is as though the adapter lacked it: every method, both ways of mixing, and plain."""

from dataclasses import replace

import pytest
import torch

from ramole_core import RamoleError, Request
from ramole_core.composition import METHODS, Ask, Candidate, decide
from ramole_core.engine.switches import check_switches, read_switches
from ramole_core.layers.plain import install, place
from ramole_core.layers.traced import CONTRIBUTION, WEIGHT
from ramole_core.methods import complete_options
from tests.laws.test_layers import GPT2, LLAMA
from tests.laws.test_served_layers import OPTIONS, told
from tests.laws.test_trial_methods import ONE, TRIED, made, tried as tried  # noqa: F401
from tests.support.tiny_methods import NAMES, adapter_of, made_up_means

EVERY = [*(name for name in METHODS if not METHODS[name].brings), *TRIED]
"""But for those that bring adapters of their own (`test_llava_mole.py`)."""
MIXING = [method for method in EVERY if method != "base"]
ALONE = {"base": 0, "selection": 1, "ca_lora": 1} | dict.fromkeys(ONE, 1)
"""How many adapters they take."""


def names_of(method: str) -> list[str]:
    return list(NAMES[: ALONE.get(method, 3)])


@pytest.fixture(scope="module", params=[LLAMA, GPT2], ids=["llama", "gpt2"])
def world(request, tried):  # noqa: F811
    return made(request.param)


@pytest.fixture(scope="module")
def llama(tried):  # noqa: F811
    return made(LLAMA)


def placement_of(world, method, names, off=None, **changes):
    request = Request("made up", method=method, options=OPTIONS.get(method), **changes)
    return world.placer.prepare(request, [world.candidate(name) for name in names], off)


def run(world, ids, rows, way="rows"):
    """Logits and trace rows of placements, served."""
    mixes = [world.placer.pin(row) for row in rows]
    found = told(world, ids, mixes, way)
    for mix in mixes:
        world.placer.release(mix)
    return found


def plain(world, ids, method, names, off):
    """The naive form over adapters that have not got what is off."""
    method_of = METHODS[method]
    trained = world.trained.get(method_of.row.weights)
    candidates = method_of.bring([world.candidate(name) for name in names], trained)
    flat, adapters, pools = world.layout.flat, [], []
    for j, one in enumerate(candidates):
        gone = {path for path, x in zip(flat, off[:, j].tolist(), strict=True) if x}
        pools.append({p: lora for p, lora in one.load().items() if p not in gone})
        made = adapter_of(one.name, pools[-1], world.layout.sites, world.units(one.name).usual)
        adapters.append(replace(made, response=one.response))
    options = complete_options(method, OPTIONS.get(method))
    means = made_up_means(world.layout.sites)
    ask = Ask(tuple(adapters), world.layout.sites, options, None, trained, means)
    decision = decide(method_of, ask)
    if (bypass := decision.bypass) is not None:
        gone = {path for path, x in zip(flat, off[:, -1].tolist(), strict=True) if x}
        loras = {path: lora for path, lora in bypass.loras.items() if path not in gone}
        decision = replace(decision, bypass=replace(bypass, loras=loras))
    mix = place(decision, [a.loras for a in adapters], ask.sites, uploaded=pools)
    installed = install(world.model, world.sizes)
    with installed.mixer.mixing([mix], trace=True):
        logits = world.model(ids).logits
        weights = installed.mixer.weights(*ids.shape, mix.k)
    installed.remove()
    return logits, weights


def holes(world, k: int) -> torch.Tensor:
    """The first adapter lacks the first layer, the second some modules, all of them one more."""
    layout = world.layout
    off = torch.zeros(len(layout.flat), k + 1, dtype=torch.bool)
    for n, path in enumerate(layout.flat):
        layer, module = layout.places.at[path]
        off[n, 0] |= layer == 0 and k > 0
        if k > 1:
            off[n, 1] |= module % 2 == 1
        if (layer, module) == (1, 0):
            off[n] = True
    return off


@pytest.mark.parametrize("way", ["rows", "all"])
@pytest.mark.parametrize("method", EVERY)
def test_off_is_what_the_naive_form_gives_without_it(world, method, way):
    names, ids = names_of(method), torch.randint(0, 61, (1, 5))
    off = holes(world, len(names))
    expected, gates = plain(world, ids, method, names, off)
    logits, (trace,) = run(world, ids, [placement_of(world, method, names, off)], way)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(trace[None, :, WEIGHT].float(), gates.float(), rtol=0, atol=4e-3)
    for path, row in zip(world.layout.flat, off, strict=True):
        layer, module = world.layout.places.at[path]
        assert not trace[:, CONTRIBUTION, layer, module, row[: len(names)]].any()
    if method != "base":
        whole, _ = run(world, ids, [placement_of(world, method, names)], way)
        assert (whole - logits).abs().max() > 1e-3, "what is off was nothing"


@pytest.mark.parametrize("method", MIXING)
def test_without_anything_the_base_is_left(llama, method):
    request = Request("made up", method=method, without=[(None, None, None)])
    names, ids = names_of(method), torch.randint(0, 61, (1, 5))
    candidates = [llama.candidate(name) for name in names]
    ((_, off),) = read_switches(request, candidates, llama.layout, given=3)
    for way in ("rows", "all"):
        logits, (trace,) = run(llama, ids, [placement_of(llama, method, names, off)], way)
        torch.testing.assert_close(logits, llama.model(ids).logits, rtol=1e-5, atol=1e-5)
        assert not trace[:, CONTRIBUTION].any()


def test_others_who_use_the_same_adapters_do_not_feel_it(llama):
    every = [placement_of(llama, method, names_of(method)) for method in EVERY]
    ids = torch.randint(0, 61, (1, 5))
    off = placement_of(llama, "ramole", names_of("ramole"), holes(llama, 3))
    many = ids.repeat(len(every) + 1, 1)
    for way in ("rows", "all"):
        before, _ = run(llama, many[1:], every, way)
        after, _ = run(llama, many, [off, *every], way)
        torch.testing.assert_close(after[1:], before, rtol=1e-5, atol=1e-5)


def test_nothing_off_is_the_same_placement(llama):
    for method in EVERY:
        names = names_of(method)
        nothing = torch.zeros(len(llama.layout.flat), len(names) + 1, dtype=torch.bool)
        whole = placement_of(llama, method, names)
        assert placement_of(llama, method, names, nothing).key == whole.key


def test_weights_that_a_request_gives_are_off_as_well(llama):
    names, off = names_of("mixture"), holes(llama, 3)
    given = {"adapters": names, "weights": [0.5, 2.0, 1.0]}
    for method in ("mixture", "ramole", "fusion"):
        placement = placement_of(llama, method, names, off, **given)
        whole = placement_of(llama, method, names, **given)
        assert torch.equal(placement.has, ~off[:, :3] & whole.has)
        assert torch.equal(placement.decision.weights, whole.decision.weights)
        assert placement.key != whole.key


def test_a_merge_is_made_again_without_it_and_kept(llama):
    names = names_of("fusion")
    off = torch.zeros(len(llama.layout.flat), 4, dtype=torch.bool)
    off[3, 0] = True
    before = llama.store.makes
    first = placement_of(llama, "fusion", names, off)
    again = placement_of(llama, "fusion", names, off)
    assert llama.store.makes == before + 1 and first.adapters[0] == again.adapters[0]
    off[3] = True
    assert not placement_of(llama, "fusion", names, off).row.present[3].any()


def test_of_a_bypass_that_is_all_off_nothing_is_held(llama):
    (method,), names = ONE, NAMES[:1]
    off = torch.zeros(len(llama.layout.flat), 2, dtype=torch.bool)
    off[:, -1] = True
    whole, bare = (placement_of(llama, method, names, one) for one in (None, off))
    assert whole.bypass is not None and bare.bypass is None and len(bare.adapters) == 1


# --- what a request says --------------------------------------------------------------------------


def candidates(*names):
    return [Candidate(name, 0.5, name, dict) for name in names]


def off_places(layout, off) -> set:
    """(layer, module, column) of all that is off."""
    places = layout.places
    return {
        (places.layers[layer], places.modules[module], column)
        for path, row in zip(layout.flat, off.tolist(), strict=True)
        for layer, module in [places.at[path]]
        for column, one in enumerate(row)
        if one
    }


def read(world, without, *, given=10, names=("ant", "bee")):
    request = Request("made up", without=without)
    check_switches(request, candidates(*names), world.layout)
    found = read_switches(request, candidates(*names), world.layout, given=given)
    return [(start, off_places(world.layout, off)) for start, off in found]


def test_what_is_off_and_from_where(world):
    modules = world.layout.places.modules
    one = modules[1]
    assert read(world, []) == []
    assert read(world, [("bee", 1, one)]) == [(9, {(1, one, 1)})]
    assert read(world, [("ant", None, one)]) == [(9, {(0, one, 0), (1, one, 0)})]
    assert read(world, [(None, 1, one)]) == [(9, {(1, one, column) for column in range(3)})]
    assert len(read(world, [(None, None, None, 2), ("ant", 0, None, 5)])) == 1, "off already"
    ((start, off),) = read(world, [(None, 0, None, 4)])
    assert start == 4 and off == {(0, m, column) for m in modules for column in range(3)}


def test_what_is_off_stays_off_and_starts_are_in_order(world):
    one, two = world.layout.places.modules[:2]
    without = [("bee", 1, two, 12), ("ant", 0, one), ("bee", 0, one, 0), ("ant", 1, one)]
    first, second, third = {(0, one, 1)}, {(0, one, 0), (1, one, 0)}, {(1, two, 1)}
    assert read(world, without) == [
        (0, first),
        (9, first | second),
        (12, first | second | third),
    ]


def test_another_turn_s_adapters_are_off_where_it_has_them(world):
    request = Request("made up", without=[("ant", 0, None), (None, 1, None)])
    one = read_switches(request, candidates("cat", "ant"), world.layout, given=3)
    none = read_switches(request, candidates("cat"), world.layout, given=3)
    columns = [{c for _, _, c in off_places(world.layout, found[0][1])} for found in (one, none)]
    assert columns == [{0, 1, 2}, {0, 1}]
    only = Request("made up", without=[("ant", 0, None)])
    assert read_switches(only, candidates("cat"), world.layout, given=3) == []


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ([("cat", None, None)], "adapter 'cat', and this request mixes ant, bee"),
        ([(None, 2, None)], "layer 2; the base has 0 to 1"),
        ([(None, None, "nose")], "module 'nose'; the base has .*, "),
    ],
)
def test_what_is_not_there_is_told_with_what_is(world, without, message):
    with pytest.raises(RamoleError, match=message):
        read(world, without)
    with pytest.raises(RamoleError, match="mixes none"):
        read(world, [("ant", None, None)], names=())
