"""One key, one set of numbers: whatever changes what a placement does changes its key."""

from dataclasses import fields, replace

import pytest
import torch

from ramole_core.composition import (
    METHODS,
    Bypass,
    Candidate,
    Decision,
    Gate,
    Lora,
    Merge,
    Response,
    Trained,
)
from ramole_core.engine.placement_key import BARE_KEY, KEY_BYTES
from ramole_core.methods import Option
from ramole_core.request import Request
from tests.laws.test_switches import (
    EVERY,
    MIXING,
    holes,
    llama as llama,  # noqa: F401
    names_of,
)
from tests.laws.test_trial_methods import tried as tried  # noqa: F401


def prepare(world, method, names=None, off=None, *, candidates=None, **changes):
    if candidates is None:
        candidates = [world.candidate(name) for name in names or names_of(method)]
    request = Request("made up", **{"method": method, **changes})
    return world.placer.prepare(request, candidates, off)


@pytest.mark.parametrize("method", EVERY)
def test_preparing_twice_gives_the_same_key(llama, method):  # noqa: F811
    first, again = (prepare(llama, method).key for _ in range(2))
    assert first == again and len(first) == KEY_BYTES
    other = Request("another prompt", method=method, seed=4, temperature=0.5)
    candidates = [llama.candidate(name) for name in names_of(method)]
    assert llama.placer.prepare(other, candidates).key == first


def test_no_two_methods_share_a_key(llama):  # noqa: F811
    keys = {}
    for method in EVERY:
        keys.setdefault(prepare(llama, method).key, []).append(method)
    assert sorted(map(len, keys.values())) == [1] * len(EVERY), keys


@pytest.mark.parametrize("method", EVERY)
def test_without_adapters_every_method_is_the_bare_base(llama, method):  # noqa: F811
    assert prepare(llama, method, candidates=[]).key == BARE_KEY


@pytest.mark.parametrize("method", MIXING)
def test_what_is_off_changes_the_key(llama, method):  # noqa: F811
    off = holes(llama, len(names_of(method)))
    less = off.clone()
    less[-1] = True
    keys = {prepare(llama, method, off=one).key for one in (None, off, less)}
    assert len(keys) == 3


@pytest.mark.parametrize("method", MIXING)
def test_weights_change_the_key(llama, method):  # noqa: F811
    names = names_of(method)
    keys = {prepare(llama, method).key}
    for weights in ([1.5] * len(names), [1.5 + n for n in range(1, len(names) + 1)]):
        keys.add(prepare(llama, method, adapters=names, weights=weights).key)
    assert len(keys) == 3


def other_value(option: Option):
    if isinstance(option.default, bool):
        return not option.default
    return next(
        v
        for v in (option.default + 1, option.default - 1, option.default / 2)
        if option.low <= v <= option.high
    )


ELSEWHERE = {
    "ramole_plus": ("unknown", "tied"),  # adapters without examples, or where two fit
    "lorauter": ("temperature", "masked_tasks"),  # they count where adapters are chosen
}
"""Options that say what happens where nothing happens here, so the decision, and its key, is the
same."""


@pytest.mark.parametrize("method", MIXING)
def test_each_option_changes_the_key(llama, method):  # noqa: F811
    default = prepare(llama, method).key
    for option in METHODS[method].row.options:
        if option.name in ELSEWHERE.get(method, ()):
            continue
        changed = prepare(llama, method, options={option.name: other_value(option)}).key
        assert changed != default, option.name


@pytest.mark.parametrize("method", MIXING)
def test_the_order_of_adapters_changes_the_key(llama, method):  # noqa: F811
    names = list(names_of("mixture"))
    if method in ("trial_parallel", "ca_lora"):
        pytest.skip("knows one adapter only")
    assert prepare(llama, method, names).key != prepare(llama, method, names[::-1]).key


@pytest.mark.parametrize("method", MIXING)
def test_other_content_under_the_same_name_changes_the_key(llama, method):  # noqa: F811
    if METHODS[method].fixed:
        pytest.skip("refuses content that it does not know")
    candidates = [llama.candidate(name) for name in names_of(method)]
    other = {path: Lora(A=lora.A * 2, B=lora.B) for path, lora in llama.pool["ant"].items()}
    changed = [replace(candidates[0], checksum="ant again", load=lambda: other), *candidates[1:]]
    assert prepare(llama, method, candidates=changed).key != prepare(llama, method).key


@pytest.mark.parametrize(
    "method",
    [m for m in MIXING if m.startswith("trial") or m in ("ramole", "ramole_plus", "ca_lora")],
)
def test_other_trained_weights_change_the_key(llama, method, monkeypatch):  # noqa: F811
    folder = METHODS[method].row.weights
    if not folder:
        pytest.skip("nothing is trained")
    before, trained = prepare(llama, method).key, llama.trained[folder]
    moved = {name: tensor * 1.25 for name, tensor in trained.tensors.items()}
    other = Trained(moved, trained.checksum + " moved", trained.config)
    monkeypatch.setitem(llama.trained, folder, other)
    assert prepare(llama, method).key != before


@pytest.mark.parametrize("method", MIXING)
def test_what_the_prompt_says_of_the_adapters_counts_where_it_is_read(llama, method):  # noqa: F811
    """Scores and responses of another prompt: a new key where weights or gate depend on them."""
    candidates = [llama.candidate(name) for name in names_of(method)]
    changed = [moved(one, n) for n, one in enumerate(candidates)]
    before = prepare(llama, method, candidates=candidates)
    after = prepare(llama, method, candidates=changed)
    same = torch.equal(before.decision.weights, after.decision.weights)
    told = before.decision.gate
    if not same or method == "ramole_plus" or (told is not None and told.score is not None):
        assert after.key != before.key
    else:
        assert after.key == before.key


def moved(one: Candidate, n: int) -> Candidate:
    response = one.response
    assert response is not None
    louder = Response(response.log_norms + 0.1 * (n + 1), response.usual, response.present)
    return replace(one, score=one.score + 0.05 * (n + 1), response=louder)


@pytest.mark.parametrize("method", ["mixture", "ramole", "fusion", "ramole_plus"])
def test_a_name_is_nothing_that_decides(llama, method):  # noqa: F811
    """The same content under another name may share what was read."""
    candidates = [llama.candidate(name) for name in names_of(method)]
    renamed = [replace(one, name=f"my {one.name}") for one in candidates]
    assert prepare(llama, method, candidates=renamed).key == prepare(llama, method).key


def test_each_field_of_a_gate_counts():
    from ramole_core.engine.placement_key import _add_gate, _Digest

    table = torch.zeros(5, 2)
    full = Gate(
        linear={"a": torch.zeros(2, 7)},
        offset=table,
        own=0.5,
        usual=torch.ones(5, 2, 2),
        bias=table,
        top=1,
    )
    changes = {
        "linear": {"a": torch.ones(2, 7)},
        "offset": table + 1,
        "own": 0.25,
        "usual": torch.ones(5, 2, 2) * 2,
        "bias": table + 1,
        "top": 2,
        "per": "block",
        "softmax": False,
        "keeps": False,
    }
    others = {"router", "score"}  # by checksum, by what its method was told: tested above
    assert set(changes) | others == {field.name for field in fields(Gate)}

    def key(gate: Gate) -> bytes:
        digest = _Digest()
        _add_gate(digest, gate)
        return digest.bytes

    keys = {key(full), *(key(replace(full, **{n: v})) for n, v in changes.items())}
    assert len(keys) == len(changes) + 1
    assert key(replace(full, own=0.0)) == key(replace(full, own=0.0, usual=None)), "not read"
    moved = replace(full, linear={"b": torch.zeros(2, 7)})
    assert key(moved) != key(full)


def test_nothing_else_decides():
    """A new field needs its place in the key: here is where one that forgets it stops."""
    assert {f.name for f in fields(Decision)} == {"weights", "gate", "merge", "bypass"}
    assert {f.name for f in fields(Merge)} == {"make", "rank"}
    assert {f.name for f in fields(Bypass)} == {"loras", "key", "activation"}
