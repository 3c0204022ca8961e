"""One small file of results of each kind, for the tab Results; their numbers are invented."""

import json
from functools import partial
from pathlib import Path
from typing import Any

EVIL = "<img src=x onerror=window.hacked=1>${alert(1)}"
VERSIONS = {"torch": "9.1", "peft": "0.77"}
TASKS = {"sst2": ("sentiment", "em"), "copa": ("reasoning", "em"), "e2e_nlg": (EVIL, "rouge")}
SETTINGS = {
    "iid": "any adapter may be found, the right one too",
    "ood": "the right adapter is hidden from the retriever",
    "crowded": "the right adapter stands among forty strangers",
}
METHODS = {
    "ramole_plus": "a gate with the retriever's prior, calibrated on dev rows",
    "ramole": "a trained RouterLoRA weighs the adapters for every token and layer",
    "mixture": "the mean of the adapters' outputs, 1/k each",
    "selection": "the most similar adapter alone",
    "uniform_router": "the same gate untrained: equal weights",
    "base": "the base model alone, no adapter",
    "perfect": "the right adapter alone",
}
MEANS = {
    "iid": (61.2, 57.4, 52.1, 63.5, 51.0, 11.3, 66.6),
    "ood": (36.4, 34.2, 31.7, 24.9, 31.5, 11.3, None),
    "crowded": (58.8, 53.0, 49.9, 58.1, 48.7, None, None),
}


def span(mean: float, wide: float = 3.0) -> dict[str, float]:
    return {"mean": mean, "low": mean - wide, "high": mean + wide}


def evaluation() -> dict[str, Any]:
    """An evaluation of seven methods, three settings and three tasks."""
    cells: dict[str, dict[str, Any]] = {}
    for setting, means in MEANS.items():
        cells[setting] = {
            name: span(mean) | {"by_task": {t: mean + 7 * i - 7 for i, t in enumerate(TASKS)}}
            for name, mean in zip(METHODS, means, strict=True)
            if mean is not None
        }
    return {
        "command": "python -m ramole_core evaluate --data data",
        "date": "2026-11-25",
        "versions": VERSIONS,
        "base_model": "tiny:base",
        "base_checksum": "ab" * 32,
        "quantization": "nf4",
        "router_checksum": "cd" * 32,
        "retriever_checksum": None,
        "split": "test",
        "k": 3,
        "rows_per_task": 100,
        "tasks": {n: {"domain": d, "metric": m, "rows": 100} for n, (d, m) in TASKS.items()},
        "methods": METHODS,
        "settings": SETTINGS,
        "retrieval": {
            "iid": {"first": span(93.0), "found": span(98.0, 1.0)},
            "ood": {"first": span(0.0, 0.0), "found": span(0.0, 0.0)},
        },
        "lenient": {"iid": {"ramole": span(59.5), "base": span(20.2)}},
        "later": {"tasks": ["copa"], "cells": {"ood": {"ramole": span(31.5)}}, "differences": {}},
        "cells": cells,
        "situations": {
            "switch": {
                "what": f"chats of two turns {EVIL}",
                "unit": "pair",
                "units": 50,
                "questions": 200,
                "systems": {
                    "mixture": {"score": span(30.0), "left": span(0.0, 0.0)},
                    "ramole_plus": {"score": span(44.0), "left": span(1.0, 1.0), "odd": 7},
                },
                "way": {"from": "mixture", "to": "perfect", "percent": {"ramole_plus": span(91.0)}},
            },
            "open": {
                "what": "everyday prompts",
                "unit": "family",
                "systems": {"ramole_plus": {"same": span(97.0)}},
                "parts": {"unseen families": {"systems": {"ramole_plus": {"same": span(98.0)}}}},
            },
            "nothing": {"what": "cannot be read", "systems": {"mixture": {"score": "many"}}},
        },
        "differences": {
            "iid": [
                {"method": "ramole_plus", "rival": "mixture"} | span(9.1, 2.0),
                {"method": "ramole_plus", "rival": "selection"} | span(-2.3, 1.0),
            ],
            "ood": [{"method": "ramole_plus", "rival": "mixture"} | span(4.7, 5.0)],
        },
        "published": {
            "columns": ["7b IID", "7b OOD"],
            "rows": {"perfect selection": [55.4, None], "RAMoLE": [51.8, 47.7]},
            "source": "arXiv 2406.16989, table 2",
        },
    }


def retriever() -> dict[str, Any]:
    """A table of two retrievers, and one group of prompts of the shipped one."""

    def tops(first: float) -> dict[str, Any]:
        row = {
            f"top{k}": {"mean": m, "interval": [m - 2, m + 2], "tasks": [m - 10, m + 10]}
            for k, m in ((k, first + k) for k in (1, 3, 5, 8))
        }
        return {"plain": row, "merged": row}

    tuned = {"all": tops(70), "tuned": tops(75), "unseen": tops(66)}
    unseen = {"prompts": 77, "untuned": tops(80), "shipped": tops(85)}
    shipped = {"checksum": "ef" * 32, "trained_on": ["sst2"]}
    return {
        "command": "python -m lab retriever_table --data data",
        "pool": 48,
        "prompts": 2371,
        "summary": {"untuned": {"all": tops(60)}, "tuned on 40%": tuned},
        "shipped": shipped | {"unseen tasks of the data": unseen},
        "runs": {"untuned": {"checksum": "01" * 32}},
        "published": {"untuned MiniLM": [51.7, 73.1, 80.5, 87.2]},
        "twins": [["arc_easy", "arc_challenge"]],
        "versions": VERSIONS,
    }


def adapters() -> dict[str, Any]:
    """Two adapters, of which one helps for certain."""

    def entry(name: str, gain: dict[str, float], **more: Any) -> dict[str, Any]:
        scores = {"base": span(10), "commonest": span(21), "adapter": span(44), **more}
        scores["gain_over"] = {"base": gain}
        return {
            "metric": "em",
            "rows": 50,
            "adapter_sha256": "23" * 32,
            "scores": scores,
            "lenient": scores,
            "command": f"python -m lab dev_table --rows 50 {name}",
        }

    return {
        "adapters": {
            "sst2": entry("sst2", span(34), chance=span(50)),
            "copa": entry("copa", span(1)),
        },
        "base_model": "tiny:base",
        "versions": VERSIONS,
    }


def router_claim() -> dict[str, Any]:
    """Two gates in two groups, one of which has no seeds and one rival less."""

    def row(group: str, name: str, mean: float, **minus: float) -> dict[str, Any]:
        gaps = {rival: span(gap, 2.0) for rival, gap in minus.items()}
        return {"group": group, "name": name, "minus": gaps} | span(mean, 5.0)

    seen, seeds = "iid, tasks it saw", {"seeds": [51.0, 53.0]}
    return {
        "command": "python -m lab router_claim",
        "date": "2026-11-25",
        "measure": "points, higher is better",
        "rows": [
            row(seen, "one gate", 52.0, equal=5.0, random=1.0) | seeds,
            row(seen, "another", 40.0, equal=-7.0, random=-9.0),
            row("likely, all", "one gate", 20.0, equal=0.5),
        ],
        "notes": "Three seeds each.",
    }


def pieces() -> dict[str, Any]:
    """One row in one group, of scores."""
    against = {"rival": "selection"} | span(2.0, 0.5)
    return {
        "measure": "score, higher is better",
        "rows": [{"group": "ood", "name": "all pieces", "against": against} | span(45, 1)],
    }


def speed_cell(system: str, batch: int, speed: float) -> dict[str, Any]:
    rate = {"median": speed, "min": speed - 1, "max": speed + 1}
    facts = {"system": system, "batch": batch}
    return {"facts": facts, "summary": {"decode_tokens_per_second": rate}}


def speed() -> dict[str, Any]:
    """Two ratios, one machine, two systems, and a workload of 5 and of 2,000 adapters."""
    cells = {"a": speed_cell("ramole_k3", 1, 26.0), "b": speed_cell("peft_arrow", 8, 47.0)}
    machine = {"cpu": "imagined", "threads": 2, "dtype": "bfloat16", "quantization": "none"}
    rate = {"requests_per_second": {"median": 5.0, "min": 4.0, "max": 6.0}}
    many = {
        f"{kind}/n={n}": {"facts": {"adapters": n}, "summary": rate}
        for kind in ("cold", "real_time")
        for n in (5, 2000)
    }
    batched = {"what": "decode, batch=8", "measured": 26.8, "min": 26.6, "max": 27.1}
    return {
        "command": "python -m ramole_core benchmark --work made",
        "ratios": [
            {"what": "decode, ramole_k3 / base, batch=1", "measured": 0.71, "min": 0.7, "max": 0.8},
            batched,
        ],
        "parts": {
            "peers": {"machine": machine | {"versions": VERSIONS}, "cells": cells},
            "slora": {"machine": machine, "cells": many},
        },
    }


def speed_on(cpu: str, flag: str) -> dict[str, Any]:
    """Another CPU, beside llama.cpp alone."""
    cells = {
        f"{system}/{batch}": speed_cell(system, batch, alone + 10.0 * batch)
        for system, alone in (("ramole_k3_int4", 130.0), ("llama_cpp", 240.0))
        for batch in (1, 8, 32)
    }
    machine = {"cpu": cpu, "cores": 2, "flags": ["avx2", flag]}
    command = "python -m ramole_core benchmark --only llama_cpp"
    return {"command": command, "parts": {"llama_cpp": {"machine": machine, "cells": cells}}}


def budget() -> dict[str, Any]:
    spread = {"median": 0.25, "least": 0.125, "most": 0.5}
    told = {"listening_s": 3.2, "first_token_s": {"ramole": spread}, "resident_mib": 1234.5}
    return {"command": "python -m lab budget", "machine": "imagined"} | told


def many_users() -> dict[str, Any]:
    told = {"one_after_another_s": [30.0, 32.0, 31.0], "at_once_s": [15.0]}
    told |= {"users": 16, "cores": 2, "median_times_faster": 2.07}
    return {"command": "python -m lab many_users --repeats 2"} | told


def methods() -> dict[str, Any]:
    rate = {"mean": 31.4, "low": 30.0, "high": 33.0}
    each = {"1": rate, "8": {"mean": 180.0, "low": 170.0, "high": 181.0}}
    rows = {
        "ramole": {"unseen": True, "trained": 1_310_000, "tokens_a_second": each},
        f"mole{EVIL}": {"unseen": False, "trained": 0, "tokens_a_second": {"1": rate}},
    }
    told = {"machine": "x86_64, 2 threads", "methods": rows}
    return {"command": "python -m lab method_speed"} | told


def methods_dev(setting: str) -> dict[str, Any]:
    """The evaluation of all methods in one setting: three of them."""
    ends = {"task_low": -9.0, "task_high": 4.0}
    told = evaluation() | {"settings": {setting: SETTINGS[setting]}}
    told["methods"] = {name: METHODS[name] for name in ("ramole_plus", "ramole", "mixture")}
    cells = told["cells"]
    told["cells"] = {setting: {name: cells[setting][name] for name in told["methods"]}}
    gap = {"method": "ramole_plus", "rival": "ramole"} | span(-2.5, 1.0) | ends
    told["differences"] = {setting: [gap] if setting == "iid" else []}
    return told


def paired(ours: str, *systems: str) -> dict[str, Any]:
    """Systems on the same two tasks, `ours` last."""
    return {
        name: {
            "score": span(40.0 + n)
            | {f"{ours}_minus": span(len(systems) - n, 0.5), "by_task": {"a": 1.0, "b": 2.0}},
            "loss": span(1.25 + n, 0.125),
        }
        for n, name in enumerate([*systems, ours])
    }


def composite_n() -> dict[str, Any]:
    """Two questions in one prompt."""
    systems = {"meteora": {"score": span(31.0), "found": span(99.0)}, "mixture": {}}
    told = {"what": "2 questions of 2 tasks", "unit": "set", "units": 40, "systems": systems}
    return {"command": "python -m x.composite_n_table", "situations": {"composite-2": told}}


def ca_lora() -> dict[str, Any]:
    tables = {how: paired("ca_lora", "uncompressed", "inherited") for how in ("3bit", "nf4")}
    return {"command": "python -m x.ca_lora_table", "tables": tables}


def llava_mole() -> dict[str, Any]:
    told = paired("llava_mole", "one_lora", EVIL)
    return {"command": "python -m x.llava_mole_table", "tasks": ["a", "b"], "table": told}


def effects() -> dict[str, Any]:
    """One method on composed prompts, and with adapters switched off."""
    row = {"pairs": 3, "tokens": 40, "effect": span(80.0), "effect, changed": span(90.0)}
    row |= {"halves by effect": span(92.0), "contribution": span(60.0), "weight": span(0.0, 0.0)}
    off = {"largest": span(50.0), "middle": span(20.0), "smallest": span(10.0)}
    return {
        "command": "python -m x.effects",
        "composed": {"mixture": row},
        "deleted": {"mixture": {"tokens": 9, "another token comes": off}},
    }


def papers() -> dict[str, Any]:
    gap = {"mean": 4.2, "low": 1.0, "high": 7.6}
    first = {"method": "lego", "says": f"A merge is better {EVIL}", "paper": "51.8 and 49.8"}
    first |= {"ours": "k7:lego", "rival": "fusion", "situation": "iid", "claimed": "ahead"}
    second = first | {"says": "Half a rank is enough", "situation": "ood", "claimed": "level"}
    missing = second | {"says": "Nobody measured this", "method": f"mole{EVIL}"}
    rows = [first | gap | {"verdict": "same"}, second | gap | {"verdict": "other"}, missing]
    return {"command": "python -m lab papers", "level": 3.0, "claims": rows}


FILES = {
    "papers.json": papers,
    "effects.json": effects,
    "composite_n.json": composite_n,
    "ca_lora.json": ca_lora,
    "llava_mole.json": llava_mole,
    "lora_flow.json": lambda: {"table": paired("lora_flow", "adapter 1", EVIL)},
    "lora_hub.json": lambda: {"table": paired("lorahub", "in_context", EVIL)},
    "other_base.json": evaluation,
    "test2.json": evaluation,
    "methods_dev.json": partial(methods_dev, "iid"),
    "methods_ood_dev.json": partial(methods_dev, "ood"),
    "method_speed.json": methods,
    "retriever.json": retriever,
    "adapters_dev.json": adapters,
    "router_claim.json": router_claim,
    "ablations.json": pieces,
    "speed.json": speed,
    "speed_amx.json": partial(speed_on, "imagined as well", "amx_tile"),
    "speed_avx512.json": partial(speed_on, "imagined(R) Processor @ 2.80GHz", "avx512f"),
    "many_users.json": many_users,
    "budget.json": budget,
}


def write_results(folder: Path) -> Path:
    """Write every file, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in FILES.items():
        (folder / name).write_text(json.dumps(make()))
    return folder
