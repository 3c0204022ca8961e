"""The fused mixing of `layers/triton_mixing.py` on a CPU, in Triton's interpreter, against the
plain form and against PyTorch's way; run as a program, since Triton asks for its interpreter when
it is imported. Prints one line of JSON: the largest differences, and what was launched."""

import json
import os
from collections.abc import Sequence
from copy import deepcopy

os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch.nn.functional import pad

from ramole_core.layers.fused import Fused
from ramole_core.layers.gate_softmax import weigh
from ramole_core.layers.traced import WEIGHT
from ramole_core.layers.triton_mixing import mix_group
from tests.laws.test_layers import GPT2, LLAMA
from tests.laws.test_served_layers import ROWS, World, told

SIZES = (37, 130, 5, 64, 33)
"""Outputs of the modules of a made-up group: odd ones, and more than one launch takes."""
S, PAGES_THERE = 7, 61
BATCH = 11
SPECIAL = (3, 4, 5, 7)
"""One of each kind of gate, one with a bypass, and one whose weights are taken as they come."""


def against_plain(config, rows) -> dict[str, float]:
    """float32: all these rows in one batch."""
    world = World(config)
    ids = torch.randint(0, 61, (len(rows), 1))
    expected, gates = world.plain(ids, rows)
    mixes = [world.row(method, names) for method, names in rows]
    fused = Fused()
    logits, traces = told(world, ids, mixes, "all", fused=fused)
    assert not fused.fault, fused.fault
    other, others = told(world, ids, mixes, "all")
    k = max(one.shape[-1] for one in traces)
    weights = torch.stack([pad(one[:, WEIGHT], (0, k - one.shape[-1])) for one in traces])
    contributions = [(a - b).abs().max() for a, b in zip(traces, others, strict=True) if a.numel()]
    bare = world.model(ids).logits
    return {
        "logits": float((logits - expected).abs().max()),
        "gates": float((weights.float() - gates.float()).abs().max()),
        "contributions": float(max(contributions)),
        "changed": float((logits - bare).abs().max()),
        "torch": float((logits - other).abs().max()),
        "launched": fused.launched,
    }


def made_up(dtype: torch.dtype, rows: Sequence[int]) -> dict[str, float]:
    """One group, rows of 1 to 8 adapters of ranks 1 to 19, every term of a gate, some modules
    absent; against loops in float64, for a token of each of `rows`."""
    torch.manual_seed(7)
    b, k, m = BATCH, 8, len(SIZES)
    row_of = torch.tensor(rows)
    n = len(row_of)
    made = {
        "pages": torch.zeros(b, 64, dtype=torch.int32),
        "slots": torch.zeros(b, 64, dtype=torch.int32),
        "acts": torch.zeros(b, 64, dtype=torch.int8),
        "counts": torch.zeros(b, 2, dtype=torch.int32),
        "asks": torch.zeros(b, 5, dtype=torch.int32),
        "own": torch.rand(b) * (torch.arange(b) % 3 == 0),
        "present": torch.rand(m + 2, b, k) > 0.25,
        "fixed": torch.randn(m + 2, b, k),
        "bias": 0.1 * torch.randn(m + 2, b, k),
        "usual": torch.rand(m + 2, b, k, 2) + 0.3,
    }
    for row in range(b):
        own, at = 1 + row % 8, 0
        for slot in range(own + (row == 4)):  # row 4 has a bypass behind its own
            rank = min(1 + (5 * row + 3 * slot) % 19, 64 - at)
            made["pages"][row, at : at + rank] = torch.randperm(PAGES_THERE)[:rank]
            made["slots"][row, at : at + rank] = slot
            made["acts"][row, at : at + rank] = (row + slot) % 3 if slot == own else 0
            at += rank
        made["counts"][row] = torch.tensor([at, own])
        start = row % 3
        made["asks"][row] = torch.tensor([row % 3, start, S - start - row % 2, row % 4, row == 7])
        made["present"][:, row, own:] = False
    inner = torch.randn(n, S + PAGES_THERE, m).to(dtype)
    gram, late = torch.randn(m, PAGES_THERE, S) * 0.3, torch.randn(m, n, k)
    Bs = [torch.randn(PAGES_THERE, o).to(dtype) for o in SIZES]
    ys = [torch.randn(n, o).to(dtype) for o in SIZES]
    before = [y.clone() for y in ys]
    recorded = torch.zeros(m, n, k), torch.zeros(m, n, k)
    given = {"inner": inner, "gram": gram, "late": late, "row_of": row_of, "tables": made}
    mix_group(ys, Bs, **given, first=2, recorded=recorded)
    differs = dict.fromkeys(("y", "alpha", "length"), 0.0)
    for t in range(n):
        for j in range(m):
            added, alpha, length = by_hand(
                made, int(row_of[t]), j, inner[t, :, j].double(), gram[j].double(), late[j, t]
            )
            expected = before[j][t].double() + added @ Bs[j].double()
            scale = expected.abs().max()
            found = {"y": (ys[j][t] - expected).abs().max() / scale}
            found["alpha"] = (recorded[0][j, t, : len(alpha)] - alpha).abs().max()
            found["length"] = (recorded[1][j, t, : len(alpha)] - length).abs().max()
            differs = {name: max(most, float(found[name])) for name, most in differs.items()}
    return differs | {"changed": float((ys[1] - before[1]).abs().max())}


def by_hand(made, row, j, inner, gram, late):
    """The weighted units by page of one token at one module, its weights and their lengths."""
    count, own = made["counts"][row].tolist()
    kind, start, rank, top, raw = made["asks"][row].tolist()
    present = made["present"][2 + j, row, :own]
    score = made["fixed"][2 + j, row, :own].double().clone()
    units, squares = torch.zeros(count, dtype=torch.float64), torch.zeros(own + 1).double()
    products = torch.zeros(own + 1).double()
    pages, slots = made["pages"][row].tolist(), made["slots"][row].tolist()
    for r in range(count):
        u = inner[S + pages[r]]
        act = int(made["acts"][row, r])
        u = {0: u, 1: torch.nn.functional.gelu(u), 2: u.relu()}[act]
        q = inner[start : start + rank]
        products[slots[r]] += (q @ gram[pages[r], start : start + rank]) * u
        squares[slots[r]] += u * u
        units[r] = u
    score += products[:own] * present
    mean, inverse = made["usual"][2 + j, row, :own].double().unbind(-1)
    z = ((0.5 * torch.log(squares[:own] + 1e-12) - mean) * inverse).clamp(-4, 4)
    score += made["own"][row] * z * present + late[:own]
    allowed = present | (kind == 2)
    bias = made["bias"][2 + j, row, :own].double()
    alpha = weigh(score, allowed=allowed, top=top, raw=bool(raw), bias=bias)
    if kind == 0:
        alpha = made["fixed"][2 + j, row, :own].double()
    weight = torch.cat([alpha * present, torch.ones(1)])  # a bypass
    page_units = torch.zeros(PAGES_THERE, dtype=torch.float64)
    for r in range(count):
        page_units[pages[r]] += weight[slots[r]] * units[r]
    return page_units, alpha, squares[:own].sqrt() * weight[:own].abs()


if __name__ == "__main__":
    llama, gpt2 = deepcopy(LLAMA), deepcopy(GPT2)  # each layer is interpreted, line by line
    llama.num_hidden_layers = gpt2.n_layer = 1
    print(
        json.dumps(
            {
                "llama": against_plain(llama, ROWS[::2]),
                "gpt2": against_plain(gpt2, ROWS[1::2]),
                "float32": made_up(torch.float32, [*range(BATCH), 3, 3, 8]),
                "bfloat16": made_up(torch.bfloat16, SPECIAL),
            }
        )
    )
