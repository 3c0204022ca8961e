"""Texts of several threads, read together; one that cannot be, and who is let in between."""

import threading
from functools import partial

import numpy as np
import pytest

from ramole_core.retrieval.encoder import MAX_BATCH, Gathered
from tests.support.serving import wait_until
from tests.support.workers import at_once

SOON = 120


class Reader:
    """Vectors of word lengths; each read waits until it is let, where `gate` is closed."""

    def __init__(self):
        self.reads: list[list[str]] = []
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()

    def __call__(self, texts: list[str]) -> list[np.ndarray]:
        self.reads.append(texts)
        self.begun.set()
        assert self.gate.wait(SOON)
        if "bad" in texts:
            raise ValueError("no such word")
        return [np.array([len(text)], np.float32) for text in texts]


@pytest.fixture
def reader() -> Reader:
    return Reader()


def many_at_once(gathered: Gathered, reader: Reader, lists: list[list[str]]) -> list[object]:
    """What each thread is given, all but the first having come while that one's read ran."""
    found: list[object] = [None] * len(lists)

    def ask(n: int) -> None:
        try:
            found[n] = [float(row[0]) for row in gathered(lists[n])]
        except ValueError as error:
            found[n] = str(error)

    def release() -> None:
        wanted = sum(min(MAX_BATCH, len(words)) for words in lists[1:])
        wait_until(lambda: len(gathered._waiting) >= wanted)
        reader.gate.set()

    def late(n: int) -> None:
        reader.begun.wait()
        ask(n)

    reader.gate.clear()
    at_once(release, partial(ask, 0), *(partial(late, n) for n in range(1, len(lists))))
    return found


def test_who_comes_while_one_reads_is_read_with_all_others(reader):
    lists = [["a"], ["bb", "ccc"], ["dddd"], ["eeeee", "f"]]
    found = many_at_once(Gathered(reader), reader, lists)
    assert found == [[float(len(word)) for word in words] for words in lists]
    assert [len(read) for read in reader.reads] == [1, 5]
    assert sorted(reader.reads[1]) == ["bb", "ccc", "dddd", "eeeee", "f"]


def test_a_long_list_lets_others_in_between(reader):
    long = ["x" * n for n in range(1, 3 * MAX_BATCH + 1)]
    found = many_at_once(Gathered(reader), reader, [long, ["yy"]])
    assert found == [[float(n) for n in range(1, 3 * MAX_BATCH + 1)], [2.0]]
    place = next(n for n, read in enumerate(reader.reads) if "yy" in read)
    assert place <= 2 and len(reader.reads) >= 3, "after one part of the list, not after all"
    assert max(map(len, reader.reads)) <= MAX_BATCH


def test_a_text_that_cannot_be_read_is_its_own_askers_trouble_alone(reader):
    gathered = Gathered(reader)
    found = many_at_once(gathered, reader, [["a"], ["bad", "ee"], ["cc"], ["ddd"]])
    assert found == [[1.0], "no such word", [2.0], [3.0]]
    assert len(reader.reads[1]) == 4, "they were read together first"
    assert float(gathered(["cc"])[0][0]) == 2 and not gathered([])


def test_one_who_is_interrupted_takes_no_others_texts_along():
    calls = []

    def read(texts):
        calls.append(texts)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return [np.zeros(1, np.float32) for _ in texts]

    gathered = Gathered(read)
    with pytest.raises(KeyboardInterrupt):
        gathered(["mine"])
    assert gathered(["yours"])[0].shape == (1,)
    assert calls == [["mine"], ["mine", "yours"]]
