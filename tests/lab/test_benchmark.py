"""The benchmark measures what it says: the same tokens for all, right sums, resumed."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab.benchmarks import workload
from lab.benchmarks.peers import OneEach, base_loader
from lab.benchmarks.ratios import measure_ratios
from lab.benchmarks.record import Cell, Record, measure_cells, read_parts
from lab.benchmarks.run import choose_parts, run_benchmark
from lab.benchmarks.serving import run_workload
from lab.benchmarks.sizes import FULL, QUICK
from lab.benchmarks.stage import Stage
from lab.benchmarks.synthetic import write_adapters
from lab.benchmarks.workload import (
    RANKS,
    Workload,
    make_arrivals,
    make_ranks,
    replay,
)
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
from ramole_core.settings import load_settings
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


def test_made_adapters_are_peft_folders_with_bytes_of_their_own(tiny_llama, tmp_path):
    from peft import PeftModel

    shapes = read_shapes(tiny_llama)
    made = {"shapes": shapes, "ranks": [4, 8, 4], "dtype": torch.float32}
    names = write_adapters(tmp_path / "one", **made)
    assert names == write_adapters(tmp_path / "two", **made)
    files = [tmp_path / "one" / name / "adapter_model.safetensors" for name in names]
    same = [tmp_path / "two" / name / "adapter_model.safetensors" for name in names]
    assert [f.read_bytes() for f in files] == [f.read_bytes() for f in same]
    assert len({f.read_bytes() for f in files}) == 3
    tensors = load_file(files[1])
    assert len(tensors) == 2 * len(shapes)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    ids = torch.tensor([[5, 6, 7, 8]])
    before = model(ids).logits
    tuned = PeftModel.from_pretrained(model, str(files[1].parent))
    assert tuned.peft_config["default"].r == 8
    after = tuned(ids).logits
    assert not torch.allclose(before, after, atol=1e-5)


def test_made_weights_are_as_large_as_a_trained_adapters(tmp_path):
    trained = Path(__file__).parents[2] / "adapters" / "clinc_intent"
    theirs = load_file(trained / "adapter_model.safetensors")
    path = "model.layers.14.mlp.gate_proj"
    o, r = theirs[f"base_model.model.{path}.lora_B.weight"].shape
    i = theirs[f"base_model.model.{path}.lora_A.weight"].shape[1]
    (name,) = write_adapters(tmp_path, shapes={path: (i, o)}, ranks=[r], dtype=torch.bfloat16)
    ours = load_file(tmp_path / name / "adapter_model.safetensors")
    for half in ("A", "B"):
        key = f"base_model.model.{path}.lora_{half}.weight"
        sizes = [t[key].float().square().mean().sqrt().item() for t in (ours, theirs)]
        assert 0.35 < sizes[0] / sizes[1] < 2.8


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


def made_part(setup: dict, quantity: str, cells: dict[str, list[float]]) -> dict:
    return {
        "setup": setup,
        "cells": {
            name: {"repetitions": [{quantity: value} for value in values]}
            for name, values in cells.items()
        },
    }


def test_ratios_are_taken_repetition_by_repetition():
    parts = {
        "decode": made_part(
            {"new_tokens": {"1": 4}},
            "decode_tokens_per_second",
            {
                "base/batch=1": [10.0, 20.0, 10.0],
                "ramole_k3/batch=1": [8.0, 12.0, 9.0],
                "transformers_generate/batch=1": [9.0, 20.0, 20.0],
            },
        ),
        "together": made_part(
            {"together": 16}, "seconds", {"at_once": [2.0], "one_after_another": [9.0]}
        ),
        "retrieval": made_part({"retrieval": [10, 50]}, "retrieve_50_ms", {"milliseconds": [41.0]}),
    }
    rows = measure_ratios(parts)
    found = {row["what"]: (row["measured"], row["min"], row["max"]) for row in rows}
    assert found == {
        "decode, ramole_k3 / base, batch=1": (0.8, 0.6, 0.9),
        "decode, base / transformers_generate/batch=1": (1.0, 0.5, 1.11),
        "16 requests, seconds one after another / at once": (4.5, 4.5, 4.5),
        "retrieval among 50 adapters, encoder included, ms": (41.0, 41.0, 41.0),
    }


def test_every_ratio_of_the_full_benchmark_has_its_cells():
    """The sizes of the real run measure each ratio that is asked for."""
    assert set(FULL.new_tokens) == set(FULL.peer_tokens) == {1, 8, 32}
    assert FULL.adapters == 24 and FULL.rank == 8 and FULL.prefill == (8, 128)
    assert FULL.serve_adapters == (5, 50, 100, 500, 1000, 2000)
    assert max(FULL.retrieval) == 10_000 and FULL.together == 16
    assert set(FULL.xlora_tokens) == {rows for rows in FULL.peer_tokens if rows <= FULL.mixed_rows}


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
