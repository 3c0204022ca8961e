"""An adapter's vector: its examples' mean, and a share for what its card says."""

import numpy as np
import pytest

from ramole_core.retrieval import Retriever
from ramole_core.retrieval.card_vector import MAX_CHARACTERS, WORDS, adapter_vectors, card_texts
from ramole_core.retrieval.index import AdapterIndex
from tests.support.retrieval_fakes import FakeCard, FakeEncoder, FakePool

TEXTS = ("one", "two", "three")


def unit(row):
    return row / np.linalg.norm(row)


def test_examples_and_words_are_weighed_as_the_equation_says():
    embed = FakeEncoder().embed
    plain, told = FakeCard("a", texts=TEXTS), FakeCard("b", texts=TEXTS, description="It counts.")
    silent = FakeCard("c", texts=("It counts.",), description="It counts.", blind=True)
    rows, words = embed(TEXTS).astype(float), embed(["It counts."])[0].astype(float)
    mean = unit(rows.mean(0))
    expected = [mean, unit((1 - WORDS) * mean + WORDS * unit(words)), unit(words)]
    np.testing.assert_allclose(adapter_vectors(embed, [plain, told, silent]), expected, atol=1e-6)


def test_of_long_words_the_beginning_counts():
    long = FakeCard("a", texts=TEXTS, description="It counts. " + "Licence. " * 900)
    assert card_texts(long)[:-1] == TEXTS and len(card_texts(long)[-1]) <= MAX_CHARACTERS
    assert card_texts(long)[-1].startswith("It counts.")
    assert card_texts(FakeCard("a", texts=TEXTS, description="  ")) == TEXTS
    assert card_texts(FakeCard("a", texts=())) == ("a",)


@pytest.mark.parametrize("description", ["It counts apples.", ""])
def test_an_index_follows_the_words_of_a_card(tmp_path, description):
    pool = FakePool()
    retriever = Retriever(pool=pool, encoder=FakeEncoder(), index=AdapterIndex(data_dir=tmp_path))
    pool.put(FakeCard("a", texts=TEXTS, description="It counts pears."))
    assert len(retriever.check().added) + len(retriever.check().added) == 1
    before = retriever.similarities("one", pool.all_cards())
    pool.put(FakeCard("a", texts=TEXTS, description=description))
    assert retriever.check().added == ("pool/a",)
    assert retriever.similarities("one", pool.all_cards()) != before
    retriever.close()
