"""LAG: for each token, Arrow preselects N adapters, and SpectR chooses one of them.

    N_x = the N adapters with the largest |<a_j, x>|        (LAG, arXiv 2507.05346; a_j: `arrow.py`)
    j*  = argmax over N_x of |B_j A_j x|                    (`spectr.py`)
    y   = W x + B_j* A_j* x

The paper's library has many more adapters than N = 20, and Arrow is its cheap first look. Here a
request's adapters are the library, so it takes more of them than other methods: the LIBRARY nearest
to the prompt, or k where that is more; where some are named, those. That retrieval comes first is
ours: the adapters of a large pool cannot all be in the bank at once. With a library of no more than
N the filter keeps all, and this is SpectR's best one alone. An adapter that lacks a module scores 0
in both, and is taken only where none has it.

Trained: nothing.

Cost: of a token and module, the input against all LIBRARY A's and, weighed 1 or 0, all of their
B's, several times that of three adapters; the paper reads one B from memory. Of a request, an r x r
eigenproblem a module and adapter. All of them are in the bank at once: where they have more rank
units than it holds, the request is refused, and naming fewer, or a larger RAMOLE_DEVICE_CACHE_MB,
is the way out.

Claimed: on knowledge-intensive tasks (KILT) better than Arrow and SpectR over the same library;
TriviaQA 46.5 % against Arrow's 44.2 % and the base's own 50.8 % (second-hand, unsure).
"""

from ramole_core.composition.arrow import prototypes
from ramole_core.composition.decision import Ask, Decision, Gate, UnitScore, even
from ramole_core.composition.method import Composition, register
from ramole_core.methods import Method, Option

LIBRARY = 32
"""Least number of nearest adapters among which each token chooses."""


@register
class Lag(Composition):
    row = Method(
        "lag",
        "LAG, arXiv 2507.05346",
        "every token goes to the one adapter that answers loudest of those that point along it",
        options=(Option("filtered", 20, 1, 64, "N, how many adapters Arrow leaves"),),
    )

    def experts(self, k: int) -> int:
        return max(k, LIBRARY)

    def decide(self, ask: Ask) -> Decision:
        score = UnitScore("loudest", prototypes(ask), top=int(ask.options["filtered"]))
        return Decision(even(ask.present), gate=Gate(score=score, top=1))
