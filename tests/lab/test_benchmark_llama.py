"""llama.cpp as a peer reads what it is said to read; a stand-in where the package is missing."""

import ctypes
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lab.benchmarks.llama_cpp import LlamaCpp
from lab.benchmarks.ratios import measure_ratios
from ramole_core.base.fetch import unpack_gguf
from ramole_core.errors import RamoleError

WORDS = 11


class Llama:
    """The calls that the peer makes: a token is followed by the sum of all so far."""

    __version__ = "0"

    def __init__(self):
        self.read: dict[int, list[int]] = {}
        self.calls: list[int] = []
        self.held = 0

    def __getattr__(self, name):
        return lambda *args: SimpleNamespace()

    def llama_model_load_from_file(self, path, params):
        return SimpleNamespace() if path == b"there.gguf" else None

    def llama_vocab_n_tokens(self, vocab):
        return WORDS

    def llama_init_from_model(self, model, params):
        self.held += 1
        self.room, self.read = params, {}
        return self

    def llama_free(self, context):
        self.held -= 1

    def llama_batch_init(self, most, embeddings, sequences):
        self.held += 1
        rows = {name: [None] * most for name in ("token", "pos", "n_seq_id", "logits")}
        return SimpleNamespace(n_tokens=0, seq_id=[[None] for _ in range(most)], **rows)

    def llama_batch_free(self, batch):
        self.held -= 1

    def llama_decode(self, context, batch):
        assert batch.n_tokens <= self.room.n_batch
        self.calls.append(batch.n_tokens)
        self.wanted = {}
        for row in range(batch.n_tokens):
            there = self.read.setdefault(batch.seq_id[row][0], [])
            assert batch.pos[row] == len(there) and batch.n_seq_id[row] == 1
            there.append(batch.token[row])
            if batch.logits[row]:
                self.wanted[row] = np.eye(WORDS, dtype=np.float32)[sum(there) % WORDS]
        assert len(self.read) <= self.room.n_seq_max
        assert sum(map(len, self.read.values())) <= self.room.n_ctx
        return 0

    def llama_get_logits_ith(self, context, row):
        return self.wanted[row].ctypes.data_as(ctypes.POINTER(ctypes.c_float))


@pytest.fixture
def llama(monkeypatch):
    llama = Llama()
    monkeypatch.setattr("importlib.import_module", lambda name: llama)
    return llama


def test_it_reads_each_prompt_and_goes_on_with_its_own_tokens(llama):
    peer = LlamaCpp(Path("there.gguf"), threads=1)
    prompts = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    measured = peer.measure(prompts, 4)
    assert llama.calls == [9, 3, 3, 3] and llama.held == 0
    assert [rows[:3] for rows in llama.read.values()] == prompts
    assert all(rows[3] == sum(rows[:3]) % WORDS for rows in llama.read.values())
    assert measured["decode_tokens_per_second"] > 0 < measured["prefill_tokens_per_second"]


def test_many_long_prompts_are_read_in_parts(llama):
    peer = LlamaCpp(Path("there.gguf"), threads=1)
    peer.measure([[1] * 900] * 5, 2)
    assert llama.calls == [1800, 1800, 900, 5]


def test_what_is_missing_is_one_sentence(llama, tmp_path):
    with pytest.raises(RamoleError, match="cannot load gone.gguf"):
        LlamaCpp(Path("gone.gguf"), threads=1)
    with pytest.raises(RamoleError, match="has no GGUF"):
        unpack_gguf(str(tmp_path), tmp_path)


def test_ratios_are_quotients_of_the_same_repetition():
    cells = {
        f"{system}/{at}": {"repetitions": [{quantity: value} for value in values]}
        for (system, values), (at, quantity) in product(
            {"llama_cpp": [100, 200], "base": [90, 100], "ramole_k3": [60, 80]}.items(),
            {
                "batch=1": "decode_tokens_per_second",
                "batch=8": "decode_tokens_per_second",
                "prompt": "prefill_tokens_per_second",
            }.items(),
        )
    }
    setup = {"llama_tokens": {"1": 4, "8": 4}, "llama_prompt": 480}
    rows = measure_ratios({"llama_cpp": {"setup": setup, "cells": cells}})
    found = {row["what"]: row for row in rows}
    assert {row["measured"] for row in found.values()} == {0.7, 0.5}
    alone = found["decode, nf4, ramole_k3 / llama.cpp's bare base, batch=1"]
    assert (alone["min"], alone["max"]) == (0.4, 0.6)
