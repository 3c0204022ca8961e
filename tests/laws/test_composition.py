"""Every method against its equation, written as loops in float64, and the laws that all obey."""

import math
from dataclasses import replace

import pytest
import torch
from sklearn.cluster import KMeans

from ramole_core import RamoleError
from ramole_core.composition import (
    METHODS,
    Ask,
    Candidate,
    Lora,
    ModuleRouter,
    Response,
    Router,
    Sites,
    Trained,
    block_of,
    find_method,
    random_router,
)
from ramole_core.composition.lego import cluster
from ramole_core.layers.layout import find_places
from ramole_core.layers.plain import Mixer, PlainMix
from ramole_core.layers.plain.mix import mix_at
from ramole_core.methods import METHOD_LIST, complete_options, find_row
from tests.support.tiny_methods import (
    NAMES,
    SCORES,
    SHARES,
    SURPRISES,
    USUAL,
    kept_by_draw,
    made_up_means,
    make_gates,
    make_recovered,
    plain_of,
)

l, k, i, o, s = 3, 4, 7, 11, 5  # all different, so no transposition can hide
RANKS = (2, 6, 1, 8)
PATH = "blocks.0.proj"
SITES = Sites((PATH,), {PATH: (i, o)})

_made = make_recovered(SITES, known=NAMES, seed=5)
RECOVERED = replace(_made, tensors={name: t.double() for name, t in _made.tensors.items()})

WEIGHT_SPACE = {"fusion", "lorahub", "lego", "ties", "dare", "smear"}
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
FREE_SUM = {"lora_flow"}
"""A learned bias is added to their weights, which then need not sum to 1, not even of one LoRA."""
OF_THE_BEST = {"arrow", "meteora", "spectr", "lag", "logo"}
"""They give no weight to all but their best."""
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


def pool_gates():
    """Weights of the methods that know the four adapters only."""
    return make_gates(SITES, [(name, name) for name in NAMES])


def into_block(x):
    """What enters the block whose module reads x, made up."""
    return 2 * x.flip(-1) - 0.3


def placed(
    name, loras, router=None, weights=None, order=(0, 1, 2, 3), gates=None, **options
) -> PlainMix:
    """`loras` in the request's order, None where one lacks the module; `order` are their names."""
    pool = {NAMES[order[n]]: {} if lora is None else {PATH: lora} for n, lora in enumerate(loras)}
    router = router or make_router()
    tensors = {f"{PATH}.A_r": router.A, f"{PATH}.B_r": router.B}
    trained = {"_router": Trained(tensors), **(gates or pool_gates())}
    trained |= {"_ca_lora": RECOVERED, "_llava_mole": EXPERTS}
    return plain_of(name, pool, SITES, trained=trained, weights=weights, options=options or None)


def run(mix: PlainMix, x):
    """The update and the weights of one request."""
    mixed = mix_at(mix, PATH, x, into_block(x))
    update = torch.zeros(*x.shape[:2], o) if mixed.update is None else mixed.update
    return update, mixed.alpha


def batch(mixes, x):
    """The updates of many requests at once."""
    mixer = Mixer(find_places([PATH]))
    with mixer.mixing(mixes, trace=True):
        mixer.blocks[block_of(PATH)] = into_block(x)
        y = mixer.add(PATH, x, torch.zeros(*x.shape[:2], o))
        return y, mixer.alpha[PATH]


def update(lora, x):
    """v = B A x; 0 where the adapter lacks the module."""
    return torch.zeros(o) if lora is None else lora.B @ (lora.A @ x)


def product(lora, x):
    """Of the inputs of all tokens."""
    return x @ lora.A.T @ lora.B.T


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
    like = Router({PATH: router}, s, "a sum")
    return attention(x, loras, random_router(SITES.shapes, rank=s, like=like).modules[PATH])


def by_similarity(x, loras, router):
    e = [math.exp(SCORES[name] / 0.05) for name, _ in zip(NAMES, loras, strict=False)]
    return sum(ej / sum(e) * update(lora, x) for ej, lora in zip(e, loras, strict=True))


def by_evidence(x, loras, router):
    v, n = [update(lora, x) for lora in loras], complete_options("ramole_plus", None)
    names, e = NAMES[: len(v)], []
    best = max(SCORES[name] for name in names)
    second = max([SCORES[name] for name in names if SCORES[name] < best], default=-1.0)
    near = math.exp(-(((best - second) / 0.1) ** 2))  # no two are equal
    alike = max(0.0, second - 0.25) / 0.1 * near
    s = n["surprise"] * (1 + n["tied"] * alike)
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


def by_cluster(x, loras, router):
    """LoRA-LEGO with k = the largest rank."""
    pool, r = [], 0
    for lora in filter(None, loras):
        mine = [torch.cat([lora.A[j], lora.B[:, j]]).tolist() for j in range(lora.A.shape[0])]
        mine = [m for m in mine if any(m[:i]) and any(m[i:])]
        pool, r = pool + mine, max(r, len(mine))
    k = min(r, len(pool))

    def apart(m, c):
        return sum((md - cd) ** 2 for md, cd in zip(m, c, strict=True))

    def mean(clusters, n):
        mine = [m for m, c in zip(pool, clusters, strict=True) if c == n]
        return [sum(m[d] for m in mine) / len(mine) for d in range(i + o)]

    centres = [max(pool, key=lambda m: apart(m, [0.0] * (i + o)))]
    while len(centres) < k:
        centres.append(max(pool, key=lambda m: min(apart(m, c) for c in centres)))
    clusters = None
    while True:
        new = [min(range(k), key=lambda n: apart(m, centres[n])) for m in pool]
        if new == clusters:
            break
        clusters, centres = new, [mean(new, n) for n in range(k)]
    y = torch.zeros(o)
    for n, c in enumerate(centres):
        mine = [max(map(abs, m)) for m, at in zip(pool, clusters, strict=True) if at == n]
        c = torch.tensor(c) * (sum(mine) / len(mine)) / max(map(abs, c))
        y += math.sqrt(r / k) * c[i:] * float(c[:i] @ x)
    return y


def halves(loras, shape):
    """The A's and the B's as lists of lists, zero-padded to one rank; 0 where there is none."""
    r = max(lora.A.shape[0] for lora in loras if lora)
    A, B = [torch.zeros(r, i) for _ in loras], [torch.zeros(o, r) for _ in loras]
    for n, lora in enumerate(loras):
        if lora:
            A[n][: lora.A.shape[0]], B[n][:, : lora.A.shape[0]] = shape(lora)
    return A, B


def elected(every):
    """The mean of the entries that have the sign of their sum."""
    merged = torch.zeros_like(every[0])
    for at in range(merged.numel()):
        entries = [float(t.flatten()[at]) for t in every]
        sign = 1 if sum(entries) >= 0 else -1
        agree = [e for e in entries if e * sign > 0]
        merged.view(-1)[at] = sum(agree) / len(agree) if agree else 0.0
    return merged


def trimmed(t, density):
    """The largest entries in size."""
    least = sorted(t.abs().flatten().tolist())[-max(int(density * t.numel()), 1)]
    return torch.where(t.abs() >= least, t, 0.0)


def by_sign(x, loras, router):
    n = complete_options("ties", None)
    A, B = halves(loras, lambda m: [trimmed(t, n["density"]) for t in (m.A, m.B)])
    return elected(B) @ (elected(A) @ x)


def by_chance(x, loras, router):
    p = complete_options("dare", None)["drop"]

    def left(lora):
        pairs = (("A", lora.A), ("B", lora.B))
        return [t * kept_by_draw(lora, half, t.shape, p) / (1 - p) for half, t in pairs]

    A, B = halves(loras, left)
    return sum(B) @ (sum(A) @ x) / len(loras)


def best_of(scores, count):
    """The places of the largest, and softmax over them."""
    best = sorted(range(len(scores)), key=lambda j: -scores[j])[:count]
    return {j: math.exp(scores[j]) / sum(math.exp(scores[b]) for b in best) for j in best}


def by_spectrum(x, loras, router):
    n = complete_options("spectr", None)
    scores = []
    for lora in loras:
        score = 0.0
        if lora is not None:
            _, S, Vh = torch.linalg.svd(lora.B @ lora.A, full_matrices=False)
            score = math.sqrt(sum(float(s * (v @ x)) ** 2 for s, v in zip(S, Vh, strict=True)))
        scores.append(score / n["temperature"])
    return sum(w * update(loras[j], x) for j, w in best_of(scores, n["top"]).items())


def by_two_looks(x, loras, router, filtered=20):
    arrow, loud = [], []
    for lora in loras:
        a = torch.zeros(i) if lora is None else torch.linalg.svd(lora.B @ lora.A).Vh[0]
        arrow.append(abs(float(a @ x)))
        loud.append(float(update(lora, x).norm()))
    left = sorted(range(len(loras)), key=lambda j: -arrow[j])[:filtered]
    return update(loras[max(left, key=lambda j: loud[j])], x)


def by_loudness(x, loras, router):
    s = []
    for name, lora in zip(NAMES, loras, strict=False):
        mean, deviation = USUAL[name]
        s.append(0.0 if lora is None else math.exp(mean + SURPRISES[name] * deviation))
    return sum(sj / sum(s) * update(lora, x) for sj, lora in zip(s, loras, strict=True))


def by_shares(x, loras, router):
    w = [SHARES[name] for name, _ in zip(NAMES, loras, strict=False)]
    return sum(wj / sum(w) * update(lora, x) for wj, lora in zip(w, loras, strict=True))


def dot(a, b):
    return sum(float(a[d]) * float(b[d]) for d in range(len(a)))


def weighed(scores, x, loras, best=None):
    """The sum of the updates under softmax of the scores, of the `best` ones alone."""
    chosen = sorted(range(len(loras)), key=lambda j: -scores[j])[:best]
    e = {j: math.exp(scores[j]) for j in chosen}
    return sum(e[j] / sum(e.values()) * update(loras[j], x) for j in chosen)


def by_own_gate(x, loras, router):
    W = pool_gates()["_meteora"].tensors[f"{PATH}.W"]
    return weighed([dot(W[j], x) for j in range(len(loras))], x, loras, best=2)


def by_learned_router(x, loras, router):
    W = pool_gates()["_moe"].tensors[f"{PATH}.W"]
    return weighed([dot(W[j], x) for j in range(len(loras))], x, loras)


def by_mean_input(x, loras, router):
    W, m = pool_gates()["_smear"].tensors["blocks.0.W"], made_up_means(SITES)["blocks.0"].tolist()
    centre = sum(m) / i
    spread = math.sqrt(sum((md - centre) ** 2 for md in m) / i + 1e-5)
    n = [(md - centre) / spread for md in m]
    e = [math.exp(dot(W[j], n)) for j in range(len(loras))]
    y = torch.zeros(o)
    for pa, a in zip(e, loras, strict=True):
        for pb, b in zip(e, loras, strict=True):
            units = range(min(a.A.shape[0], b.B.shape[1]) if a and b else 0)
            for u in units:
                y += pa * pb / sum(e) ** 2 * b.B[:, u] * dot(a.A[u], x)
    return y


def householder(B):
    """Q of B = Q R column by column, with the signs of LAPACK, in which `M` was trained."""
    R, Q = B.clone(), torch.eye(B.shape[0], dtype=B.dtype)
    for n in range(B.shape[1]):
        v = R[:, n].clone()
        v[:n] = 0.0
        v[n] += math.copysign(float(v.norm()), float(v[n]))
        v /= v.norm()
        R -= 2 * torch.outer(v, v @ R)
        Q -= 2 * torch.outer(Q @ v, v)
    return Q[:, : B.shape[1]]


def by_outputs(x, loras, router):
    """e_ij = B_j M_ij, of size o, against all outputs side by side, which have length 1."""
    tensors, v = pool_gates()["_mole"].tensors, [update(lora, x) for lora in loras]
    length, scores = math.sqrt(sum(dot(vj, vj) for vj in v)), []
    for M in tensors[f"{PATH}.M"][: len(loras)]:
        eps = 0.0
        for j, lora in enumerate(loras):
            if lora is not None:
                B = householder(lora.B)
                eps += dot(B @ M[j, : B.shape[1]], v[j] / length)
        scores.append(eps / float(tensors[f"{PATH}.tau"]))
    return weighed(scores, x, loras)


def by_block(x, loras, router):
    tensors, into = pool_gates()["_lora_flow"].tensors, into_block(x)
    W, b = tensors["blocks.0.W"], tensors["blocks.0.b"]
    biased = sum(float(b[j]) * update(lora, x) for j, lora in enumerate(loras))
    return biased + weighed([dot(W[j], into) for j in range(len(loras))], x, loras)


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
    z = [dot(W[j], into_block(x)) + float(c[j]) for j in range(3)]
    e = z.index(max(z))
    return get[f"expert_{e}/{PATH}.B"] @ (get[f"expert_{e}/{PATH}.A"] @ x)


ORACLES = {
    "base": zero,
    "selection": first,
    "mixture": mean,
    "fusion": mean_of_halves,
    "lorahub": mean_of_halves,  # before a search has begun; with weights see below
    "ramole": attention,
    "random_router": at_random,
    "uniform_router": mean,
    "similarity": by_similarity,
    "ramole_plus": by_evidence,
    "arrow": by_prototype,
    "lego": by_cluster,
    "ties": by_sign,
    "dare": by_chance,
    "spectr": by_spectrum,
    "lag": by_two_looks,
    "logo": by_loudness,
    "lorauter": by_shares,
    "meteora": by_own_gate,
    "moe": by_learned_router,
    "smear": by_mean_input,
    "mole": by_outputs,
    "lora_flow": by_block,
    "ca_lora": recovered,
    "llava_mole": by_choice,
}
MIXING = [name for name in METHODS if name != "base"]


def test_each_method_has_an_oracle_and_a_row_in_the_list():
    assert set(ORACLES) == set(METHODS)
    assert list(METHODS) == [row.name for row in METHOD_LIST]
    assert all(METHODS[row.name].row == row for row in METHOD_LIST)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("lacking", [set(), {1}, {0, 2}, {0}, {0, 1, 2, 3}], ids=str)
def test_matches_the_equation_also_where_adapters_lack_the_module(name, lacking):
    """An absent module is an update of 0 that keeps its share."""
    x, router = torch.randn(1, l, i), make_router()
    loras = [None if n in lacking else lora for n, lora in enumerate(make_loras())]
    y, alpha = run(placed(name, loras, router), x)
    if len(lacking) < k:
        for t in range(l):
            expected = ORACLES[name](x[0, t], loras, router)
            torch.testing.assert_close(y[0, t], expected, rtol=1e-6, atol=1e-6)
    elif name not in FURTHER | OWN:
        assert not y.any(), "the base is left alone"
    if name in FREE_SUM | {"base"}:
        return
    assert (alpha >= 0).all()
    torch.testing.assert_close(alpha.sum(-1), torch.ones(1, l), rtol=1e-6, atol=1e-6)
    if lacking and name not in ONE_EXPERT | OF_THE_BEST | OWN:
        assert alpha.gt(0).all(), "the weight is the share that the gate gave"


@pytest.mark.parametrize("name", sorted(set(MIXING) - FREE_SUM - FURTHER - OWN))
def test_one_lora_is_that_lora(name):
    x, loras = torch.randn(1, l, i), make_loras((3,))
    y, alpha = run(placed(name, loras), x)
    torch.testing.assert_close(y, product(loras[0], x))
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
    """Two rows share its decision, with rows of every method between them."""
    x, router = torch.randn(len(METHODS) + 2, l, i), make_router()
    mine = placed(name, make_loras((4, 2)), router)
    others = [placed(other, make_loras((1, 9, 3)), router) for other in METHODS]
    together, alphas = batch([mine, *others, mine], x)
    for row in (0, len(x) - 1):
        alone, alpha = run(mine, x[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)
        mixed = alphas[row : row + 1, :, : mine.k].to(alpha)
        torch.testing.assert_close(mixed, alpha, rtol=1e-6, atol=1e-6)
        assert not alphas[row, :, mine.k :].any()


@pytest.mark.parametrize("name", METHODS)
def test_a_decision_that_hangs_on_similarity_says_so(name, monkeypatch):
    """Without `weighs_similarity` adapters that are named come with a similarity of nan."""
    x, router, loras, updates = torch.randn(2, l, i), make_router(), make_loras(), []
    for turned in (1, -1):
        scores = dict(zip(SCORES, [*SCORES.values()][::turned], strict=True))
        monkeypatch.setattr("tests.support.tiny_methods.SCORES", scores)
        updates.append(run(placed(name, loras, router), x)[0])
    changed = not torch.equal(*updates)
    assert METHODS[name].weighs_similarity or not changed, f"{name}: set weighs_similarity = True"
    assert changed or name not in ("similarity", "ramole_plus"), "nothing was tried"


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


def test_evidence_can_be_told_to_share_among_those_that_have_the_module():
    """The choice of `ramole_plus` is an option, to be measured."""
    x, (a, _, b, _), router = torch.randn(1, l, i), make_loras(), make_router()
    kept, alpha = run(placed("ramole_plus", [a, None, b], router), x)
    masked, shared = run(placed("ramole_plus", [a, None, b], router, keeps=False), x)
    assert alpha[..., 1].all() and not shared[..., 1].any()
    torch.testing.assert_close(shared[..., [0, 2]], alpha[..., [0, 2]] / (1 - alpha[..., 1:2]))
    torch.testing.assert_close(masked * (1 - alpha[..., 1:2]), kept)


@pytest.mark.parametrize("name", sorted(set(MIXING) - ONE_EXPERT - WEIGHT_SPACE - OWN))
def test_given_weights_replace_the_methods(name):
    x, loras, weights = torch.randn(1, l, i), make_loras(), [0.5, -1.0, 2.0, 0.25]
    y, alpha = run(placed(name, loras, weights=weights), x)
    expected = sum(w * product(m, x) for w, m in zip(weights, loras, strict=True))
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(alpha, torch.tensor(weights).expand(1, l, k))


@pytest.mark.parametrize("name", sorted(WEIGHT_SPACE - {"smear"}))  # its own are not equal
def test_equal_weights_are_the_merge_s_own_and_one_weight_alone_is_one_lora(name):
    x, loras = torch.randn(1, l, i), make_loras()
    own, _ = run(placed(name, loras), x)
    equal, alpha = run(placed(name, loras, weights=[1 / k] * k), x)
    uneven, _ = run(placed(name, loras, weights=[0.1, 0.2, 0.3, 0.4]), x)
    torch.testing.assert_close(equal, own)
    torch.testing.assert_close(alpha, torch.full((1, l, k), 1 / k))
    assert (uneven - own).abs().max() > 0.1
    one = make_loras((3,))
    half, _ = run(placed(name, one, weights=[-0.5]), x)
    share = 0.25 if name in ("fusion", "lorahub") else -0.5
    torch.testing.assert_close(half, share * product(one[0], x))


@pytest.mark.parametrize("rank", [3, i])
@pytest.mark.parametrize("sizes", [(i, o), (o, i)])
def test_ties_and_dare_of_products_are_their_equations(sizes, rank):
    """And of a rank below that of the sum, they are its truncated SVD."""
    x, p = torch.randn(1, l, sizes[0]), 0.3
    loras = [Lora(A=torch.randn(r, sizes[0]), B=torch.randn(sizes[1], r)) for r in RANKS]
    BA = [lora.B @ lora.A for lora in loras]

    def check(name, merged, **options):
        U, S, Vh = torch.linalg.svd(merged, full_matrices=False)
        nearest = U[:, :rank] @ torch.diag(S[:rank]) @ Vh[:rank]
        sites, pool = Sites((PATH,), {PATH: sizes}), dict(zip(NAMES, loras, strict=True))
        pool = {adapter: {PATH: lora} for adapter, lora in pool.items()}
        options |= {"products": True, "rank": rank}
        given = options.pop("weights", None)
        mix = plain_of(name, pool, sites, trained={}, weights=given, options=options)
        torch.testing.assert_close(mix_at(mix, PATH, x, None).update, x @ nearest.T)

    check("ties", 2 * elected([trimmed(t, 0.4) for t in BA]), density=0.4, scale=2.0)
    left = [t * kept_by_draw(m, "BA", t.shape, p) / (1 - p) for t, m in zip(BA, loras, strict=True)]
    check("dare", sum(left) / k, drop=p)
    check("dare", elected(left), drop=p, signs=True)
    check("ties", 0.5 * BA[1], weights=[0.0, 0.5, 0.0, 0.0], density=1.0)


@pytest.mark.parametrize("align", [False, True])
def test_lego_s_clusters_are_scikit_learn_s(align):
    units = torch.randn(40, i + o)
    labels, signs = cluster(units, 9, align=align)
    pool = (units * signs[:, None]).numpy()
    starts = [int(units.norm(dim=1).argmax())]
    for _ in range(8):
        far = [
            min(
                min(((u - s * v) ** 2).sum() for s in ((1, -1) if align else (1,)))
                for v in pool[starts]
            )
            for u in pool
        ]
        starts.append(int(torch.tensor(far).argmax()))
    if align:
        assert (signs < 0).any() and (signs[starts] == 1).all()
    found = KMeans(9, init=pool[starts], n_init=1, tol=0).fit_predict(pool)
    same = torch.from_numpy(found)
    assert torch.equal(labels[:, None] == labels, same[:, None] == same)
    assert len(labels.unique()) == 9


def test_lego_merges_what_is_alike_and_keeps_what_is_not():
    x, (a, b) = torch.randn(1, l, i), make_loras((3, 3))
    twice, whole, one = (
        run(placed("lego", [a, m], rank=rank), x)[0] for m, rank in ((a, 0), (b, 9), (b, 1))
    )
    torch.testing.assert_close(twice, product(a, x))
    torch.testing.assert_close(whole, (product(a, x) + product(b, x)) / math.sqrt(2))
    assert torch.linalg.matrix_rank(one[0]) == 1 < torch.linalg.matrix_rank(whole[0])
    none, _ = run(placed("lego", [a, None], weights=[0.0, 1.0]), x)
    assert not none.any()


@pytest.mark.parametrize("align", [True, False])
def test_lego_aligned_does_not_see_signs_and_scales(align):
    """A unit is the same with (-b)(-a), and with (b/c)(c a)."""
    x, (a, b) = torch.randn(1, l, i), make_loras((3, 4))
    c = torch.tensor([-2.0, 0.5, -1.0, 3.0])
    other = Lora(A=c[:, None] * b.A, B=b.B / c)
    found = [run(placed("lego", [a, m], rank=2, align=align), x)[0] for m in (b, other)]
    assert torch.allclose(*found, atol=1e-6) == align


@pytest.mark.parametrize("name", ["fusion", "lorahub", "smear"])
def test_given_weights_weigh_both_sums_with_their_cross_terms(name):
    x, loras, weights = torch.randn(1, l, i), make_loras(), [0.5, -1.25, 1.5, 0.75]
    loras[3] = None
    y, alpha = run(placed(name, loras, weights=weights), x)
    for t in range(l):
        expected = torch.zeros(o)
        for a, lora_a in zip(weights, loras, strict=True):
            for b, lora_b in zip(weights, loras, strict=True):
                if lora_a is None or lora_b is None:
                    continue
                for unit in range(min(lora_a.B.shape[1], lora_b.A.shape[0])):
                    expected += a * b * lora_a.B[:, unit] * (lora_b.A[unit] @ x[0, t])
        torch.testing.assert_close(y[0, t], expected)
    torch.testing.assert_close(alpha, torch.tensor(weights).expand(1, l, k))


OTHERWISE = [
    ("lego", ({"rank": 3}, {"align": True})),
    ("ties", ({"density": 0.7}, {"products": True}, {"products": True, "rank": 2})),
    ("dare", ({"drop": 0.1}, {"signs": True}, {"products": True})),
    ("spectr", ({"spectrum": False}, {"top": 1})),
    ("lag", ({"filtered": 1},)),
]


@pytest.mark.parametrize(("name", "options"), OTHERWISE)
def test_an_option_changes_the_update(name, options):
    x, loras = torch.randn(1, l, i), make_loras()
    said = [run(placed(name, loras, **one), x)[0] for one in ({}, *options)]
    for n, y in enumerate(said):
        assert all((y - other).abs().max() > 1e-2 for other in said[:n])


@pytest.mark.parametrize("name", ["arrow", "spectr", "meteora", "moe"])
def test_of_the_top_1_one_adapter_has_all_the_weight_of_a_token(name):
    _, alone = run(placed(name, make_loras(), top=1), torch.randn(1, l, i))
    assert ((alone == 1).sum(-1) == 1).all() and (alone == 0).sum() == 3 * l


@pytest.mark.parametrize(
    ("name", "heat", "options"),
    [
        ("similarity", {"temperature": 10.0}, {"temperature": 0.001}),
        ("arrow", {"temperature": 1000.0, "top": 0}, {"top": 0}),
        ("meteora", {"temperature": 1e3, "top": 0}, {"top": 0}),
        ("mole", {"heat": 1e3}, {}),
    ],
)
def test_a_high_temperature_makes_the_weights_even(name, heat, options):
    x, loras = torch.randn(1, l, i), make_loras()
    _, sharp = run(placed(name, loras, **options), x)
    _, even = run(placed(name, loras, **heat), x)
    torch.testing.assert_close(even, torch.full((1, l, k), 1 / k), rtol=0, atol=0.015)
    assert (sharp - even).abs().max() > 0.05
    assert name != "similarity" or sharp.max() > 0.999


def test_an_option_changes_what_it_says():
    x, loras = torch.randn(1, l, i), make_loras()
    _, loud = run(placed("ramole_plus", loras, bandwidth=1e6, surprise=10.0), x)
    assert (loud.argmax(-1) == 2).all(), "cat answers loudest"
    _, two = run(placed("meteora", loras), x)
    assert ((two > 0).sum(-1) == 2).all()
    once, twice = (run(placed("ties", loras, scale=s), x)[0] for s in (1.0, 2.0))
    torch.testing.assert_close(twice, 2 * once)
    none, usual, more = (
        run(placed("ca_lora", loras, recovery=amount), x)[0] for amount in (0.0, 1.0, 3.0)
    )
    assert (usual - none).abs().max() > 0.1
    torch.testing.assert_close(more - none, 3 * (usual - none), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("filtered", [1, 2, 3])
def test_lag_takes_the_loudest_of_those_that_arrow_leaves(filtered):
    x, loras = torch.randn(1, 9, i), make_loras()
    y, _ = run(placed("lag", loras, filtered=filtered), x)
    every, _ = run(placed("lag", loras), x)
    assert (y - every).abs().max() > 0.1, "the filter takes the loudest away somewhere"
    for t in range(9):
        torch.testing.assert_close(y[0, t], by_two_looks(x[0, t], loras, None, filtered))


def test_spectr_without_the_spectrum_is_the_length_within_the_adapters_input_space():
    x, loras = torch.randn(1, l, i), make_loras((2, 5, 1, 3))
    loras[2] = None
    flat = loras[3]
    loras[3] = Lora(A=torch.stack([flat.A[0], 2 * flat.A[0], flat.A[1]]), B=flat.B)  # of rank 2
    _, alpha = run(placed("spectr", loras, spectrum=False, top=0, temperature=0.5), x)
    for t in range(l):
        scores = torch.zeros(k)
        for j, lora in enumerate(loras):
            if lora is not None:
                _, S, Vh = torch.linalg.svd(lora.B @ lora.A, full_matrices=False)
                scores[j] = (Vh[S > 1e-9] @ x[0, t]).norm() / 0.5
        torch.testing.assert_close(alpha[0, t], scores.softmax(-1))


def test_logo_takes_the_loudest_in_its_projection():
    usual, here = torch.tensor([0.0, 1.0]).repeat(3, 1), torch.tensor([True, True, False])
    heard = [
        Response(torch.tensor(logs), usual, here)
        for logs in ([0.1, 0.9, 9.0], [0.5, 0.2, 9.0], [-2.0, 1.5, 9.0])
    ]
    candidates = [
        Candidate(name, 0.5, name, dict, one) for name, one in zip(NAMES, heard, strict=False)
    ]
    for module, column in ((0, 0), (1, 1), (-7, 0), (-2, 1)):
        worth = METHODS["logo"].rank(candidates, {"module": module})
        assert worth == pytest.approx([math.exp(float(one.log_norms[column])) for one in heard])
    assert METHODS["logo"].rank(candidates, {"module": 2}) == [0.0] * 3, "nobody has the module"


@pytest.mark.parametrize(
    ("name", "settings", "weights"),
    [
        ("lora_flow", {"first": 3}, (0.0, 0.0, 1.0, 0.0)),
        ("lora_flow", {"first": 0}, (0.25,) * 4),
        ("moe", {}, (0.25,) * 4),
        ("smear", {}, (0.25,) * 4),
    ],
)
def test_where_a_gate_begins(name, settings, weights):
    method = find_method(name)
    recipe = {one.name: settings.get(one.name, one.default) for one in method.row.training}
    known = [(n, n) for n in NAMES]
    start = {key: t.double() for key, t in method.begin(SITES, known, recipe).items()}
    record = {"adapters": [{"name": n, "checksum": n} for n in NAMES]}
    gates = {method.row.weights: Trained(method.finish(start, recipe), f"start {settings}", record)}
    _, alpha = run(placed(name, make_loras(), gates=gates), torch.randn(1, l, i))
    torch.testing.assert_close(alpha, torch.tensor(weights).expand(1, l, k), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [row.name for row in METHOD_LIST if row.training])
def test_training_goes_on_from_what_a_file_keeps(name):
    method = find_method(name)
    recipe = {one.name: one.default for one in method.row.training}
    torch.manual_seed(3)
    tensors = {f"{path}.{end}": torch.rand(2, 3) for path in "pq" for end in ("W", "tau", "B_r")}
    again = method.resume(method.finish(tensors, recipe), recipe)
    torch.testing.assert_close(dict(again), tensors)


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


def test_another_thread_s_rows_of_a_fixed_pool_are_not_taken():
    """Another request's tables become the kept ones while this one's key is compared."""
    method, W = type(find_method("moe"))(), torch.arange(3.0)[:, None]

    class Changing(Sites):
        def __eq__(self, other):
            method._kept = None, {"W": W[1:]}
            return True

    method.places = lambda ask: [0, 1]
    config = {"adapters": [{"checksum": name, "name": name} for name in "abc"]}
    for _ in range(2):
        ask = Ask((), Changing((), {}), {}, trained=Trained({"W": W}, "x", config))
        assert method.tables(ask, {"W": (1,)})["W"].tolist() == [[0], [1]]
