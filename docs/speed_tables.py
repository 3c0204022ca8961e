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
    return "\n".join([*rows, "", visitors, "", commands])


def budget(results: Path) -> str:
    """What the running page costs: start, first token, retrieval, memory."""
    run = _read(results, "budget.json")
    rows = [f"{run['machine']}.", "", "| what | measured |", "|---|---|"]
    rows.append(f"| the page listens after | {run['listening_s']:.1f} s |")
    rows.append(f"| the model is ready after | {run['loaded_s']:.1f} s |")
    for method, spread in run["first_token_s"].items():
        rows.append(f"| first token, `{method}` | {_spread(spread)} s |")
    rows.append(f"| `/retrieve` over HTTP | {_spread(run['retrieve_over_http_s'])} s |")
    rows.append(f"| memory of the process | {run['resident_mib']:.0f} MiB |")
    return "\n".join([*rows, "", f"```bash\n{run['command']}\n```"])


def _spread(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['least']:.2f} to {spread['most']:.2f})"


def _read(results: Path, name: str) -> dict:
    return json.loads((results / name).read_text(encoding="utf-8"))
