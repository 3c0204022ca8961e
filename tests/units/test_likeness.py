"""The cosine of updates against the products written out, modules of different adapters missing."""

import numpy as np
import torch

from ramole_core.adapter_similarity import likeness_of

SIZES = {"x.q": (5, 7), "x.v": (3, 7), "y.q": (5, 11)}
HAS = (("x.q", "x.v", "y.q"), ("x.q",), ("x.v", "y.q"), ())


def test_it_is_the_cosine_of_the_products_where_a_missing_module_is_zero():
    draw = torch.Generator().manual_seed(3)
    adapters = []
    for rank, has in zip((4, 2, 3, 1), HAS, strict=True):
        pairs = {
            path: (
                torch.randn(rank, SIZES[path][1], generator=draw),
                torch.randn(SIZES[path][0], rank, generator=draw),
            )
            for path in has
        }
        adapters.append(pairs)
    adapters.append({path: (A * -2.0, B) for path, (A, B) in adapters[0].items()})
    flat = []
    for pairs in adapters:
        parts = [
            (pairs[path][1].double() @ pairs[path][0].double()).flatten().numpy()
            if path in pairs
            else np.zeros(SIZES[path][0] * SIZES[path][1])
            for path in SIZES
        ]
        flat.append(np.concatenate(parts))
    flat = np.stack(flat)
    lengths = np.linalg.norm(flat, axis=1)
    expected = flat @ flat.T / np.maximum(lengths[:, None] * lengths, 1e-30)
    np.fill_diagonal(expected, 1)
    found = likeness_of(adapters)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[0, 4] < -0.999 and 1e-4 < abs(found[0, 1]) < 0.9 and found[3, 0] == 0
