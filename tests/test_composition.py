"""Every method against its equation, written as loops in float64, and the laws that all obey."""

import math
from dataclasses import replace

import pytest
import torch

from ramole_core.composition import (
    METHODS,
    Lora,
    ModuleRouter,
    Sites,
    Trained,
    block_of,
    find_method,
)
from ramole_core.composition.ramole import attend_naive
from ramole_core.errors import RamoleError
from ramole_core.layers.places import find_places
from ramole_core.layers.plain import Mixer, PlainMix
from ramole_core.layers.plain.mix import mix_at
from ramole_core.methods import METHOD_LIST, complete_options, find_row
from tests.tiny_methods import NAMES, SCORES, SURPRISES, USUAL, make_recovered, plain_of

l, k, i, o, s = 3, 4, 7, 11, 5  # all different, so no transposition can hide
RANKS = (2, 6, 1, 8)
PATH = "blocks.0.proj"
SITES = Sites((PATH,), {PATH: (i, o)})

_made = make_recovered(SITES, known=NAMES, seed=5)
RECOVERED = replace(_made, tensors={name: t.double() for name, t in _made.tensors.items()})

WEIGHT_SPACE = {"fusion"}
"""Their update is not a sum of the LoRAs' own: with one LoRA they are that LoRA all the same."""
_pick = torch.Generator().manual_seed(6)


def _drawn(*shape):
    return torch.randn(*shape, generator=_pick, dtype=torch.float64)


EXPERTS = Trained(
    {
        f"router/{block_of(PATH)}.W": _drawn(3, i),
        f"router/{block_of(PATH)}.c": _drawn(3),
        **{f"expert_{j}/{PATH}.A": _drawn(2 + j, i) for j in range(3)},
        **{f"expert_{j}/{PATH}.B": _drawn(o, 2 + j) for j in range(3)},
    }
)

ONE_EXPERT = {"selection", "ca_lora"}
"""They take the first LoRA only, so their order matters by definition."""
FURTHER = {"ca_lora"}
"""They mix LoRAs of their own in the place of the request's, and a bypass that speaks also where an
adapter lacks the module: at their start the laws hold (`test_ca_lora.py`)."""
OWN = {"llava_mole"}
"""They bring adapters of their own, so nothing hangs on the request's (`test_llava_mole.py`)."""


@pytest.fixture(autouse=True)
def doubles():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make_loras(ranks=RANKS):
    return [Lora(A=torch.randn(r, i), B=torch.randn(o, r)) for r in ranks]


def make_router():
    return ModuleRouter(A=torch.randn(s, i), B=torch.randn(o, s))


def placed(name, loras, router=None, weights=None, order=(0, 1, 2, 3), **options) -> PlainMix:
    """`loras` in the request's order, None where one lacks the module; `order` are their names."""
    pool = {NAMES[order[n]]: {} if lora is None else {PATH: lora} for n, lora in enumerate(loras)}
    router = router or make_router()
    tensors = {f"{PATH}.A_r": router.A, f"{PATH}.B_r": router.B}
    trained = {"_router": Trained(tensors), "_ca_lora": RECOVERED, "_llava_mole": EXPERTS}
    return plain_of(name, pool, SITES, trained=trained, weights=weights, options=options or None)


def run(mix: PlainMix, x):
    """The update and the weights of one request; the module's block has the same input."""
    mixed = mix_at(mix, PATH, x, x)
    update = torch.zeros(*x.shape[:2], o) if mixed.update is None else mixed.update
    return update, mixed.alpha


def batch(mixes, x):
    """The updates of many requests at once."""
    mixer = Mixer(find_places([PATH]))
    with mixer.mixing(mixes, trace=True):
        mixer.blocks[block_of(PATH)] = x
        y = mixer.add(PATH, x, torch.zeros(*x.shape[:2], o))
        return y, mixer.alpha[PATH]


def update(lora, x):
    """v = B A x; 0 where the adapter lacks the module."""
    return torch.zeros(o) if lora is None else lora.B @ (lora.A @ x)


def zero(x, loras, router):
    return torch.zeros(o)


def first(x, loras, router):
    return update(loras[0], x)


def mean(x, loras, router):
    return sum(update(lora, x) for lora in loras) / len(loras)


def mean_of_halves(x, loras, router):
    r = max(lora.A.shape[0] for lora in loras if lora)
    A, B = torch.zeros(r, i), torch.zeros(o, r)
    for lora in filter(None, loras):
        for unit in range(lora.A.shape[0]):
            A[unit] += lora.A[unit] / len(loras)
            B[:, unit] += lora.B[:, unit] / len(loras)
    return B @ A @ x


def attention(x, loras, router):
    v = [update(lora, x) for lora in loras]
    scores = [float((router.A @ x) @ (router.B.T @ vj)) / math.sqrt(router.A.shape[0]) for vj in v]
    top = max(scores)
    e = [math.exp(score - top) for score in scores]
    return sum(ej / sum(e) * vj for ej, vj in zip(e, v, strict=True))


def at_random(x, loras, router):
    """The gate that `random_router` gets, which is as large as the trained one."""
    trained = Trained({f"{PATH}.A_r": router.A, f"{PATH}.B_r": router.B})
    from ramole_core.composition import random_router
    from ramole_core.composition.router import read_router

    like = read_router(trained, shapes=SITES.shapes)
    return attention(x, loras, random_router(SITES.shapes, rank=s, like=like).modules[PATH])


def by_similarity(x, loras, router):
    e = [math.exp(SCORES[name] / 0.05) for name, _ in zip(NAMES, loras, strict=False)]
    return sum(ej / sum(e) * update(lora, x) for ej, lora in zip(e, loras, strict=True))


def by_evidence(x, loras, router):
    v, n = [update(lora, x) for lora in loras], complete_options("ramole_plus", None)
    names, e = NAMES[: len(v)], []
    best = max(SCORES[name] for name in names)
    second = max([SCORES[name] for name in names if SCORES[name] < best], default=-1.0)
    alike = math.exp(-(best - second) / 0.01)  # no two scores are equal
    s = n["surprise"] * (1 + (n["tied"] - 1) * alike)
    for name, lora, vj in zip(names, loras, v, strict=True):
        mean, deviation = USUAL[name]
        z = 0.0 if lora is None else (math.log(float(vj.norm())) - mean) / deviation
        own = n["own"] * max(-4.0, min(4.0, z))
        prior = -(best - SCORES[name]) / n["bandwidth"]
        surprise = 0.0 if lora is None else SURPRISES[name]  # of its only module
        e.append(math.exp(prior + s * surprise + own))
    return sum(ej / sum(e) * vj for ej, vj in zip(e, v, strict=True))


def by_prototype(x, loras, router):
    n = complete_options("arrow", None)
    scores = []
    for lora in loras:
        a = torch.zeros(i) if lora is None else torch.linalg.svd(lora.B @ lora.A).Vh[0]
        scores.append(abs(sum(float(a[d]) * float(x[d]) for d in range(i))))
    best = sorted(range(len(loras)), key=lambda j: -scores[j])[: n["top"]]
    e = {j: math.exp(scores[j] / n["temperature"]) for j in best}
    return sum(e[j] / sum(e.values()) * update(loras[j], x) for j in best)


def recovered(x, loras, router):
    """Of the first adapter, whatever its LoRA was before."""
    get = {name[2:]: t for name, t in RECOVERED.tensors.items() if name[:2] == "0/"}
    A, B, a1, a2 = (get[f"{PATH}.{letter}"] for letter in ("A", "B", "a1", "a2"))
    y = torch.zeros(o)
    for unit in range(A.shape[0]):
        y += B[:, unit] * sum(float(A[unit, d]) * float(x[d]) for d in range(i))
    for unit in range(a1.shape[0]):
        h = sum(float(a1[unit, d]) * float(x[d]) for d in range(i))
        y += a2[:, unit] * 0.5 * h * (1 + math.erf(h / math.sqrt(2)))
    return y


def by_choice(x, loras, router):
    """The expert whose row of the router says most; the attention's LoRA is not here."""
    get, parent = EXPERTS.tensors, block_of(PATH)
    W, c = get[f"router/{parent}.W"], get[f"router/{parent}.c"]
    z = [sum(float(W[j, d]) * float(x[d]) for d in range(i)) + float(c[j]) for j in range(3)]
    e = z.index(max(z))
    return get[f"expert_{e}/{PATH}.B"] @ (get[f"expert_{e}/{PATH}.A"] @ x)


ORACLES = {
    "base": zero,
    "selection": first,
    "mixture": mean,
    "fusion": mean_of_halves,
    "ramole": attention,
    "random_router": at_random,
    "uniform_router": mean,
    "similarity": by_similarity,
    "ramole_plus": by_evidence,
    "arrow": by_prototype,
    "ca_lora": recovered,
    "llava_mole": by_choice,
}
MIXING = [name for name in METHODS if name != "base"]


def test_each_method_has_an_oracle_and_a_row_in_the_list():
    assert set(ORACLES) == set(METHODS)
    assert list(METHODS) == [row.name for row in METHOD_LIST]
    assert all(METHODS[row.name].row == row for row in METHOD_LIST)


@pytest.mark.parametrize("name", METHODS)
def test_matches_the_equation(name):
    x, loras, router = torch.randn(1, l, i), make_loras(), make_router()
    y, _ = run(placed(name, loras, router), x)
    for t in range(l):
        torch.testing.assert_close(
            y[0, t], ORACLES[name](x[0, t], loras, router), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("name", sorted(set(MIXING) - FURTHER - OWN))
def test_one_lora_is_that_lora(name):
    x, loras = torch.randn(1, l, i), make_loras((3,))
    y, alpha = run(placed(name, loras), x)
    torch.testing.assert_close(y, x @ loras[0].A.T @ loras[0].B.T)
    torch.testing.assert_close(alpha, torch.ones(1, l, 1))


@pytest.mark.parametrize("name", sorted(set(MIXING) - ONE_EXPERT - OWN))
def test_order_of_loras_does_not_matter(name):
    x, loras, router = torch.randn(1, l, i), make_loras(), make_router()
    order = [2, 0, 3, 1]
    y, alpha = run(placed(name, loras, router), x)
    permuted, alpha_permuted = run(placed(name, [loras[j] for j in order], router, order=order), x)
    torch.testing.assert_close(y, permuted)
    torch.testing.assert_close(alpha[..., order], alpha_permuted)


@pytest.mark.parametrize("name", METHODS)
def test_a_request_does_not_feel_its_batch(name):
    x, router = torch.randn(len(METHODS) + 1, l, i), make_router()
    mine = placed(name, make_loras((4, 2)), router)
    others = [placed(other, make_loras((1, 9, 3)), router) for other in METHODS]
    alone, alpha = run(mine, x[:1])
    together, alphas = batch([mine, *others], x)
    torch.testing.assert_close(together[:1], alone)
    torch.testing.assert_close(alphas[:1, :, : mine.k].to(alpha), alpha, rtol=1e-6, atol=1e-6)
    assert not alphas[0, :, mine.k :].any()


def test_rows_that_share_a_decision_keep_their_places():
    x, router = torch.randn(5, l, i), make_router()
    a = placed("mixture", make_loras((4, 2)), router)
    b = placed("ramole", make_loras((1, 9, 3)), router)
    c = placed("similarity", make_loras(), router)
    order = [a, b, a, c, b]
    together, alphas = batch(order, x)
    for n, mix in enumerate(order):
        alone, alpha = run(mix, x[n : n + 1])
        torch.testing.assert_close(together[n : n + 1], alone)
        torch.testing.assert_close(alphas[n : n + 1, :, : mix.k].to(alpha), alpha)


@pytest.mark.parametrize("name", METHODS)
def test_extra_zero_rank_changes_nothing(name):
    x, loras, router = torch.randn(1, l, i), make_loras(), make_router()
    longer = [
        Lora(A=torch.cat([m.A, torch.zeros(2, i)]), B=torch.cat([m.B, torch.zeros(o, 2)], dim=1))
        for m in loras
    ]
    y, _ = run(placed(name, loras, router), x)
    padded, _ = run(placed(name, longer, router), x)
    torch.testing.assert_close(y, padded)


@pytest.mark.parametrize("name", MIXING)
def test_weights_are_a_distribution(name):
    _, alpha = run(placed(name, make_loras()), torch.randn(1, l, i))
    assert (alpha >= 0).all()
    torch.testing.assert_close(alpha.sum(-1), torch.ones(1, l), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("lacking", [{1}, {0, 2}, {0}, {0, 1, 2, 3}], ids=str)
def test_an_absent_module_is_an_update_of_zero_that_keeps_its_share(name, lacking):
    x, router = torch.randn(1, l, i), make_router()
    loras = [None if n in lacking else lora for n, lora in enumerate(make_loras())]
    y, alpha = run(placed(name, loras, router), x)
    if lacking != {0, 1, 2, 3}:
        for t in range(l):
            torch.testing.assert_close(
                y[0, t], ORACLES[name](x[0, t], loras, router), rtol=1e-6, atol=1e-6
            )
    torch.testing.assert_close(alpha.sum(-1), torch.ones(1, l), rtol=1e-6, atol=1e-6)
    if name not in ONE_EXPERT | OWN | {"arrow"}:  # which takes its best only
        assert alpha.gt(0).all(), "the weight is the share that the gate gave"


def test_evidence_can_be_told_to_share_among_those_that_have_the_module():
    """The choice of `ramole_plus` is an option, to be measured."""
    x, (a, _, b, _), router = torch.randn(1, l, i), make_loras(), make_router()
    kept, alpha = run(placed("ramole_plus", [a, None, b], router), x)
    masked, shared = run(placed("ramole_plus", [a, None, b], router, keeps=False), x)
    assert alpha[..., 1].all() and not shared[..., 1].any()
    torch.testing.assert_close(shared[..., [0, 2]], alpha[..., [0, 2]] / (1 - alpha[..., 1:2]))
    torch.testing.assert_close(masked * (1 - alpha[..., 1:2]), kept)


@pytest.mark.parametrize("name", sorted(set(METHODS) - FURTHER - OWN))
def test_no_adapter_with_the_module_leaves_the_base_alone(name):
    y, _ = run(placed(name, [None, None]), torch.randn(1, l, i))
    assert not y.any()


@pytest.mark.parametrize("name", sorted(set(MIXING) - ONE_EXPERT - WEIGHT_SPACE - OWN))
def test_given_weights_replace_the_methods(name):
    x, loras, weights = torch.randn(1, l, i), make_loras(), [0.5, -1.0, 2.0, 0.25]
    y, alpha = run(placed(name, loras, weights=weights), x)
    expected = sum(w * (x @ m.A.T @ m.B.T) for w, m in zip(weights, loras, strict=True))
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(alpha, torch.tensor(weights).expand(1, l, k))


def test_given_weights_weigh_both_means_of_fusion():
    x, loras, weights = torch.randn(1, l, i), make_loras((3, 3)), [0.5, 2.0]
    y, _ = run(placed("fusion", loras, weights=weights), x)
    A = sum(w * m.A for w, m in zip(weights, loras, strict=True))
    B = sum(w * m.B for w, m in zip(weights, loras, strict=True))
    torch.testing.assert_close(y, x @ A.T @ B.T)


def test_an_untrained_router_is_the_mixture():
    x, loras, router = torch.randn(1, l, i), make_loras(), make_router()
    y, alpha = run(placed("ramole", loras, ModuleRouter(A=router.A, B=torch.zeros(o, s))), x)
    mixture, same = run(placed("mixture", loras), x)
    torch.testing.assert_close(y, mixture, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(alpha, same, rtol=1e-6, atol=1e-6)
    trained, uneven = run(placed("ramole", loras, router), x)
    assert (trained - mixture).abs().max() > 0.1 and (uneven - same).abs().max() > 0.1


def test_the_gram_gate_is_the_equation_with_every_output_in_full():
    x, loras, router = torch.randn(1, l, i), make_loras(), make_router()
    y, alpha = run(placed("ramole", loras, router), x)
    slow, weights = attend_naive(x[0], loras, router)
    torch.testing.assert_close(y[0], slow)
    torch.testing.assert_close(alpha[0], weights)


def test_fusion_is_the_mixture_only_where_the_halves_agree():
    x, (a, b) = torch.randn(1, l, i), make_loras((3, 3))
    agreeing = [a, Lora(A=a.A, B=b.B)]
    for loras, same in ((agreeing, True), ([a, b], False)):
        fused, mixed = (run(placed(name, loras), x)[0] for name in ("fusion", "mixture"))
        assert torch.allclose(fused, mixed, rtol=1e-6, atol=1e-6) == same


def test_gradients_reach_the_router_only():
    x, loras, router = torch.randn(1, l, i), make_loras(), make_router()
    leaves = [router.A.requires_grad_(), router.B.requires_grad_()]
    y, _ = run(placed("ramole", loras, router), x)
    y.square().sum().backward()
    assert all(leaf.grad.abs().sum() > 0 for leaf in leaves)


def test_an_option_changes_what_it_says():
    x, loras = torch.randn(1, l, i), make_loras()
    flat, sharp = (
        run(placed("similarity", loras, temperature=t), x)[1][0, 0] for t in (10.0, 0.001)
    )
    assert flat.max() - flat.min() < 0.02 and sharp.max() > 0.999
    _, loud = run(placed("ramole_plus", loras, bandwidth=1e6, surprise=10.0), x)
    assert (loud.argmax(-1) == 2).all(), "cat answers loudest"
    _, alone = run(placed("arrow", loras, top=1), x)
    assert ((alone == 1).sum(-1) == 1).all() and (alone == 0).sum() == 3 * l
    _, even = run(placed("arrow", loras, top=0, temperature=1000.0), x)
    torch.testing.assert_close(even, torch.full((1, l, k), 1 / k), rtol=0, atol=2e-3)
    none, usual, more = (
        run(placed("ca_lora", loras, recovery=amount), x)[0] for amount in (0.0, 1.0, 3.0)
    )
    assert (usual - none).abs().max() > 0.1
    torch.testing.assert_close(more - none, 3 * (usual - none), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("mixture", {"top": 3}, "no option 'top'; it has none"),
        ("similarity", {"heat": 1}, "no option 'heat'; it has temperature"),
        ("similarity", {"temperature": 0}, "from 0.001 to 10"),
        ("similarity", {"temperature": "warm"}, "is 'warm'; give a number"),
        ("similarity", {"temperature": float("nan")}, "give a number from"),
        ("mixtrue", {}, "mixtrue.*mixture"),
    ],
)
def test_an_option_that_cannot_be_is_refused(method, options, message):
    with pytest.raises(RamoleError, match=message):
        complete_options(method, options)
    assert complete_options("similarity", {"temperature": 1}) == {"temperature": 1.0}
    assert find_row("similarity").options[0].default == 0.05


def test_unknown_method_names_the_known_ones():
    with pytest.raises(RamoleError, match=r"mixtrue.*mixture"):
        find_method("mixtrue")


def test_wrong_shape_is_refused_at_the_door():
    with pytest.raises(Exception, match="(?i)type"):
        Lora(A=torch.randn(3), B=torch.randn(o, 3))
