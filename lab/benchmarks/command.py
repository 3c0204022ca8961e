"""`python -m ramole_core benchmark`: measure, print the ratios, and draw."""

import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from lab import harness
from ramole_core.errors import RamoleError
from ramole_core.settings import load_settings

OUT = harness.RESULTS / "speed.json"
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def benchmark(
    only: Annotated[
        str,
        typer.Option(help="Parts: slora,decode,prefill,peers,requests,sweeps,together,retrieval."),
    ] = "",
    peers: Annotated[
        bool,
        typer.Option("--peers", help="llama.cpp too (pip install llama-cpp-python), in 4 bits."),
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A try: tiny sizes, once.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="The JSON file; where it is, the run goes on with it.")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Keep the made adapters here (12 GB); else they are removed."),
    ] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Measure again what is there.")] = False,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; torch's choice if unset.")
    ] = None,
    quantization: Annotated[
        Literal["none", "nf4", "int4"], typer.Option(help="How the base is held, for all systems.")
    ] = "none",
    dtype: Annotated[Dtype, typer.Option(help="Compute dtype, for all systems.")] = "auto",
    plots: Annotated[
        bool, typer.Option("--plots", help="Draw the JSON that is there; measure nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure speed against peers and under thousands of adapters, and print the ratios."""
    from lab.benchmarks.ratios import make_table, measure_ratios
    from lab.benchmarks.record import read_parts

    out = out or (OUT.with_name("speed_quick.json") if quick else OUT)
    if not plots:
        _measure(only, peers, quick, out, work, anew, threads, quantization, dtype)
    parts = read_parts(out)
    if not parts:
        raise RamoleError(f"There is no record of speeds in {out}; run the benchmark first.")
    if plots or not quick:
        from lab.benchmarks.plots import draw_plots

        for file in draw_plots(parts, out.parent):
            print(f"Drawn: {file}", file=sys.stderr)
    rows = measure_ratios(parts)
    if as_json:
        print(json.dumps({"out": str(out), "ratios": rows, "parts": parts}, indent=1))
        return
    from rich.console import Console

    Console().print(make_table(rows))


def _measure(
    only: str,
    peers: bool,
    quick: bool,
    out: Path,
    work: Path | None,
    anew: bool,
    threads: int | None,
    quantization: str,
    dtype: str,
) -> None:
    import torch

    from lab.benchmarks.llama_cpp import find_llama
    from lab.benchmarks.run import OPTIONAL, choose_parts, run_benchmark
    from lab.benchmarks.sizes import FULL, QUICK

    parts = choose_parts([name.strip() for name in only.split(",") if name.strip()])
    if peers:
        find_llama()
        parts += OPTIONAL
    if threads is not None:
        torch.set_num_threads(threads)
    settings = load_settings(quantization=quantization, dtype=dtype, draft_rows=0)
    command = shlex.join(["python", "-m", "ramole_core", *sys.argv[1:]])
    with _work_folder(work, settings.data_dir) as folder, _progress() as tell:
        run_benchmark(
            settings,
            out=out,
            work=folder,
            sizes=QUICK if quick else FULL,
            only=parts,
            command=command,
            anew=anew,
            tell=tell,
        )


@contextmanager
def _work_folder(work: Path | None, data_dir: Path) -> Iterator[Path]:
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
        yield work
        return
    data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=data_dir) as made:
        yield Path(made)


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """A bar on standard error, or a line for each new stage where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("benchmark", total=1.0)
        told = [""]

        def tell(stage: str, fraction: float) -> None:
            bar.update(task, description=stage, completed=fraction)
            if not console.is_terminal and stage != told[0]:
                print(stage, file=sys.stderr, flush=True)
            told[0] = stage

        yield tell
