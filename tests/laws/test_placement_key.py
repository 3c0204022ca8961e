"""One key, one set of numbers: whatever changes what a placement does changes its key."""

from dataclasses import fields, replace

import pytest
import torch

from ramole_core import Request
from ramole_core.composition import (
    METHODS,
    Bypass,
    Decision,
    Gate,
    Lora,
    Merge,
    Response,
    Trained,
)
from ramole_core.engine.placement_key import BARE_KEY, KEY_BYTES, _add_gate, _Digest
from ramole_core.methods import Option
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
    assert prepare(llama, method, candidates=[]).key == BARE_KEY


def test_no_two_methods_share_a_key(llama):  # noqa: F811
    assert len({prepare(llama, method).key for method in EVERY}) == len(EVERY)


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
def test_whatever_is_asked_otherwise_changes_the_key(llama, method):  # noqa: F811
    names = names_of(method)
    off = holes(llama, len(names))
    less = off.clone()
    less[-1] = True
    louder = [1.5 + n for n in range(1, len(names) + 1)]
    asked = {
        "nothing": {},
        "off": {"off": off},
        "more off": {"off": less},
        "weights": {"adapters": names, "weights": [1.5] * len(names)},
        "others": {"adapters": names, "weights": louder},
    }
    for option in METHODS[method].row.options:
        if option.name not in ELSEWHERE.get(method, ()):
            asked[option.name] = {"options": {option.name: other_value(option)}}
    if not METHODS[method].fixed:  # such a one refuses content that it does not know
        one, *others = (llama.candidate(name) for name in names)
        other = {path: Lora(A=lora.A * 2, B=lora.B) for path, lora in llama.pool["ant"].items()}
        again = replace(one, checksum="ant again", load=lambda: other)
        asked["other content of that name"] = {"candidates": [again, *others]}
    keys = {what: prepare(llama, method, **how).key for what, how in asked.items()}
    assert len(set(keys.values())) == len(keys), keys


@pytest.mark.parametrize("method", [m for m in MIXING if m not in ("trial_parallel", "ca_lora")])
def test_the_order_of_adapters_changes_the_key(llama, method):  # noqa: F811
    names = list(names_of("mixture"))  # those two know one adapter only
    assert prepare(llama, method, names).key != prepare(llama, method, names[::-1]).key


TRAINED = [m for m in MIXING if m.startswith("trial") or m in ("ramole", "ramole_plus", "ca_lora")]


@pytest.mark.parametrize("method", TRAINED)
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
    """Scores and responses of another prompt: a new key where weights or gate depend on them. A
    name decides nothing: the same content under another may share what was read."""
    candidates, changed = [llama.candidate(name) for name in names_of(method)], []
    for n, one in enumerate(candidates, 1):
        assert one.response is not None
        louder = one.response.log_norms + 0.1 * n
        response = Response(louder, one.response.usual, one.response.present)
        changed.append(replace(one, score=one.score + 0.05 * n, response=response))
    before = prepare(llama, method, candidates=candidates)
    after = prepare(llama, method, candidates=changed)
    same = torch.equal(before.decision.weights, after.decision.weights)
    gate = before.decision.gate
    counts = not same or method == "ramole_plus" or (gate is not None and gate.score is not None)
    assert (after.key != before.key) == counts
    if method in ("mixture", "ramole", "fusion", "ramole_plus"):
        renamed = [replace(one, name=f"my {one.name}") for one in candidates]
        assert prepare(llama, method, candidates=renamed).key == before.key


def test_each_field_of_a_gate_counts():
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

    def key(**change) -> bytes:
        digest = _Digest()
        _add_gate(digest, replace(full, **change))
        return digest.bytes

    every = [{}, {"linear": {"b": torch.zeros(2, 7)}}, *({n: v} for n, v in changes.items())]
    assert len({key(**change) for change in every}) == len(every)
    assert key(own=0.0) == key(own=0.0, usual=None), "not read"


def test_nothing_else_decides():
    """A new field needs its place in the key: here is where one that forgets it stops."""
    assert {f.name for f in fields(Decision)} == {"weights", "gate", "merge", "bypass"}
    assert {f.name for f in fields(Merge)} == {"make", "rank"}
    assert {f.name for f in fields(Bypass)} == {"loras", "key", "activation"}
