"""MoLE: weight adapters by a gate in every linear layer that reads all their outputs.

    E_Omega(x) = Normalization(E_1(x) ++ ... ++ E_N(x))        (MoLE, arXiv 2404.13628, eq. 9-13)
    eps = Flatten(E_Omega(x))^T e,   G(eps_i) = exp(eps_i / tau) / sum_j exp(eps_j / tau)
    O(x) = F(x) + sum_i G(eps_i) E_i(x)
    loss = language model - alpha log prod_i q_i,   q_i = mean over gates of G(eps_i)  (eq. 14-16)

N is our k, E_i(x) our v_i = B_i A_i x, ++ puts side by side, tau is one learned number a gate. What
differs, since the frame weighs in linear layers and token by token:

- The paper flattens all tokens of a sequence into one e, of a fixed length, which a causal model
  cannot have: here each token has a gate of its own, and e the size of one token.
- The paper tries four places, from each matrix to the whole network. Best is a layer's or a block's
  output, which would need each block computed k times; ours is the one in each matrix, which it
  finds weaker ("m-MoLE").
- "Normalization" is not spelled out: here the outputs side by side are divided by their length.
- e has k k o numbers a module, 48 million for 21 adapters of the base we serve. Only what it says
  of an output's span matters: <e_ij, v_j> = <B_j^T e_ij, A_j x>, B_j with orthonormal columns. So
  M_ij = B_j^T e_ij is kept, r numbers in the place of o: nothing is lost, and a normal e is a
  normal M. The basis is that of `orthonormal`; another one would need other weights.

q_i is the mean over a batch's answer tokens too. Adapters that a request leaves out are not read,
and the others share all of the weight (the paper's masks); one that lacks a module is an output of
0 there and keeps its share.

Trained: M of every module, [k, k, units], and tau. The paper: 800 steps of 12 rows, learning rate
1e-5, alpha 0.5. Of many adapters that alpha keeps all weights equal, because the product wants each
one used in every batch; the sample pool's weights are trained with `balance=0.005`.

Cost: k k r numbers a module and token, read off A x, which is there anyway.

Claimed: Flan-T5 and LoRAs of FLAN's tasks, beside LoraHub and PEMs: translation 26.9 (25.4, 24.2),
struct to text 40.3 (38.1, 37.7), closed-book questions 50.2 (48.3, 46.5), BBH 42.2 (38.4, 33.2),
NLI 80.5 (79.2, 78.8).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ramole_core.composition.decision import TINY, Ask, Decision, Gate, UnitScore, even
from ramole_core.composition.fixed_pool import FixedPool
from ramole_core.composition.method import Watched, register
from ramole_core.composition.sites import Sites
from ramole_core.errors import RamoleError
from ramole_core.methods import Method, Option, Value


@register
class MoLE(FixedPool):
    row = Method(
        "mole",
        "MoLE, arXiv 2404.13628",
        "m-MoLE: in each matrix, a gate reads the outputs of the adapters it was trained on",
        options=(Option("heat", 1.0, 0.01, 1000.0, "times tau: large is 1/k"),),
        weights="_mole",
        training=(
            Option(
                "balance", 0.5, 0.0, 100.0, "alpha, of the balance loss; less for many adapters"
            ),
            Option("units", 12, 1, 256, "the largest rank of an adapter"),
        ),
    )

    def decide(self, ask: Ask) -> Decision:
        M, tau, ranks = self._read(ask)
        heat = float(ask.options["heat"])
        tables = {
            path: (M[path] / (tau[path] * heat)).split(ranks[path], dim=1)
            for path in ask.sites.paths
        }
        return Decision(even(ask.present), gate=Gate(score=UnitScore("linear", tables)))

    def _read(self, ask: Ask) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, list[int]]]:
        """By module path: M [k, sum of ranks] of the request's adapters, tau, and their ranks."""
        assert ask.trained is not None  # the row names them
        known, paths = len(ask.trained.adapters), ask.sites.paths
        first = ask.trained.tensors.get(f"{paths[0]}.M")
        units = first.shape[-1] if first is not None and first.ndim else 1
        made = self.tables(ask, {f"{path}.M": (known, units) for path in paths})
        if missing := [path for path in paths if f"{path}.tau" not in ask.trained.tensors]:
            raise RamoleError(
                f"The trained weights of mole have no tau for {missing[0]}; train again."
            )
        rows, ranks, M, tau = self.places(ask), {}, {}, {}
        for path in paths:
            ranks[path] = [
                one.loras[path].A.shape[0] if path in one.loras else 0 for one in ask.adapters
            ]
            if max(ranks[path], default=0) > units:
                raise RamoleError(
                    f"The trained weights of mole read {units} rank units of an adapter, and "
                    f"{path} has one with {max(ranks[path])}; train them again with "
                    f"`python -m ramole_core train method mole --set units={max(ranks[path])}`."
                )
            columns = [
                at * units + n for at, r in zip(rows, ranks[path], strict=True) for n in range(r)
            ]
            M[path] = made[f"{path}.M"].flatten(1)[:, columns]
            tau[path] = ask.trained.tensors[f"{path}.tau"]
        return M, tau, ranks

    def begin(
        self, sites: Sites, adapters: Sequence[tuple[str, str]], recipe: Mapping[str, Value]
    ) -> dict[str, Tensor]:
        """e normal, 0.02, so nearly the equal mixture; tau = 1, its logarithm in training."""
        k, units, tensors = len(adapters), int(recipe["units"]), {}
        for path in sites.paths:
            tensors[f"{path}.M"] = torch.randn(k, k, units) * 0.02
            tensors[f"{path}.tau"] = torch.tensor(0.0)
        return tensors

    def finish(
        self, tensors: Mapping[str, Tensor], recipe: Mapping[str, Value]
    ) -> Mapping[str, Tensor]:
        """tau, which stays above 0."""
        return {n: t.exp() if n.endswith(".tau") else t for n, t in tensors.items()}

    def resume(
        self, tensors: Mapping[str, Tensor], recipe: Mapping[str, Value]
    ) -> Mapping[str, Tensor]:
        return {n: t.log() if n.endswith(".tau") else t for n, t in tensors.items()}

    def loss(self, watched: Watched, recipe: Mapping[str, Value]) -> Tensor | float:
        q = torch.stack([a[watched.answers].mean(0) for a in watched.alpha.values()]).mean(0)
        return -recipe["balance"] * (q + TINY).log().sum()
