"""RAMoLE with evidence: a gate for each token over similarity and activation z-score.

    e_j     = s z_j - (sim_1 - sim_j) / h                           of the prompt, before any token
    s       = surprise (1 + tied max(0, sim_2 - FITS) / TENTH exp(-((sim_1 - sim_2) / TENTH)^2))
    alpha   = softmax_j(e_j + own z_jm(t))
    y       = W x + sum_j alpha_j v_j,   v_j = B_j A_j x

sim is the retriever's cosine, sim_1 the largest and sim_2 the second of all that are weighed: those
examined where k are chosen, these k where they are mixed. z says how much louder than
usual adapter j answers (`activation.py`); z_j is its mean over modules at the prompt's last token,
read by the bare base, and z_jm(t) that of one module at one token of the mixed model. The k
adapters with the largest e are taken from the EXAMINED nearest.

Where the retriever is sure, the others are five h behind and its first answers nearly alone; where
nothing fits, all are within an h or so and the adapters' own responses count as well; where two or
more fit about as well, their cards are of one kind of prompt, and which is the nearer hangs on how
their examples are worded, so the responses count more, and the more the better the second one fits.
FITS is a similarity of the encoder that ships: with another one set tied = 0, or try what is right.
An adapter that shows no examples has an unknown similarity, and is found by its response. With
surprise = own = 0 the weights are softmax(sim / h). Nothing is trained, so an adapter that comes
later is weighed like any other. An adapter that lacks a module has no z_jm there, keeps the share
that e_j gives it, and the base has it: a stranger with more modules must not fill the gap.
(`keeps=false`: those that have the module share all of the weight.) The defaults were chosen on dev
rows. Where none fits, the base answers, and a message that names no task keeps the adapters of the
turn before (`retrieval/base_expert.py`).

Trained: nothing. Its five numbers were chosen on dev rows, and `calibrate` fits who is left to the
base.

Cost: the EXAMINED nearest adapters answer to the prompt once, in one read of the bare base (their A
alone is needed); then k LoRAs a token and module, and their norms.

Claimed: nothing; it is ours.
"""

import math
from collections.abc import Mapping, Sequence

import torch

from ramole_core.composition.decision import Adapter, Ask, Decision, Gate, even
from ramole_core.composition.method import Candidate, Composition, register
from ramole_core.methods import Method, Option, Value

EXAMINED = 32
FITS, TENTH = 0.25, 0.1
"""Similarities: that from which a second adapter fits as well, and the unit of what is above it and
of how far it is behind the first."""


@register
class RamolePlus(Composition):
    row = Method(
        "ramole_plus",
        "RAMoLE with evidence, ours",
        "a gate weighs the retriever's similarity and each adapter's own responses",
        options=(
            Option(
                "bandwidth",
                0.05,
                0.001,
                1e6,
                "how far behind the best similarity an adapter still counts",
            ),
            Option("surprise", 2.0, 0.0, 10.0, "how much the response to the whole prompt counts"),
            Option(
                "tied",
                3.0,
                0.0,
                10.0,
                "how much more that counts, for each 0.1 by which the second adapter fits as well",
            ),
            Option("own", 0.3, 0.0, 10.0, "how much the response to each token counts"),
            Option(
                "unknown", 0.3, -1.0, 1.0, "the similarity of an adapter that shows no examples"
            ),
            Option("keeps", True, help="an adapter keeps its share in modules that it lacks"),
        ),
        abstains=True,
        keeps_turn=True,
        splits=True,
    )
    weighs_similarity = True
    examines = EXAMINED

    def rank(
        self, candidates: Sequence[Candidate], options: Mapping[str, Value]
    ) -> Sequence[float]:
        """e of each adapter; unmeasured responses count 0."""
        return evidence_of(candidates, options)

    def decide(self, ask: Ask) -> Decision:
        e = torch.tensor(evidence_of(ask.adapters, ask.options))
        gate = Gate(
            offset=e.repeat(len(ask.sites.paths), 1),
            own=float(ask.options["own"]),
            usual=ask.usual,
            keeps=bool(ask.options["keeps"]),
        )
        return Decision(even(ask.present), gate=gate)


def evidence_of(
    adapters: Sequence[Candidate] | Sequence[Adapter], options: Mapping[str, Value]
) -> list[float]:
    """e_j of each adapter."""
    return evidence(
        [a.score for a in adapters], [a.activation_z for a in adapters], options=options
    )


def evidence(
    scores: Sequence[float], surprises: Sequence[float], *, options: Mapping[str, Value]
) -> list[float]:
    """e_j of each adapter; a similarity of nan is `unknown`, a z-score of nan 0."""
    known = [options["unknown"] if score != score else score for score in scores]
    measured = [0.0 if surprise != surprise else surprise for surprise in surprises]
    first, second = sorted([*known, -1.0, -1.0], reverse=True)[:2]
    alike = max(0.0, second - FITS) / TENTH * math.exp(-(((first - second) / TENTH) ** 2))
    s = options["surprise"] * (1 + options["tied"] * alike)
    return [
        s * z - (first - score) / options["bandwidth"]
        for score, z in zip(known, measured, strict=True)
    ]
