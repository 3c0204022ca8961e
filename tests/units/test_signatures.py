"""What `signatures.py` says is checked is checked, or the suite would be faster for nothing."""

import dataclasses

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from lab.evaluation.intervals import bootstrap
from ramole_core.engine.scheduler import Sizes
from ramole_core.retrieval.encoder import Encoder, unit
from ramole_core.retrieval.metric import Metric
from tests.support.signatures import EACH, FIRST


def test_a_wrong_argument_is_refused(tmp_path):
    matrix, idf = np.zeros((3, 4), np.float32), np.zeros(8, np.float32)
    for wrong in (
        lambda: Metric(matrix, idf, 0.5, 8),  # [d d] is square
        lambda: Encoder(5, data_dir=tmp_path),
        lambda: bootstrap(3.0),
        lambda: Sizes(max_batch="many"),
    ):
        with pytest.raises(TypeCheckError):
            wrong()
    assert unit(np.ones((1, 4), np.float32)).shape == (1, 4)
    assert dataclasses.replace(Sizes(), max_batch=3).max_batch == 3


def test_first_calls_of_a_test_are_checked_and_some_of_the_others():
    rows, refused = np.ones((1, 4), np.float32), []
    for count in range(1, 2 * EACH + 1):
        try:
            unit(rows[0])
        except TypeCheckError:
            refused.append(count)
        except ValueError:  # numpy's own
            continue
    assert refused == [*range(1, FIRST + 1), EACH, 2 * EACH]
