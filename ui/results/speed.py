"""Speed: ratios within one run, tokens a second beside peers, many users, and costs."""

from dataclasses import replace
from pathlib import Path

from .files import blocks_of, made_of, read
from .tables import Block, Column, Made, Section, Table, tables
from .values import Raw, Span, at, items, number, range_of, span_of, text

DECODE, PREFILL = "decode_tokens_per_second", "prefill_tokens_per_second"
PARTS = {
    "decode": "Tokens a second while decoding",
    "peers": "Tokens a second beside PEFT's ways of many LoRAs",
    "llama_cpp": "Tokens a second beside llama.cpp's bare base, in 4 bits",
}
CPUS = ("speed.json", "speed_amx.json", "speed_avx512.json")
"""Files of the kinds of CPU; the first has all parts."""
ARRIVALS = {
    "closed": "all requests at once",
    "warm": "all requests at once, the adapters' files in the system's memory",
    "cold": "all requests at once, every adapter read from the disk",
    "real time": "as they arrive",
    "ours": "all at once, beside PEFT",
    "peft": "all at once by PEFT, in full batches",
    "one at a time": "as they arrive, with one parameter of arrivals at another value",
    "small warm": "as warm, adapters of rank 1 and 2",
    "small cold": "as cold, adapters of rank 1 and 2",
}
"""When requests come, by the first half of a cell's name."""
SERVED = {
    "requests_per_second": Column("requests/s"),
    "tokens_per_second": Column("tokens/s"),
    "latency_seconds": Column("mean latency, s"),
    "first_token_seconds": Column("first token, s"),
    "first_token_in_time_share": Column("first token within 6 s, share", 2),
    "distinct_adapters": Column("adapters used", 0),
}
USERS = {
    "one_after_another_s": Column("one after another, s"),
    "at_once_s": Column("at once, s"),
    "median_times_faster": Column("times faster"),
}
COSTS = {
    "listening_s": "the page listens after, s",
    "loaded_s": "the model is ready after, kernels compiled, s",
    "loaded_again_s": "the same the next time, s",
    "first_token_of_50_streamed_s": "first token of 50, by OpenAI's door, s",
    "retrieve_over_http_s": "/retrieve over HTTP, s",
    "retrieve_by_gradio_client_s": "the same by gradio_client, which looks every 50 ms, s",
    "resident_after_one_answer_mib": "memory after one answer, MiB",
    "resident_mib": "memory at the end, MiB",
    "endpoint_tokens_per_second": "all clients of the endpoint at once, tokens/s",
    "endpoint_by_engine": "that, by the engine alone with the same questions",
}


def ratios(raw: Raw) -> list[Table]:
    """Ratios of the engine, each within one run."""
    rows = {}
    for one in map(at, items(raw.get("ratios"))):
        span = {"mean": one.get("measured"), "low": one.get("min"), "high": one.get("max")}
        rows[text(one.get("what"))] = {"measured": span_of(span)}
    columns = {"measured": Column("measured", None)}
    return tables("Ratios within one run", "what", columns, {"": rows})


def throughput(raw: Raw, part: str) -> list[Table]:
    """Systems x batch sizes, and reading a prompt."""
    rows: dict[str, Raw] = {}
    for cell in map(at, at(raw, "parts", part, "cells").values()):
        facts, summary = at(cell, "facts"), at(cell, "summary")
        batch, key = number(facts.get("batch")), DECODE if DECODE in summary else PREFILL
        size = f"{batch or 0:g}" if key == DECODE else PREFILL
        rows.setdefault(text(facts.get("system")), {})[size] = summary.get(key)
    sizes = sorted({size for row in rows.values() for size in row} - {PREFILL}, key=float)
    columns = {size: Column(f"batch {size}", 0) for size in sizes}
    columns[PREFILL] = Column("reading a prompt", 0)
    return tables(PARTS[part], "system", columns, {"": rows})


def served(raw: Raw) -> list[Table]:
    """The same requests over more and more adapters (the workload of S-LoRA)."""
    groups: dict[str, Raw] = {}
    cells = at(raw, "parts", "slora", "cells") | at(raw, "parts", "arrivals", "cells")
    for name, cell in cells.items():
        kind, _, which = name.partition("/")
        if (adapters := number(at(cell, "facts").get("adapters"))) is not None:
            row = f"{adapters:,.0f}" + ("" if which.startswith("n=") else f", {which}")
            groups.setdefault(kind.replace("_", " "), {})[row] = at(cell, "summary")
    said = [f"{kind}: {words}" for kind, words in ARRIVALS.items() if kind in groups]
    note = "; ".join(said) and f"{'; '.join(said)}."
    caption = "More adapters, same speed? (the workload of S-LoRA)"
    return tables(caption, "adapters in the pool", SERVED, groups, note)


def users(raw: Raw) -> list[Table]:
    """Many people at once against one after another."""
    rows: dict[str, Raw] = {
        "people on the page, each in a browser of the same machine": raw,
        "the same, until the effects of each answer are measured": at(raw, "with_effects"),
        "clients of the endpoint": at(raw, "by_clients_of_the_endpoint"),
    }
    rows = {who: told for who, told in rows.items() if told}
    for who, told in rows.items():
        times = {key: range_of(told.get(key)) for key in ("one_after_another_s", "at_once_s")}
        rows[who] = {**told, **times}
    return tables(f"{text(raw.get('users')) or 'Many'} users at once", "who", USERS, {"": rows})


def costs(raw: Raw) -> list[Table]:
    """What the running page costs."""
    first = at(raw, "first_token_s")
    rows = {f"first token, {method}, s": {"is": first[method]} for method in first}
    rows |= {words: {"is": raw.get(key)} for key, words in COSTS.items()}
    columns = {"is": Column("measured", None)}
    return tables("What the running page costs", "what", columns, {"": rows})


def machines_of(raw: Raw) -> dict[str, list[str]]:
    """Which parts were measured on which machine, in words; a part may be newer than the rest."""
    found: dict[str, list[str]] = {}
    for part in at(raw, "parts"):
        one = at(raw, "parts", part, "machine")
        said = {key: text(one.get(key)) for key in ("card", "cpu", "threads", "dtype")}
        where = ", ".join(f"{key} {words}" for key, words in said.items() if words)
        found.setdefault(where, []).append(part)
    return found


def rates(folder: Path) -> str:
    """The mixture beside llama.cpp's bare base on each kind of CPU, in a sentence; empty where that
    is not measured."""
    found = {said: raw for name in CPUS if (said := _beside(raw := read(folder, name)))}
    if not found:
        return ""
    cores = " or ".join(dict.fromkeys(_cpu(raw)[0] for raw in found.values()))
    return (
        f"Tokens a second on {cores} cores, three adapters mixed (int4), alone and 32 at once "
        f"(llama.cpp's bare base): {'; '.join(found)}."
    )


def _beside(raw: Raw) -> str:
    rows = {
        name: [f"{cell.mean:,.0f}" for cell in row if isinstance(cell, Span)]
        for table in throughput(raw, "llama_cpp")
        for name, row in table.rows.items()
    }
    ours, theirs = rows.get("ramole_k3_int4", []), rows.get("llama_cpp", [])
    if min(len(ours), len(theirs)) < 3:
        return ""
    return f"{_cpu(raw)[1]} {ours[0]} and {ours[2]} ({theirs[0]} and {theirs[2]})"


def _cpu(raw: Raw) -> tuple[str, str]:
    """How many cores, and of which CPU."""
    machine = at(raw, "parts", "llama_cpp", "machine")
    cpu = text(machine.get("cpu")).replace("(R)", "").partition(" @")[0].removesuffix(" Processor")
    flags = {text(one) for one in items(machine.get("flags"))}
    kind = ""
    if "amx_tile" in flags:
        kind = " with AMX"
    elif flags and "avx512_bf16" not in flags:
        kind = " without bfloat16"
    return text(machine.get("cores")), f"{cpu or 'a CPU'}{kind}"


def blocks(folder: Path) -> list[Block]:
    """The engine's speed, and many users."""
    found = blocks_of(folder, CPUS[0], _speed, _made)
    others = [block for name in CPUS[1:] for block in blocks_of(folder, name, _on_another)]
    return [*found, *others, *blocks_of(folder, "many_users.json", users)]


def _made(raw: Raw, name: str) -> Made:
    """How the parts were made, each with its machine."""
    one = next((at(part, "machine") for part in at(raw, "parts").values()), {})
    where = {f"parts {', '.join(parts)}": told for told, parts in machines_of(raw).items()}
    return made_of({**one, "command": raw.get("command")}, name, where)


def _on_another(raw: Raw) -> list[Table]:
    """What is measured on another CPU too."""
    found = throughput(raw, "llama_cpp")
    where = "on {} cores of {}".format(*_cpu(raw))
    return [replace(one, caption=f"{one.caption}, {where}") for one in found]


def costs_blocks(folder: Path) -> list[Block]:
    """What the running page costs."""
    return blocks_of(folder, "budget.json", costs)


def _speed(raw: Raw) -> list[Table]:
    parts = [one for part in PARTS for one in throughput(raw, part)]
    found = ratios(raw)
    return [*found, *parts, *served(raw)] if found else []


SPEED = Section(
    "speed",
    "How fast is it?",
    "Every ratio is taken within one run of one machine, so that both sides had the same minute; "
    "brackets hold the smallest and the largest repetition.",
    lambda folder: [*blocks(folder), *costs_blocks(folder)],
)
