"""Pictures of a record of speeds: SVG files, drawn from the JSON alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.benchmarks.ratios import DECODE, PREFILL

BARS = ("#4c78a8", "#f58518", "#54a24b")
NAMES = {
    "transformers_generate": "generate, base",
    "base": "base",
    "selection": "selection",
    "mixture_k3": "mixture k=3",
    "ramole_k1": "RAMoLE k=1",
    "ramole_k3": "RAMoLE k=3",
    "ramole_k8": "RAMoLE k=8",
    "ramole_k3_trace": "RAMoLE k=3, traced",
    "peft_one_each": "PEFT, one each",
    "peft_switching": "PEFT, switching",
    "peft_arrow": "PEFT Arrow, 3",
    "peft_xlora": "PEFT X-LoRA, 3",
}


def draw_plots(parts: Mapping[str, Mapping], folder: Path) -> list[Path]:
    """One picture for each part that is there; the same JSON gives the same bytes."""
    matplotlib.rcParams["svg.hashsalt"] = "ramole"
    matplotlib.rcParams["svg.fonttype"] = "none"
    drawn = []
    for name, part in parts.items():
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        if name in ("decode", "peers"):
            _draw_batches(figure, part["cells"], DECODE, "tokens a second, decoding")
        elif name == "prefill":
            _draw_batches(figure, part["cells"], PREFILL, "tokens a second, reading prompts")
        elif name == "sweeps":
            _draw_sweeps(figure, part["cells"])
        elif name == "slora":
            _draw_serving(figure, part["cells"])
        else:
            continue
        machine = part["machine"]
        where = machine["card"] or f"{machine['cpu']}, {machine['threads']} threads"
        figure.suptitle(f"{name}: {where}, {machine['dtype']}", fontsize=10)
        file = folder / f"speed_{name}.svg"
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, metadata={"Date": None, "Creator": None})
        drawn.append(file)
    return drawn


def _draw_batches(figure: Figure, cells: Mapping, quantity: str, label: str) -> None:
    """Systems side by side, a panel for each batch size, least to greatest as the JSON has them."""
    sizes = sorted({cell["facts"]["batch"] for cell in cells.values()})
    for axes, rows in zip(_panels(figure, len(sizes)), sizes, strict=True):
        here = [
            (cell["facts"]["system"], cell["summary"][quantity])
            for cell in cells.values()
            if cell["facts"]["batch"] == rows and quantity in cell["summary"]
        ]
        _bars(axes, [NAMES[system] for system, _ in here], [s for _, s in here])
        axes.set_title(f"batch {rows}", fontsize=10)
        axes.set_xlabel(label, fontsize=9)


def _draw_sweeps(figure: Figure, cells: Mapping) -> None:
    """Decoding speed over k, r and p, each with its spread."""
    words = {"k": "adapters mixed, k", "r": "rank, r (k=3)", "p": "adapters in the batch, p"}
    for axes, over in zip(_panels(figure, len(words)), words, strict=True):
        points = sorted(
            (cell["facts"][over], cell["summary"][DECODE])
            for name, cell in cells.items()
            if f"/{over}=" in name
        )
        _line(axes, [x for x, _ in points], [s for _, s in points])
        axes.set_xlabel(words[over] + ("; 0 is the base" if over != "r" else ""), fontsize=9)
        axes.set_ylabel("tokens a second", fontsize=9)


def _draw_serving(figure: Figure, cells: Mapping) -> None:
    """Requests a second, and the first token's time, over the number of adapters."""
    panels = (
        ("closed", "requests_per_second", "requests a second, as fast as possible"),
        ("real_time", "first_token_seconds", "mean seconds to the first token, real time"),
    )
    for axes, (kind, quantity, label) in zip(_panels(figure, 2), panels, strict=True):
        points = sorted(
            (cell["facts"]["adapters"], cell["summary"][quantity])
            for name, cell in cells.items()
            if name.startswith(kind)
        )
        _line(axes, [x for x, _ in points], [s for _, s in points])
        axes.set_xscale("log")
        axes.set_xlabel("adapters", fontsize=9)
        axes.set_ylabel(label, fontsize=9)


def _panels(figure: Figure, count: int) -> Sequence[Axes]:
    return [figure.add_subplot(1, count, number + 1) for number in range(count)]


def _bars(axes: Axes, labels: Sequence[str], summaries: Sequence[Mapping[str, float]]) -> None:
    places = range(len(labels))
    axes.barh(
        places,
        [s["median"] for s in summaries],
        xerr=_spread(summaries),
        color=[BARS["PEFT" in label or "generate" in label] for label in labels],
        ecolor="#444444",
    )
    axes.set_yticks(places, labels, fontsize=8)
    axes.invert_yaxis()
    for place, summary in zip(places, summaries, strict=True):
        text = f" {summary['median']:.3g}"
        axes.text(summary["max"], place, text, va="center", fontsize=8)
    axes.margins(x=0.2)


def _line(axes: Axes, x: Sequence[int], summaries: Sequence[Mapping[str, float]]) -> None:
    y = [s["median"] for s in summaries]
    axes.errorbar(x, y, yerr=_spread(summaries), marker="o", color=BARS[0], capsize=3)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)


def _spread(summaries: Sequence[Mapping[str, float]]) -> list[list[float]]:
    below = [s["median"] - s["min"] for s in summaries]
    above = [s["max"] - s["median"] for s in summaries]
    return [below, above]
