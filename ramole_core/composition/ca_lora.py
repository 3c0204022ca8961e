"""CA-LoRA: train an adapter further on the compressed base, beside a recovery bypass.

    y = W^ x + B A x + (alpha / r) a2 GELU(a1 x)           (CA-LoRA, arXiv 2307.07705, section 3.3)
    loss = CE + lambda MSE(h, h_teacher)                                             (section 3.4)

| paper | here |
|---|---|
| compressed weights W^ | the base that serves: NF4 |
| inherited LoRA A, B | those of the request's adapter, as they were further trained: `.A`, `.B` |
| recovery module, down and up | `.a1` [r, i], `.a2` [o, r]; alpha / r is folded into a2 |
| teacher | the base before it was compressed, with the adapter as it was uploaded |
| h | the last hidden states, after the last norm; in fp32, over all tokens but the padding |

At the start A and B are the adapter's own (inheritance) and a2 = 0, so the output is that of the
inherited LoRA; then A, B, a1 and a2 train together (recovery). The bypass is beside every linear
layer, also where the adapter has nothing: all of them were compressed. The equations are read off
the paper's text and the authors' repository (thunlp/CA-LoRA), whose script for instruction tuning
leaves the GELU out and has lambda = 0.055; its bypass has the LoRA's own rank.

One adapter answers a request: the one that is named, or the nearest of those that were trained so.
The weights file holds, for the n-th of these, tensors named `n/<module path>.A` and so on; its
config lists the adapters in order (name and checksum).

Trained: for each adapter its A and B further, and a bypass a1, a2 of its own, on that adapter's
rows, by `train method ca_lora`; the base stays as it is, and so does the pool.

Cost: that of one adapter of rank r + r', r' the bypass's, and a GELU of r' numbers a module and
token. Trained weights grow with the number of adapters: each is kept a second time.

Claimed: on T5-3B compressed 4 to 8 times (quantisation, MoEfication, pruning), tuned for eleven
data sets, on average better than a LoRA that was trained on the compressed model, and close to the
uncompressed model with its LoRA; the same for LLaMA-13B in 4 bits after instruction tuning
(unsure of the numbers).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ramole_core.composition.decision import Ask, Bypass, Decision, even
from ramole_core.composition.lora import Lora, LoraSet, uniform, wide
from ramole_core.composition.method import Candidate, Composition, register
from ramole_core.composition.sites import Sites
from ramole_core.composition.trained import Trained, scaled
from ramole_core.methods import Method, Option, Value


@register
class CaLora(Composition):
    row = Method(
        "ca_lora",
        "CA-LoRA, arXiv 2307.07705",
        "one adapter, trained further on the compressed base beside a bypass that recovers",
        options=(Option("recovery", 1.0, 0.0, 4.0, "how much of the bypass; 0: none"),),
        weights="_ca_lora",
        training=(
            Option("rank", 8, 1, 64, "r of the bypass"),
            Option("alpha", 16.0, 1e-3, 1e3, "alpha/r is folded into a2 when it is written"),
            Option("distil", 0.05, 0.0, 100.0, "lambda, on the distance to the teacher"),
        ),
    )

    def experts(self, k: int) -> int:
        return min(k, 1)

    def pool(self, trained: Trained | None) -> Mapping[str, str] | None:
        """The adapters that were trained further."""
        return None if trained is None else trained.adapters

    def check(self, candidates: Sequence[Candidate], trained: Trained | None) -> None:
        self.bring(candidates, trained)

    def bring(
        self, candidates: Sequence[Candidate], trained: Trained | None
    ) -> Sequence[Candidate]:
        """The adapters as they were further trained."""
        if trained is None:  # the request gives the weights: the adapter as it was uploaded
            return candidates
        return [self._recovered(one, trained) for one in candidates]

    def _recovered(self, one: Candidate, trained: Trained) -> Candidate:
        if one.checksum in (again := recovered_checksums(trained)):
            return one
        (place,) = trained.places([one], method=self.row.name)
        return replace(one, checksum=again[place], load=lambda: trained.loras(f"{place}/"))

    def decide(self, ask: Ask) -> Decision:
        assert ask.trained is not None  # the row names them
        again = recovered_checksums(ask.trained)
        one, amount = ask.adapters[0], float(ask.options["recovery"])
        if one.checksum in again:
            place = again.index(one.checksum)
        else:
            (place,) = ask.trained.places([one], method=self.row.name)
        bypass = ask.trained.loras(f"{place}/", "a1", "a2")
        loras = {path: Lora(A=lora.A, B=lora.B * amount) for path, lora in bypass.items()}
        key = f"{ask.trained.checksum} {place} {amount}"
        return Decision(even(ask.present), bypass=Bypass(loras, key) if amount and loras else None)


def recovered_checksums(trained: Trained) -> list[str]:
    """Checksums of the further trained adapters, in the file's order."""
    texts = [f"{trained.checksum} {checksum}" for checksum in trained.adapters]
    return [hashlib.sha256(text.encode()).hexdigest() for text in texts]


def inherit(
    lora: LoraSet, sites: Sites, recipe: Mapping[str, Value], *, place: int = 0
) -> dict[str, Tensor]:
    """The start of one adapter's training: its own A and B, a1 drawn as PEFT draws an A, and a2 =
    0. Seed torch's own generator before."""
    rank, tensors = int(recipe["rank"]), {}
    for path, (i, o) in sites.shapes.items():
        if (own := lora.get(path)) is not None:
            tensors[f"{place}/{path}.A"] = wide(own.A).clone()
            tensors[f"{place}/{path}.B"] = wide(own.B).clone()
        tensors[f"{place}/{path}.a1"] = uniform(rank, i)
        tensors[f"{place}/{path}.a2"] = torch.zeros(o, rank)
    return tensors


def fold(tensors: Mapping[str, Tensor], recipe: Mapping[str, Value]) -> dict[str, Tensor]:
    """The trained tensors as `decide` reads them: alpha/r folded into a2."""
    return scaled(tensors, ".a2", recipe["alpha"] / recipe["rank"])
