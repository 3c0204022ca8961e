"""`python -m ramole_core benchmark`: measure, and print the ratios."""

import json
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from lab import harness
from ramole_core.errors import RamoleError
from ramole_core.settings import load_settings
from ramole_core.terminal.console import progress_bar, write_table

OUT = harness.RESULTS / "speed.json"
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def benchmark(
    only: Annotated[
        str,
        typer.Option(
            help="Parts: slora,arrivals,decode,prefill,peers,requests,together,retrieval."
        ),
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
    threads: harness.Threads = 0,
    quantization: Annotated[
        Literal["none", "nf4", "int4"], typer.Option(help="How the base is held, for all systems.")
    ] = "none",
    dtype: Annotated[Dtype, typer.Option(help="Compute dtype, for all systems.")] = "auto",
    show: Annotated[
        bool, typer.Option("--show", help="Ratios of the JSON that is there; measure nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure speed against peers and under thousands of adapters, and print the ratios."""
    from lab.benchmarks.ratios import measure_ratios
    from lab.benchmarks.record import read_parts

    out = out or (OUT.with_name("speed_quick.json") if quick else OUT)
    if not show:
        from lab.benchmarks.llama_cpp import find_llama
        from lab.benchmarks.run import choose_parts, run_benchmark
        from lab.benchmarks.sizes import FULL, QUICK

        parts = choose_parts(harness.words(only))
        if peers:
            find_llama()
            parts.append("llama_cpp")
        settings = load_settings(quantization=quantization, dtype=dtype, draft_rows=0)
        with _work_folder(work, settings.data_dir) as folder, progress_bar("benchmark") as tell:
            run_benchmark(
                settings,
                out=out,
                work=folder,
                sizes=QUICK if quick else FULL,
                only=parts,
                command=shlex.join(["python", "-m", "ramole_core", *sys.argv[1:]]),
                anew=anew,
                tell=tell,
            )
    parts = read_parts(out)
    if not parts:
        raise RamoleError(f"There is no record of speeds in {out}; run the benchmark first.")
    rows = measure_ratios(parts)
    if as_json:
        print(json.dumps({"out": str(out), "ratios": rows, "parts": parts}, indent=1))
        return
    told = [(row["what"], row["measured"], f"{row['min']} to {row['max']}") for row in rows]
    write_table(("what", "measured", "spread"), told)


@contextmanager
def _work_folder(work: Path | None, data_dir: Path) -> Iterator[Path]:
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
        yield work
        return
    data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=data_dir) as made:
        yield Path(made)
