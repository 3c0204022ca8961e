"""A fixed mixture as one LoRA: exact by concatenation, or the nearest of a lower rank.

    sum_j w_j B_j A_j = [B_1 ... B_k] [w_1 A_1; ...; w_k A_k]                        (exact)
    U S V^T = svd(B A),   B' = U_r sqrt(S_r),   A' = sqrt(S_r) V_r^T       (Eckart and Young)

No product B A is ever made: with B = Q R and A^T = P T, U and V come from the small R T^T, and
|B A|^2 is the sum of (B^T B) * (A A^T).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ramole_core.composition import Lora


@dataclass(frozen=True)
class LowRankCut:
    """A LoRA of lower rank, and its output and input spaces."""

    lora: Lora
    U: Float[Tensor, "o r"]
    V: Float[Tensor, "i r"]

    def lost(self, lora: Lora) -> float:
        """|D - U U^T D V V^T|^2 for the D = B A of another LoRA: its loss where it was a part of
        the LoRA that was cut."""
        left = (self.U.T @ lora.B.double()) @ (lora.A.double() @ self.V)
        return max(square(lora) - float(left.square().sum()), 0.0)


def concatenate(loras: Sequence[Lora | None], weights: Sequence[float]) -> Lora | None:
    """sum w B A in float32, of the rank of all that have the module and a weight; None for none."""
    here = [(w, lora) for w, lora in zip(weights, loras, strict=True) if lora is not None and w]
    if not here:
        return None
    return Lora(
        A=torch.cat([lora.A.float() for _, lora in here]),
        B=torch.cat([w * lora.B.float() for w, lora in here], dim=1),
    )


def cut(lora: Lora, rank: int) -> LowRankCut:
    """The nearest LoRA of at most that rank, |a| = |b| in each of its units."""
    Q, R = torch.linalg.qr(lora.B.double())
    P, T = torch.linalg.qr(lora.A.double().T)
    U, S, Vh = torch.linalg.svd(R @ T.T)
    U, V, root = Q @ U[:, :rank], P @ Vh[:rank].T, S[:rank].sqrt()
    U, V = U[:, : len(root)], V[:, : len(root)]
    return LowRankCut(Lora(A=(V * root).T.float().contiguous(), B=(U * root).float()), U, V)


def square(lora: Lora) -> float:
    """|B A|^2, the squares of its entries summed."""
    A, B = lora.A.double(), lora.B.double()
    return max(float(((B.T @ B) * (A @ A.T)).sum()), 0.0)


def square_between(one: Lora | None, other: Lora | None) -> float:
    """|B A - B' A'|^2; one that is None is 0. Two that are the same give 0 to about 1e-16 of
    their squares."""
    pair = concatenate([one, other], [1.0, -1.0])
    return 0.0 if pair is None else square(pair)


def ratio(part: float, whole: float) -> float:
    """The root of one sum of squares over another; 0 where both are 0."""
    if whole > 0:
        return math.sqrt(part / whole)
    return 0.0 if part <= 0 else math.inf
