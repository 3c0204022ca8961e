"""Tables of how fast it is and what it costs: speed.json, many_users.json and budget.json."""

import json
from pathlib import Path

from ui.results.speed import machines_of


def speed(results: Path) -> str:
    """The engine's aims beside what was measured, and where."""
    run, many = _read(results, "speed.json"), _read(results, "many_users.json")
    usual, *others = machines_of(run).items()
    newer = "".join(
        f"{' and '.join(parts)}, measured later, on {where}; " for where, parts in others
    )
    rows = [
        f"{usual[0]}; {newer}quotients within one run, median of the repetitions with smallest and "
        "largest.",
        "",
        "| what | measured | smallest to largest | aim | reached |",
        "|---|---|---|---|---|",
    ]
    for aim in run["aims"]:
        reached = "yes" if aim["reached"] else "**no**"
        spread = f"{aim['min']} to {aim['max']}"
        rows.append(f"| {aim['what']} | {aim['measured']} | {spread} | {aim['aim']} | {reached} |")
    clients = many["by_clients_of_the_endpoint"]["median_times_faster"]
    visitors = (
        f"{many['users']} people at once on the page ({many['quantization']}, {many['cores']} "
        f"cores) wait {many['median_times_faster']} times less than one after another where their "
        f"browser draws on the same cores (aim: 4, not reached), and clients of the endpoint "
        f"{clients} times less."
    )
    commands = f"```bash\n{run['command']}\n{many['command']}\n```"
    return "\n".join([*rows, "", *_beside_llama(run["parts"]), visitors, "", commands])


def sentence(results: Path) -> str:
    """How fast it is, for README."""
    part = _read(results, "speed.json")["parts"]["llama_cpp"]

    def rates(system: str) -> list[str]:
        sizes = list(part["setup"]["llama_tokens"])
        cells = [part["cells"][f"{system}/batch={rows}"]["summary"] for rows in sizes]
        return [f"{one['decode_tokens_per_second']['median']:.0f}" for one in cells]

    (alone, _, many), (one, _, all_of_them) = rates("ramole_k3"), rates("llama_cpp")
    machine = part["machine"]
    return (
        f"On {machine['threads']} cores `ramole` (k = 3, NF4) makes {alone} tokens a second alone, "
        f"{many} for 32; llama.cpp, bare, {one}, {all_of_them} "
        "(`python -m ramole_core benchmark --peers`)."
    )


SYSTEMS = {
    "llama_cpp": "llama.cpp, bare base",
    "base": "bare base, NF4",
    "base_int8": "bare base, NF4, head int8",
    "base_int4": "bare base, int4",
    "base_int4_int8": "bare base, int4, head int8",
    "ramole_k3": "`ramole` k = 3, NF4",
    "ramole_k3_int8": "`ramole` k = 3, NF4, head int8",
    "ramole_k3_int4": "`ramole` k = 3, int4",
    "ramole_k3_int4_int8": "`ramole` k = 3, int4, head int8",
}


def _beside_llama(parts: dict) -> list[str]:
    """Tokens a second of each system, where the part was measured."""
    if "llama_cpp" not in parts:
        return []
    part = parts["llama_cpp"]
    sizes = list(part["setup"]["llama_tokens"])
    columns = [(f"batch={rows}", "decode_tokens_per_second") for rows in sizes]
    columns.append(("prompt", "prefill_tokens_per_second"))
    heads = [f"{rows} at once" if int(rows) > 1 else "alone" for rows in sizes]
    heads.append(f"reading {part['setup']['llama_prompt']} tokens")
    version = part["setup"]["llama_cpp_python"]
    found = [
        f"Tokens a second beside llama.cpp (llama-cpp-python {version}, built on this machine, the "
        f"GGUF that the base comes from, {part['machine']['threads']} threads), median of "
        f"{part['setup']['llama_repetitions']} repetitions in turn, smallest to largest:",
        "",
        f"| system | {' | '.join(heads)} |",
        "|---" * (len(heads) + 1) + "|",
    ]
    measured = {cell.partition("/")[0] for cell in part["cells"]}
    for system, name in ((one, told) for one, told in SYSTEMS.items() if one in measured):
        cells = [part["cells"][f"{system}/{at}"]["summary"][what] for at, what in columns]
        rates = [f"{c['median']:.0f} ({c['min']:.0f} to {c['max']:.0f})" for c in cells]
        found.append(f"| {name} | {' | '.join(rates)} |")
    return [*found, ""]


def budget(results: Path) -> str:
    """What the running page costs: start, first token, retrieval, memory."""
    run = _read(results, "budget.json")
    rows = [f"{run['machine']}.", "", "| what | measured |", "|---|---|"]
    rows.append(f"| the page listens after | {run['listening_s']:.1f} s |")
    rows.append(
        f"| the model is ready after | {run['loaded_s']:.1f} s, kernels compiled; "
        f"{run['loaded_again_s']:.1f} s the next time |"
    )
    for method, spread in run["first_token_s"].items():
        rows.append(f"| first token, `{method}` | {_spread(spread)} s |")
    fifty = _spread(run["first_token_of_50_streamed_s"])
    rows.append(f"| first token, `ramole_plus`, 50 tokens, by OpenAI's door | {fifty} s |")
    rows.append(f"| `/retrieve` over HTTP | {_spread(run['retrieve_over_http_s'])} s |")
    if "retrieve_by_gradio_client_s" in run:
        spread = _spread(run["retrieve_by_gradio_client_s"])
        rows.append(f"| that by `gradio_client`, which looks every 50 ms | {spread} s |")
    one = run["resident_after_one_answer_mib"]
    rows.append(f"| memory after one answer | {one:.0f} MiB |")
    rows.append(f"| memory at the end | {run['resident_mib']:.0f} MiB |")
    rate = run["endpoint_tokens_per_second"]["median"]
    rows.append(f"| {run['clients']} clients of the endpoint at once | {rate:.0f} tokens/s |")
    share = _spread(run["endpoint_by_engine"])
    rows.append(f"| that, by the engine alone with the same questions | {share} |")
    return "\n".join([*rows, "", f"```bash\n{run['command']}\n```"])


def _spread(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['least']:.2f} to {spread['most']:.2f})"


def _read(results: Path, name: str) -> dict:
    return json.loads((results / name).read_text(encoding="utf-8"))
