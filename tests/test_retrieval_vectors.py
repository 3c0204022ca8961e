"""The vectors in memory: whatever was put and dropped before, brute force over what is left."""

import numpy as np
import pytest

from ramole_core.retrieval.vectors import Vectors
from tests.retrieval_fakes import D
from tests.test_retrieval_index import brute, draw, names


def test_any_order_of_puts_and_drops_equals_brute_force() -> None:
    random = np.random.default_rng(5)
    rows = draw(211)
    held = {f"pool/a{i}": rows[i] for i in range(17)}
    vectors = Vectors()
    vectors.put(held)
    for step in range(150):
        keys = [f"pool/a{i}" for i in random.choice(300, size=random.integers(1, 40))]
        if random.random() < 0.45:
            vectors.drop(keys)
            held = {key: vector for key, vector in held.items() if key not in keys}
        else:
            new = {
                key: rows[random.integers(211)] * np.float32(2.0 ** random.integers(-3, 4))
                for key in keys
            }
            vectors.put(new)
            held |= new
        query, k = draw(1, seed=1000 + step)[0], int(random.integers(1, 25))
        among = {key for key in [*held, "pool/nowhere"] if random.random() < 0.6}
        expected = brute(query, {key: v for key, v in held.items() if key in among}, k)
        assert names(vectors.query(query, k=k, among=among)) == expected


def test_near_ties_at_the_last_place_are_ordered_exactly() -> None:
    query = draw(1)[0]
    away = draw(1, seed=1)[0]
    rows = {f"pool/a{i:03}": query + np.float32(1e-3 + i * 2e-6) * away for i in range(200)}
    vectors = Vectors()
    vectors.put(rows)
    assert names(vectors.query(query, k=7, among=rows)) == brute(query, rows, 7)


def test_empty_zero_and_another_dimension() -> None:
    vector = draw(1)[0]
    vectors = Vectors()
    assert vectors.query(vector, k=3, among={"pool/a"}) == []
    vectors.put({"pool/a": np.zeros(D, np.float32)})
    assert vectors.query(vector, k=3, among={"pool/a"}) == [("pool/a", 0.0)]
    with pytest.raises(ValueError, match="dimension 21"):
        vectors.query(draw(1, d=D + 2)[0], k=1, among={"pool/a"})
    with pytest.raises(ValueError, match="dimension 21"):
        vectors.put({"pool/b": draw(1, d=D + 2)[0]})
    vectors.drop(["pool/a"])
    vectors.put({"pool/b": draw(1, d=D + 2)[0]})  # an empty one takes any dimension
    assert len(vectors.query(draw(1, d=D + 2)[0], k=1, among={"pool/b"})) == 1
