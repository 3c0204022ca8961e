"""The benchmark measures what it says: the same tokens for all, right sums, resumed."""

import json
import math
import sys
from dataclasses import replace
from itertools import count

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from lab.benchmarks import draft_peers, method_speed, workload
from lab.benchmarks.peers import OneEach, base_loader
from lab.benchmarks.ratios import measure_ratios
from lab.benchmarks.record import Cell, Record, measure_cells, read_parts
from lab.benchmarks.run import choose_parts, run_benchmark
from lab.benchmarks.serving import run_workload
from lab.benchmarks.sizes import QUICK
from lab.benchmarks.stage import Stage
from lab.benchmarks.workload import RANKS, Workload, make_arrivals, make_ranks, replay
from ramole_core.base.fetch import unpack_gguf
from ramole_core.base.shapes import read_shapes
from ramole_core.cli import main
from ramole_core.cli.timed_engine import (
    BASE,
    RAMOLE,
    SELECTION,
    OurEngine,
    full_window,
    make_prompts,
    make_requests,
)
from ramole_core.errors import RamoleError
from ramole_core.methods import Method, Option
from ramole_core.pool import write_manifest
from ramole_core.pool.tensors import AdapterTensors
from ramole_core.settings import load_settings
from tests.conftest import tiny_settings
from tests.core.test_ramole import write_lora
from tests.support.few_prompts import few_reference_prompts  # noqa: F401  a fixture

SIZES = replace(
    QUICK,
    rank=4,
    new_tokens={1: 4, 3: 5},
    prefill=(3, 20),
    peer_tokens={1: 3, 3: 3},
    xlora_tokens={1: 2, 3: 2},
    switching_tokens={1: 2, 3: 2},
    mixed_rows=3,
    serve_adapters=(2, 7),
    serve_requests=9,
    serve_share=2.0,
    serve_seconds=0.3,
    requests=(3, 7, 4),
    llama_tokens={1: 4, 3: 4},
    llama_prompt=20,
    retrieval=(20,),
)
WORK = Workload(
    adapters=50, requests=4000, rate=2.0, alpha=1.0, cv=1.5, prompt=(8, 32), answer=(4, 9)
)


def quiet(stage: str, fraction: float) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def settings(tiny_llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "adapters").mkdir()
    return load_settings(
        base_model=str(tiny_llama),
        quantization="none",
        dtype="float32",
        device="cpu",
        data_dir=folder / "data",
        adapters_dir=folder / "adapters",
    )


@pytest.fixture(scope="module")
def stage(settings, tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    with Stage(settings, work=work, sizes=SIZES, tell=quiet) as stage:
        yield stage


@pytest.mark.parametrize("tokens", [1, 7, 40])
def test_prompts_have_exactly_so_many_tokens(tiny_llama, real_base_folder, tokens):
    for folder in (tiny_llama, real_base_folder):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        prompts = make_prompts(tokenizer, tokens=tokens, count=4)
        assert [len(tokenizer(prompt)["input_ids"]) for prompt in prompts] == [tokens] * 4
        assert prompts == make_prompts(tokenizer, tokens=tokens, count=4)
    assert tokens == 1 or len(set(prompts)) > 1


def test_arrivals_follow_the_published_laws():
    arrivals = make_arrivals(WORK)
    gaps = np.diff([a.at for a in arrivals])
    assert abs(gaps.mean() - 1 / WORK.rate) < 0.05
    assert abs(gaps.std() / gaps.mean() - WORK.cv) < 0.15
    chosen = np.bincount([a.adapter for a in arrivals], minlength=WORK.adapters)
    assert chosen.min() > 40 and chosen.max() < 130, "alpha = 1 is uniform"
    skewed = [a.adapter for a in make_arrivals(replace(WORK, alpha=0.1))]
    assert np.mean(np.array(skewed) == 0) > 0.5, "a small alpha is skewed"
    assert {a.prompt_tokens for a in arrivals} == set(range(8, 33))
    assert {a.new_tokens for a in arrivals} == set(range(4, 10))
    assert [make_ranks(9)[n] for n in (0, 3, 4, 8)] == [RANKS[0], RANKS[3], RANKS[0], RANKS[0]]


def test_only_the_adapters_differ_between_two_sizes_of_the_pool():
    few, many = make_arrivals(replace(WORK, adapters=5)), make_arrivals(WORK)
    assert [replace(a, adapter=0) for a in few] == [replace(a, adapter=0) for a in many]
    assert many == make_arrivals(WORK) != make_arrivals(replace(WORK, seed=1))


def test_the_window_counts_only_while_every_row_decodes():
    marks = [[1.0, 2.0, 3.0, 4.0], [2.5, 3.0, 4.0, 5.0, 6.0]]
    assert full_window(marks) == (2.5, 4.0, 4)
    assert full_window([[1.0], [2.0]])[2] == 0


def test_peers_and_we_generate_the_same_tokens(stage):
    """What is timed is the same work: in fp32 PEFT's answer is ours, token for token."""
    ours: OurEngine = stage.ours
    names, prompts = stage.shared[:3], stage.prompts(3, 8)
    folders = [stage.pool / name for name in names]
    peer = OneEach(base_loader(ours.ramole.base, data_dir=stage.pool), folders)
    seen = []
    generate = peer._generate
    peer._generate = lambda **options: seen.append(generate(**options)) or seen[-1]
    measured = peer.measure(prompts, names, 6)
    assert set(measured) >= {"decode_tokens_per_second", "prefill_tokens_per_second"}
    requests = make_requests(prompts, SELECTION, names=names, new_tokens=6)
    traced = [replace(request, trace=True) for request in requests]
    answers = [answer.trace.token_ids for answer in ours.ramole.generate(traced)]
    assert [row.tolist() for row in seen[0]] == answers
    assert len({tuple(row) for row in answers}) == 3


def test_our_rates_come_from_all_rows(stage):
    requests = make_requests(stage.prompts(3, 8), RAMOLE, names=stage.shared, new_tokens=7)
    assert [len(request.adapters) for request in requests] == [3, 3, 3]
    assert len({name for request in requests for name in request.adapters}) == 5
    found = stage.ours.measure(requests)
    assert found["prefill_tokens_per_second"] * found["prefill_seconds"] == pytest.approx(24)
    assert found["seconds"] > found["prefill_seconds"] > 0
    assert found["decode_tokens_per_second"] > 0
    once = make_requests(stage.prompts(3, 8), BASE, names=(), new_tokens=1)
    assert "decode_tokens_per_second" not in stage.ours.measure(once)


@pytest.mark.parametrize(("in_real_time", "in_time"), [(False, 0.0), (True, math.inf)])
def test_a_replay_answers_everyone_also_through_a_full_queue(
    stage, in_real_time, in_time, monkeypatch
):
    monkeypatch.setattr(workload, "IN_TIME", in_time)
    engine = stage.ours
    scheduler = engine.ramole.engine.scheduler
    monkeypatch.setattr(scheduler, "sizes", replace(scheduler.sizes, max_queue=2))
    work = replace(WORK, adapters=3, requests=12, rate=60.0, prompt=(3, 9), answer=(1, 6))
    arrivals = make_arrivals(work)
    names = stage.shared
    prompts = [stage.prompts(1, a.prompt_tokens)[0] for a in arrivals]
    requests = [
        make_requests([p], SELECTION, names=[names[a.adapter]], new_tokens=a.new_tokens)[0]
        for p, a in zip(prompts, arrivals, strict=True)
    ]
    found = replay(engine, arrivals, requests, in_real_time=in_real_time)
    assert engine.idle
    total = sum(a.new_tokens for a in arrivals)
    assert found["tokens_per_second"] / found["requests_per_second"] == pytest.approx(total / 12)
    assert 0 < found["first_token_seconds"] <= found["latency_seconds"]
    assert found["first_token_in_time_share"] == float(in_time > 0)
    if in_real_time:
        assert 12 / found["requests_per_second"] >= arrivals[-1].at - arrivals[0].at


def test_each_run_of_the_workload_reads_its_prompts_and_adapters_again(stage):
    """The cells of a repetition have the same prompts: none may find what another one read."""
    work = replace(WORK, adapters=3, requests=6, prompt=(3, 9), answer=(1, 3))
    engine, spent = stage.ours, []
    for kind in ("warm", "cold"):
        before = engine.stats()
        found = run_workload(engine, work, stage.shared, kind=kind)
        read = engine.stats()["prefill_tokens"] - before["prefill_tokens"]
        spent.append((read, found["bank_loads"]))
    assert spent[0] == spent[1] and min(spent[0]) > 0


def test_repetitions_are_interleaved_and_resumed(tmp_path):
    order = []

    def cell(name: str) -> Cell:
        return Cell(name, lambda: order.append(name) or {"seconds": float(len(order))})

    def run(repetitions: int, setup: dict, machine: dict) -> Record:
        record = Record(tmp_path / "speed.json", machine=machine)
        record.begin("part", setup)
        cells = [cell("a"), cell("b"), replace(cell("c"), repetitions=1)]
        measure_cells(cells, part="part", repetitions=repetitions, record=record, tell=quiet)
        return record

    run(2, {"size": 1}, {"cpu": "x"})
    assert order == ["a", "b", "c", "b", "a"]
    run(2, {"size": 1}, {"cpu": "x"})
    assert len(order) == 5, "nothing is measured twice"
    record = run(3, {"size": 1}, {"cpu": "x"})
    assert sorted(order[5:]) == ["a", "b"]
    assert record.parts["part"]["cells"]["a"]["summary"]["seconds"] == {
        "median": 5.0,
        "min": 1.0,
        "max": max(order.index("a", 5), 5) + 1.0,
    }
    run(1, {"size": 2}, {"cpu": "x"})
    assert len(order) == 10, "another setup begins anew"
    run(1, {"size": 2}, {"cpu": "y"})
    assert len(order) == 13, "and so does another machine"
    (tmp_path / "speed.json").write_text("[]")
    with pytest.raises(RamoleError, match="not a record of speeds"):
        read_parts(tmp_path / "speed.json")


def test_ratios_are_taken_repetition_by_repetition():
    def part(setup: dict, quantity: str, **cells: list[float]) -> dict:
        rows = {name: [{quantity: value} for value in values] for name, values in cells.items()}
        return {"setup": setup, "cells": {n: {"repetitions": each} for n, each in rows.items()}}

    rate = "decode_tokens_per_second"
    llama = part({}, "prefill_tokens_per_second", **{"llama_cpp/prompt": [100, 200]})["cells"]
    llama |= part({}, rate, **{"llama_cpp/batch=1": [100, 200], "base/batch=1": [90, 100]})["cells"]
    parts = {
        "decode": part(
            {"new_tokens": {"1": 4}},
            rate,
            **{
                "base/batch=1": [10.0, 20.0, 10.0],
                "ramole_k3/batch=1": [8.0, 12.0, 9.0],
                "transformers_generate/batch=1": [9.0, 20.0, 20.0],
            },
        ),
        "together": part({"together": 16}, "seconds", at_once=[2.0], one_after_another=[9.0]),
        "retrieval": part({"retrieval": [10, 50]}, "retrieve_50_ms", milliseconds=[41.0]),
        "llama_cpp": {"setup": {"llama_tokens": {"1": 4}, "llama_prompt": 480}, "cells": llama},
    }
    found = {
        row["what"]: (row["measured"], row["min"], row["max"]) for row in measure_ratios(parts)
    }
    assert found == {
        "decode, ramole_k3 / base, batch=1": (0.8, 0.6, 0.9),
        "decode, base / transformers_generate/batch=1": (1.0, 0.5, 1.11),
        "16 requests, seconds one after another / at once": (4.5, 4.5, 4.5),
        "retrieval among 50 adapters, encoder included, ms": (41.0, 41.0, 41.0),
        "decode, nf4, base / llama.cpp's bare base, batch=1": (0.7, 0.5, 0.9),
    }


def test_the_whole_benchmark_on_a_tiny_model(settings, tmp_path):
    out = tmp_path / "speed.json"
    asked = {
        "out": out,
        "work": tmp_path / "work",
        "sizes": SIZES,
        "only": [],
        "command": "x",
        "tell": quiet,
    }
    found = run_benchmark(settings, anew=False, **asked)
    parts = json.loads(out.read_text())["parts"]
    assert parts == found["parts"]
    assert set(parts) == set(choose_parts([]))
    systems = {
        cell["facts"]["system"] for p in ("decode", "peers") for cell in parts[p]["cells"].values()
    }
    assert systems >= {"base", "selection", "mixture_k3", "ramole_k1", "ramole_k3", "ramole_k8"}
    assert systems >= {"transformers_generate", "peft_one_each", "peft_switching"}
    assert systems >= {"peft_arrow", "peft_xlora", "ramole_k3_trace"}
    assert parts["slora"]["notes"]["anonymous_mib"]["after_all_runs"] > 0
    for kind in ("warm", "cold", "real_time"):
        (run,) = parts["slora"]["cells"][f"{kind}/n=7"]["repetitions"]
        assert run["host_reads"] == run["distinct_adapters"] <= run["bank_loads"], "none is there"
    assert {row["what"].split(",")[0] for row in found["ratios"]} >= {"decode", "prefill"}
    machine = parts["decode"]["machine"]
    assert machine["threads"] == torch.get_num_threads() and machine["base_checksum"]
    before = out.read_text()
    run_benchmark(settings, anew=False, **{**asked, "only": ["decode", "together"]})
    cells = json.loads(out.read_text())["parts"]["decode"]["cells"]
    assert cells == json.loads(before)["parts"]["decode"]["cells"], "resumed: nothing to do"


def test_the_command_says_what_is_wrong(capsys, tmp_path, monkeypatch):
    assert main(["benchmark", "--only", "speed"]) == 2
    assert "choose from slora, arrivals, decode" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    assert main(["benchmark", "--peers", "--out", str(tmp_path / "none.json")]) == 2
    assert "pip install llama-cpp-python" in capsys.readouterr().err
    assert main(["benchmark", "--show", "--out", str(tmp_path / "none.json")]) == 2
    assert "run the benchmark first" in capsys.readouterr().err


# --- llama.cpp as a peer; a stand-in where the package is missing ---------------------------------


def test_what_is_missing_is_one_sentence(tmp_path):
    with pytest.raises(RamoleError, match="has no GGUF"):
        unpack_gguf(str(tmp_path), tmp_path)


# --- what each method costs -----------------------------------------------------------------------


def test_every_method_that_can_answer_has_its_rates(tiny_llama, tmp_path, monkeypatch, capsys):
    write_lora(tmp_path / "pool" / "ant", read_shapes(tiny_llama), rank=2, seed=1)
    write_manifest(tmp_path / "pool" / "ant", name="ant", shapes=read_shapes(tiny_llama))
    settings = tiny_settings(tiny_llama, tmp_path, adapters_dir=tmp_path / "pool")
    given = settings.model_copy
    monkeypatch.setattr(method_speed, "load_settings", lambda **said: given(update=said))
    monkeypatch.setattr(method_speed, "RIVAL", "mixture")  # which needs no weights
    monkeypatch.setattr(method_speed, "LONG", 1)  # the tiny base reads 512 tokens
    out = tmp_path / "method_speed.json"
    method_speed.main(new=3, passes=2, methods="base,mixture,lorahub,ramole", out=out)
    found = json.loads(out.read_text())["methods"]
    assert found["mixture"]["unseen"] and found["mixture"]["trained"] == 0
    rates = found["base"]["tokens_a_second"]
    assert rates.keys() == {"1", "8", "prompt"}
    assert found["base"]["used"] == 0 and "of_ramole" not in found["base"]
    assert all(0 < one["least"] <= one["median"] <= one["most"] for one in rates.values())
    assert found["mixture"]["used"] == 1 and 0 < found["mixture"]["of_ramole"]["8"]["median"]
    assert list(found) == ["base", "mixture", "lorahub"], "the weights of ramole are not there"
    assert capsys.readouterr().err.count("ramole is left out: There are no trained weights") == 1


def test_trained_numbers_are_counted_in_the_file(tmp_path):
    row = Method("gate", "", "", weights="_gate", training=(Option("rank", 1, 1, 2, ""),))
    (tmp_path / "_gate").mkdir()
    tensors = {"a": torch.zeros(3, 5, dtype=torch.bfloat16), "tau": torch.tensor(1.0)}
    save_file(tensors, tmp_path / "_gate" / "gate.safetensors")
    assert method_speed.count_trained(row, tmp_path) == 16
    assert method_speed.count_trained(Method("mixture", "", ""), tmp_path) == 0


# --- what prompt lookup earns in other engines ----------------------------------------------------


def test_an_adapter_of_a_llama_is_written_as_gguf_names_and_orders_it(tmp_path):
    torch.manual_seed(0)
    outputs = {"self_attn.q_proj": 24, "self_attn.k_proj": 12, "mlp.down_proj": 8}
    made = {path: (torch.randn(2, 6), torch.randn(o, 2)) for path, o in outputs.items()}
    tensors = AdapterTensors({f"model.layers.3.{path}": pair for path, pair in made.items()})
    file = tmp_path / "a.gguf"
    draft_peers.write_gguf(tensors, file, heads=(4, 2))
    read = {one.name: torch.tensor(one.data) for one in gguf.GGUFReader(file).tensors}
    names = dict(zip(outputs, ("attn_q", "attn_k", "ffn_down"), strict=True))
    assert len(read) == 6
    for path, (A, B) in tensors.modules.items():
        name = names[path.removeprefix("model.layers.3.")]
        assert torch.equal(read[f"blk.3.{name}.weight.lora_a"], A)
        wanted = B.clone()
        if name != "ffn_down":  # a head's halves alternate, row by row
            for row in range(len(B)):
                head, place = divmod(row, 6)
                wanted[6 * head + 2 * (place % 3) + place // 3] = B[row]
        assert torch.equal(read[f"blk.3.{name}.weight.lora_b"], wanted)
    fields = gguf.GGUFReader(file).fields
    assert fields["adapter.lora.alpha"].contents() == 2.0  # over the rank: B has the scale


@pytest.mark.parametrize("changes", [False, True])
def test_ways_take_turns_and_the_first_pass_is_not_counted(changes):
    asked, number = [], count()

    def answer(ids, lookup):
        asked.append(lookup)
        slow = 90.0 if next(number) < 4 else 10.0
        return (slow if lookup else 20.0), 40, [*ids, int(changes and lookup and len(asked) == 5)]

    found = draft_peers.take_turns(answer, [[1], [2]], passes=2)
    off, on = [False, False], [True, True]
    assert asked == [*off, *on, *on, *off, *off, *on]
    assert (found["ratio"], found["low"], found["high"]) == (2.0, 2.0, 2.0)
    assert (found["tokens_per_second"], found["without"]) == (4.0, 2.0)
    assert found["same_answers"] is not changes
