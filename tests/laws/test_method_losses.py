"""Losses of the methods' own trainings: float64, by loops."""

import math

import pytest
import torch
from torch import Tensor

from ramole_core.composition import METHODS, Watched
from ramole_core.composition.llava_mole import balance
from ramole_core.training.recovery import distance

ROWS, TOKENS, K = 4, 6, 3
LENGTHS = (6, 4, 5, 3)
ANSWERS = ((3, 4), (1, 2), (2, 3), (1,))
OWN = (2, -1, 0, 1)
PATHS = ("layers.0.q_proj", "layers.1.q_proj", "layers.1.up_proj")
BALANCE = 0.7


def watched() -> Watched:
    random = torch.Generator().manual_seed(5)
    scores = {path: torch.randn(ROWS, TOKENS, K, generator=random) * 2 for path in PATHS}
    answers = torch.zeros(ROWS, TOKENS, dtype=torch.bool)
    for row, places in enumerate(ANSWERS):
        answers[row, list(places)] = True
    tokens = torch.arange(TOKENS) < torch.tensor(LENGTHS)[:, None]
    alpha = {path: each.softmax(-1) for path, each in scores.items()}
    return Watched(scores, alpha, torch.tensor(OWN), answers, tokens)


def numbers(tensor: Tensor) -> list:
    return tensor.double().tolist()


def meteora(seen: Watched) -> float:
    """Cross-entropy with the row's own adapter, at each of its tokens, in each gate; the mean."""
    found = []
    for scores in map(numbers, seen.scores.values()):
        here = []
        for row in range(ROWS):
            if OWN[row] < 0:
                continue
            for token in range(LENGTHS[row]):
                logits = scores[row][token]
                total = sum(math.exp(one) for one in logits)
                here.append(math.log(total) - logits[OWN[row]])
        found.append(sum(here) / len(here))
    return BALANCE * sum(found) / len(found)


def moe(seen: Watched) -> float:
    """k sum_j f_j p_j of each gate, over the tokens that predict an answer; the mean of gates."""
    found = []
    for alpha in map(numbers, seen.alpha.values()):
        best, mean, count = [0.0] * K, [0.0] * K, 0
        for row in range(ROWS):
            for token in ANSWERS[row]:
                p = alpha[row][token]
                count += 1
                for j in range(K):
                    best[j] += p[j] == max(p)
                    mean[j] += p[j]
        found.append(K * sum(b / count * m / count for b, m in zip(best, mean, strict=True)))
    return BALANCE * sum(found) / len(found)


def mole(seen: Watched) -> float:
    """-log prod_i q_i, q_i the mean weight over gates and over tokens that predict an answer."""
    q = []
    for alpha in map(numbers, seen.alpha.values()):
        rows = [alpha[row][token] for row in range(ROWS) for token in ANSWERS[row]]
        q.append([sum(row[j] for row in rows) / len(rows) for j in range(K)])
    return -BALANCE * sum(math.log(sum(gate[j] for gate in q) / len(q)) for j in range(K))


@pytest.mark.parametrize(
    ("name", "oracle"), [("meteora", meteora), ("ramole", meteora), ("moe", moe), ("mole", mole)]
)
def test_a_methods_own_loss_is_its_equation(name, oracle) -> None:
    seen = watched()
    found = float(METHODS[name].loss(seen, {"balance": BALANCE, "own": BALANCE}))
    assert found == pytest.approx(oracle(seen), rel=1e-5) and abs(found) > 1e-2
    assert float(METHODS[name].loss(seen, {"balance": 0.0, "own": 0.0})) == 0


def test_no_row_whose_adapter_is_there_has_no_loss_of_its_own() -> None:
    seen = watched()
    none = Watched(seen.scores, seen.alpha, -torch.ones(ROWS).long(), seen.answers, seen.tokens)
    assert METHODS["meteora"].loss(none, {"balance": BALANCE}) == 0.0


def test_llava_moles_balance_is_its_equation() -> None:
    """sum_j c_j p_j: the share of tokens that choose expert j, times its mean probability."""
    p = torch.randn(40, K, generator=torch.Generator().manual_seed(1)).softmax(-1)
    rows = numbers(p)
    share = [sum(row[j] == max(row) for row in rows) / len(rows) for j in range(K)]
    mean = [sum(row[j] for row in rows) / len(rows) for j in range(K)]
    wanted = sum(c * m for c, m in zip(share, mean, strict=True))
    found = float(balance(p))
    assert found == pytest.approx(wanted, rel=1e-5)


def test_ca_loras_distillation_is_a_mean_square_over_real_tokens() -> None:
    random = torch.Generator().manual_seed(2)
    hidden, aim = (torch.randn(ROWS, TOKENS, 5, generator=random).bfloat16() for _ in range(2))
    one, other = numbers(hidden), numbers(aim)

    squares = [
        (one[row][token][d] - other[row][token][d]) ** 2
        for row in range(ROWS)
        for token in range(LENGTHS[row])
        for d in range(5)
    ]
    found = distance(hidden, aim, real=torch.arange(TOKENS) < torch.tensor(LENGTHS)[:, None])
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(sum(squares) / len(squares), rel=1e-5)


@pytest.mark.parametrize("name", ["smear", "lora_flow"])
def test_who_has_no_loss_of_its_own_learns_by_the_language_model_alone(name: str) -> None:
    assert METHODS[name].loss(watched(), {}) == 0
