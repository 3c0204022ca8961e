"""Tables of what each part is worth: sample adapters, pieces of `ramole_plus`, the router.

Drawn from results/adapters_dev.json, ablations.json, router_ablations.json and router_dev.json.
"""

import json
from pathlib import Path

GROUPS = {
    "iid": "IID",
    "ood": "OOD",
    "crowded": "crowded",
    "dropout": "adapters left out while training",
    "rank": "rank of the router",
    "share": "share of the tasks it is trained on",
    "k": "how many adapters are mixed",
}
GATES = {
    "trained": "the trained gate",
    "uniform": "equal weights",
    "random": "a random gate",
}
POOLS = {"own": "own adapter and 2 others", "others": "3 others"}

Measure = dict[str, float]


def adapters(results: Path) -> str:
    """Each sample adapter on dev rows of its own task, beside the base and cheap guesses."""
    entries = _read(results, "adapters_dev.json")["adapters"]
    rows = [
        "| adapter | metric | rows | base | chance | commonest answer | with it | gain over base |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in entries.items():
        scores = entry["scores"]
        means = [
            f"{scores[rival]['mean']:.1f}" if rival in scores else ""
            for rival in ("base", "chance", "commonest", "adapter")
        ]
        gain = _span(scores["gain_over"]["base"], digits=1, signed=True)
        rows.append(
            f"| `{name}` | {entry['metric']} | {entry['rows']} | {' | '.join(means)} | {gain} |"
        )
    asked = {entry["command"].removesuffix(f" {name}") for name, entry in entries.items()}
    commands = "\n".join(f"{command} ADAPTER" for command in sorted(asked))
    return "\n".join([*rows, "", f"```bash\n{commands}\n```"])


def pieces(results: Path) -> str:
    """What each piece of `ramole_plus` is worth, beside the methods that it has to beat."""
    return _ablations(_read(results, "ablations.json"), digits=1)


def router(results: Path) -> str:
    """What in the router's training matters."""
    return _ablations(_read(results, "router_ablations.json"), digits=3)


def gates(results: Path) -> str:
    """The trained gate beside untrained ones, on adapters that it has never seen."""
    raw = _read(results, "router_dev.json")
    rows = [
        f"Loss in nats a token, lower is better; {len(raw['unseen'])} adapters that the router was "
        f"not trained on, {sum(raw['rows'].values())} dev rows, k = {raw['k']}, beside random "
        "neighbours (as served they are the nearest ones). Intervals in the table are over rows; "
        "the verdicts go by tasks.",
        "",
        f"| mixed | {' | '.join(GATES.values())} | trained - equal | trained - random |",
        "|---" * (3 + len(GATES)) + "|",
    ]
    for pool, words in POOLS.items():
        losses = [_span(raw[pool]["loss"][gate], digits=3) for gate in GATES]
        gaps = [
            _span(raw[pool]["trained_minus"][rival], digits=3, signed=True)
            for rival in ("uniform", "random")
        ]
        rows.append(f"| {words} | {' | '.join([*losses, *gaps])} |")
    verdicts = [f"- {words}: {raw[pool]['verdict']}" for pool, words in POOLS.items()]
    return "\n".join([*rows, "", *verdicts, "", f"```bash\n{raw['command']}\n```"])


def _ablations(raw: dict, *, digits: int) -> str:
    rows = [
        f"{raw['measure'][0].upper()}{raw['measure'][1:]}; {raw['rows_measured']} rows.",
        "",
        "| group | variant | measured | against | difference |",
        "|---|---|---|---|---|",
    ]
    for one in raw["rows"]:
        against = one.get("against")
        rival = against["rival"] if against else ""
        gap = _span(against, digits=digits, signed=True) if against else ""
        group = GROUPS.get(one["group"], one["group"])
        rows.append(f"| {group} | {one['name']} | {_span(one, digits=digits)} | {rival} | {gap} |")
    return "\n".join([*rows, "", f"```bash\n{raw['command']}\n```"])


def _span(measure: Measure, *, digits: int, signed: bool = False) -> str:
    sign = "+" if signed else ""
    mean, low, high = (f"{measure[name]:{sign}.{digits}f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _read(results: Path, name: str) -> dict:
    return json.loads((results / name).read_text(encoding="utf-8"))
