"""Controls for a trained RouterLoRA: the uniform gate and a random one.

    alpha = softmax_i(<A_r x, B_r^T v_i> / sqrt(s))          (RAMoLE, arXiv 2406.16989, eq. 6-11)

`uniform_router` has B_r = 0, so 1/k each, in every module; `random_router` a frozen random one,
of the trained router's rank and scale where there is one.

Trained: nothing.

Cost: k LoRAs a token; `random_router` the router's too.

Claimed: nothing; they are controls, which the paper does not show.
"""

from functools import lru_cache

from ramole_core.composition.decision import Ask, Decision, Gate, even
from ramole_core.composition.method import Composition, register
from ramole_core.composition.router import Router, random_router, read_router
from ramole_core.composition.sites import Sites
from ramole_core.composition.trained import Trained
from ramole_core.methods import Method

RANK = 6
"""Rank of the random router where none is trained."""


@register
class UniformRouter(Composition):
    row = Method(
        "uniform_router",
        "control",
        "the same gate untrained (B_r = 0): equal weights",
    )

    def decide(self, ask: Ask) -> Decision:
        return Decision(even(ask.present), gate=Gate())


@register
class RandomRouter(Composition):
    row = Method(
        "random_router", "control", "the same gate with a frozen random router", weights="_router"
    )
    needs_weights = False

    def decide(self, ask: Ask) -> Decision:
        return Decision(even(ask.present), gate=Gate(router=_random(ask.sites, ask.trained)))


@lru_cache(maxsize=1)
def _random(sites: Sites, trained: Trained | None) -> Router:
    if trained is None:
        return random_router(sites.shapes, rank=RANK)
    like = read_router(trained, shapes=sites.shapes)
    return random_router(sites.shapes, rank=like.rank, like=like)
