"""Every method against its equation, written as loops in float64, and the laws that all obey."""

import math

import pytest
import torch

from ramole_core.composition import METHODS, Lora, ModuleRouter, Plan, find_method
from ramole_core.composition.ramole import attend_naive
from ramole_core.composition.ramole_plus import Numbers
from ramole_core.errors import RamoleError
from ramole_core.layers import stack_plans
from ramole_core.methods import METHOD_LIST

l, k, i, o, s = 3, 4, 7, 11, 5  # all different, so no transposition can hide
RANKS = (2, 6, 1, 8)
SCORES, SURPRISES = (0.31, 0.44, 0.40, 0.1), (-0.4, 0.3, 0.9, 0.0)
USUAL = ((0.5, 0.3), (-0.2, 0.7), (1.0, 0.2), (0.1, 1.1))

WEIGHT_SPACE = {"fusion"}
"""Their update is not a sum of the LoRAs' own: with one LoRA they are that LoRA all the same."""
KEEPS = {"similarity", "ramole_plus"}
"""An adapter keeps its share where it lacks the module, so the others get no more there."""
ONE_EXPERT = {"selection"}
"""They take the first LoRA only, so their order matters by definition."""


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


def run(plans, x, *, most=None):
    most = most or max(len(p.present) for p in plans if p is not None)
    stack = stack_plans(plans, k=most)
    return stack(x) if stack is not None else (torch.zeros(*x.shape[:2], o), None)


def plan_of(name, loras, router=None, weights=None, order=(0, 1, 2, 3)):
    method = METHODS[name]
    wanted = router if method.router in ("trained", "random") else None
    known = [order[n % k] for n in range(method.experts(len(loras)))]
    return method.plan(
        loras[: len(known)],
        router=wanted,
        weights=weights,
        scores=[SCORES[n] for n in known],
        surprises=[SURPRISES[n] for n in known],
        usual=torch.tensor([USUAL[n] for n in known]).reshape(-1, 2),
    )


def zero(x, loras, router):
    return torch.zeros(o)


def first(x, loras, router):
    return loras[0].B @ (loras[0].A @ x)


def mean(x, loras, router):
    return sum(lora.B @ (lora.A @ x) for lora in loras) / len(loras)


def mean_of_halves(x, loras, router):
    r = max(lora.A.shape[0] for lora in loras)
    A, B = torch.zeros(r, i), torch.zeros(o, r)
    for lora in loras:
        for unit in range(lora.A.shape[0]):
            A[unit] += lora.A[unit] / len(loras)
            B[:, unit] += lora.B[:, unit] / len(loras)
    return B @ A @ x


def attention(x, loras, router):
    v = [lora.B @ lora.A @ x for lora in loras]
    scores = [float((router.A @ x) @ (router.B.T @ vj)) / math.sqrt(s) for vj in v]
    top = max(scores)
    e = [math.exp(score - top) for score in scores]
    return sum(ej / sum(e) * vj for ej, vj in zip(e, v, strict=True))


def by_similarity(x, loras, router):
    e = [math.exp(score / 0.05) for score, _ in zip(SCORES, loras, strict=False)]
    return sum(ej / sum(e) * lora.B @ (lora.A @ x) for ej, lora in zip(e, loras, strict=True))


def by_evidence(x, loras, router):
    """The first layer's gate: no layer below has voted yet."""
    v, n = [lora.B @ lora.A @ x for lora in loras], Numbers()
    e = []
    for score, surprise, (mean, spread), vj in zip(SCORES, SURPRISES, USUAL, v, strict=False):
        z = (math.log(float(vj.norm())) - mean) / spread
        own = n.own * max(-4.0, min(4.0, z))
        prior = -(max(SCORES[: len(v)]) - score) / n.bandwidth
        e.append(math.exp(prior + n.surprise * surprise + own))
    return sum(ej / sum(e) * vj for ej, vj in zip(e, v, strict=True))


ORACLES = {
    "base": zero,
    "selection": first,
    "mixture": mean,
    "fusion": mean_of_halves,
    "ramole": attention,
    "random_router": attention,
    "uniform_router": mean,
    "similarity": by_similarity,
    "ramole_plus": by_evidence,
}
MIXING = [name for name in METHODS if name != "base"]


def test_each_method_has_an_oracle_and_a_row_in_the_list():
    assert set(ORACLES) == set(METHODS) == {row.name for row in METHOD_LIST}


@pytest.mark.parametrize("name", METHODS)
def test_matches_the_equation(name):
    x, loras, router = torch.randn(1, l, i), make_loras(), make_router()
    y, _ = run([plan_of(name, loras, router)], x, most=k)
    for t in range(l):
        torch.testing.assert_close(y[0, t], ORACLES[name](x[0, t], loras, router))


@pytest.mark.parametrize("name", MIXING)
def test_one_lora_is_that_lora(name):
    x, loras = torch.randn(1, l, i), make_loras((3,))
    y, alpha = run([plan_of(name, loras, make_router())], x)
    torch.testing.assert_close(y, x @ loras[0].A.T @ loras[0].B.T)
    torch.testing.assert_close(alpha, torch.ones(1, l, 1))


@pytest.mark.parametrize("name", sorted(set(MIXING) - ONE_EXPERT))
def test_order_of_loras_does_not_matter(name):
    x, loras, router = torch.randn(1, l, i), make_loras(), make_router()
    order = [2, 0, 3, 1]
    y, alpha = run([plan_of(name, loras, router)], x)
    permuted, alpha_permuted = run(
        [plan_of(name, [loras[j] for j in order], router, order=order)], x
    )
    torch.testing.assert_close(y, permuted)
    torch.testing.assert_close(alpha[..., order], alpha_permuted)


@pytest.mark.parametrize("name", METHODS)
def test_a_request_does_not_feel_its_batch(name):
    x, router = torch.randn(len(METHODS) + 1, l, i), make_router()
    mine = plan_of(name, make_loras((4, 2)), router)
    others = [plan_of(other, make_loras((1, 9, 3)), router) for other in METHODS]
    alone, alpha = run([mine], x[:1], most=2)
    together, alphas = run([mine, *others], x)
    torch.testing.assert_close(together[:1], alone)
    if mine is not None:
        torch.testing.assert_close(alphas[:1, :, :2], alpha)
        assert not alphas[0, :, len(mine.present) :].any()


@pytest.mark.parametrize("name", METHODS)
def test_extra_zero_rank_changes_nothing(name):
    x, loras, router = torch.randn(1, l, i), make_loras(), make_router()
    longer = [
        Lora(A=torch.cat([m.A, torch.zeros(2, i)]), B=torch.cat([m.B, torch.zeros(o, 2)], dim=1))
        for m in loras
    ]
    y, _ = run([plan_of(name, loras, router)], x, most=k)
    padded, _ = run([plan_of(name, longer, router)], x, most=k)
    torch.testing.assert_close(y, padded)


@pytest.mark.parametrize("name", MIXING)
def test_weights_are_a_distribution(name):
    _, alpha = run([plan_of(name, make_loras(), make_router())], torch.randn(1, l, i))
    assert (alpha >= 0).all()
    torch.testing.assert_close(alpha.sum(-1), torch.ones(1, l))


@pytest.mark.parametrize("name", sorted(set(MIXING) - ONE_EXPERT))
def test_an_adapter_without_the_module_gets_weight_zero(name):
    x, (a, _, b, _), router = torch.randn(1, l, i), make_loras(), make_router()
    y, alpha = run([plan_of(name, [a, None, b], router, order=(2, 0, 1, 3))], x)
    assert not alpha[..., 1].any() and alpha[..., 0].all()
    both, alpha_both = run([plan_of(name, [a, b], router, order=(2, 1, 3, 3))], x)
    if name in KEEPS:  # its share is lost
        torch.testing.assert_close(alpha[..., [0, 2]], alpha_both * alpha.sum(-1, keepdim=True))
        assert alpha.sum() < l - 1e-6
    elif METHODS[name].router != "none":  # a gate masks the adapter
        torch.testing.assert_close(y, both)
        torch.testing.assert_close(alpha[..., [0, 2]], alpha_both)
    else:  # mixture and fusion still divide by k
        factor = (2 / 3) ** (2 if name in WEIGHT_SPACE else 1)
        torch.testing.assert_close(y, both * factor)


@pytest.mark.parametrize("name", METHODS)
def test_no_adapter_with_the_module_leaves_the_base_alone(name):
    assert plan_of(name, [None, None], make_router()) is None


@pytest.mark.parametrize("name", sorted(set(MIXING) - ONE_EXPERT - WEIGHT_SPACE))
def test_given_weights_replace_the_methods(name):
    x, loras, weights = torch.randn(1, l, i), make_loras(), [0.5, -1.0, 2.0, 0.25]
    y, alpha = run([plan_of(name, loras, make_router(), weights)], x)
    expected = sum(w * (x @ m.A.T @ m.B.T) for w, m in zip(weights, loras, strict=True))
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(alpha, torch.tensor(weights).expand(1, l, k))


def test_given_weights_weigh_both_means_of_fusion():
    x, loras, weights = torch.randn(1, l, i), make_loras((3, 3)), [0.5, 2.0]
    y, _ = run([plan_of("fusion", loras, None, weights)], x)
    A = sum(w * m.A for w, m in zip(weights, loras, strict=True))
    B = sum(w * m.B for w, m in zip(weights, loras, strict=True))
    torch.testing.assert_close(y, x @ A.T @ B.T)


def test_an_untrained_router_is_the_mixture():
    x, loras, router = torch.randn(1, l, i), make_loras(), make_router()
    zero_router = ModuleRouter(A=router.A, B=torch.zeros(o, s))
    y, alpha = run([plan_of("ramole", loras, zero_router)], x)
    mixture, even = run([plan_of("mixture", loras)], x)
    torch.testing.assert_close(y, mixture)
    torch.testing.assert_close(alpha, even)
    trained, uneven = run([plan_of("ramole", loras, router)], x)
    assert (trained - mixture).abs().max() > 0.1 and (uneven - even).abs().max() > 0.1


def test_the_gram_gate_is_the_equation_with_every_output_in_full():
    x, loras, router = torch.randn(1, l, i), make_loras(), make_router()
    y, alpha = run([plan_of("ramole", loras, router)], x)
    slow, weights = attend_naive(x[0], loras, router)
    torch.testing.assert_close(y[0], slow)
    torch.testing.assert_close(alpha[0], weights)


def test_fusion_is_the_mixture_only_where_the_halves_agree():
    x, (a, b) = torch.randn(1, l, i), make_loras((3, 3))
    agreeing = [a, Lora(A=a.A, B=b.B)]
    for loras, same in ((agreeing, True), ([a, b], False)):
        fused, mixed = (run([plan_of(name, loras)], x)[0] for name in ("fusion", "mixture"))
        assert torch.allclose(fused, mixed) == same


def test_routers_of_different_rank_share_a_batch():
    x, loras = torch.randn(2, l, i), make_loras()
    small, large = make_router(), ModuleRouter(A=torch.randn(9, i), B=torch.randn(o, 9))
    y, _ = run([plan_of("ramole", loras, small), plan_of("ramole", loras, large)], x)
    torch.testing.assert_close(y[0], attend_naive(x[0], loras, small)[0])
    torch.testing.assert_close(y[1], attend_naive(x[1], loras, large)[0])


def test_requests_with_one_plan_share_it():
    x, plan = torch.randn(2, l, i), plan_of("ramole", make_loras(), make_router())
    stack = stack_plans([plan, plan], k=k)
    assert stack.A.shape[0] == 1
    apart = stack_plans([plan, Plan(**vars(plan))], k=k)
    assert apart.A.shape[0] == 2
    for shared, single in zip(stack(x), apart(x), strict=True):
        torch.testing.assert_close(shared, single)


def test_gradients_reach_the_router_only():
    x, loras, router = torch.randn(1, l, i), make_loras(), make_router()
    leaves = [router.A.requires_grad_(), router.B.requires_grad_()]
    y, _ = run([plan_of("ramole", loras, router)], x)
    y.square().sum().backward()
    assert all(leaf.grad.abs().sum() > 0 for leaf in leaves)


def test_unknown_method_names_the_known_ones():
    with pytest.raises(RamoleError, match=r"mixtrue.*mixture"):
        find_method("mixtrue")


def test_wrong_shape_is_refused_at_the_door():
    with pytest.raises(Exception, match="(?i)type"):
        Lora(A=torch.randn(3), B=torch.randn(o, 3))
