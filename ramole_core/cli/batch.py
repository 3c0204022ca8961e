"""`python -m ramole_core batch`: a file of prompts in, one JSON line an answer out.

A line is written as soon as its answer is there. However the command ends, `--resume` continues it:
rows that OUT has are not run again, a line that was cut off is.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from ramole_core.batch.prompt_file import read_batch, read_batch_file
from ramole_core.batch.record import AnswersFile, added_to, as_line, record_of, refusal_of
from ramole_core.batch.rows import BadRow, Batch
from ramole_core.cli.opening import Owner, facts_here, is_server, load, reached
from ramole_core.errors import RamoleError
from ramole_core.terminal.asked import asks
from ramole_core.terminal.console import progress_bar, say, write_json
from ramole_core.text_file import decode

if TYPE_CHECKING:
    from ramole_core.cli.server import Server
    from ramole_core.ramole import Ramole

Write = Callable[[dict[str, object]], None]
MAX_LISTED = 20
"""Bad rows that are listed on standard error; the output has all of them."""
PROGRESS_SECONDS = 10.0
"""Seconds between two lines of progress where there is no bar."""


@asks("history", "drop_turns", "examples")
def batch(
    file: Annotated[
        str, typer.Argument(help="Prompts: .jsonl, .csv or one a line; - is standard input.")
    ],
    asked: Mapping[str, object],
    out: Annotated[
        Path | None, typer.Option(help="Write the answers here, not to standard output.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Ask only the rows that OUT lacks.")
    ] = False,
    owner: Owner = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object.")] = False,
) -> None:
    """Answer a file of prompts together, one JSON line each as soon as it is there; can resume.

    Options that a request has too are for rows that lack them.
    """
    from ramole_core.batch.run import refuse_unfit

    if resume and out is None:
        raise RamoleError("--resume goes on with a file; name it with --out.")
    if out is not None and not resume and out.exists() and out.stat().st_size:
        raise RamoleError(f"{out} is there already; add --resume to go on, or name another file.")
    with reached(owner) as system:
        how = {"defaults": asked, "owner": owner}
        if file == "-":
            rows = read_batch(decode(sys.stdin.buffer.read(), "Standard input"), **how)
        else:
            rows = read_batch_file(Path(file), **how)
        if not is_server(system):
            rows = refuse_unfit(system, rows, owner=owner)
        answers: list[dict[str, object]] = []
        with ExitStack() as stack:
            write: Write = answers.append if as_json else _print_line
            written = AnswersFile()
            if out is not None:
                sink, written = stack.enter_context(added_to(out))
                write = partial(_write_line, sink)
            summary = _answer(system, rows, write, written)
        summary |= {"out": str(out)} if out is not None else {"answers": answers}
        if as_json:
            write_json(summary | {"seed": asked.get("seed")} | facts_here(system))
    if summary["refused"]:
        raise typer.Exit(2)


def _print_line(record: dict[str, object]) -> None:
    print(as_line(record), end="", flush=True)


def _write_line(sink: BinaryIO, record: dict[str, object]) -> None:
    sink.write(as_line(record).encode())
    sink.flush()


def _answer(
    system: "Ramole | Server", asked: Batch, write: Write, written: AnswersFile
) -> dict[str, object]:
    """Answer the rows without an answer and write each line; returns the run's numbers."""
    from ramole_core.batch.run import run_rows
    from ramole_core.cli.server_rows import ask_rows
    from ramole_core.request import Generation, Step

    rows = [row for row in asked.rows if (row.index, row.digest) not in written.answered]
    kept = len(asked.rows) - len(rows)
    if kept:
        say(f"{kept} of {len(asked.rows)} rows have their answer already.")
    if asked.unused:
        say(f"Carried along, not used: {', '.join(asked.unused)}.")
    _print_bad(asked.bad)
    for bad in asked.bad:
        if (bad.index, bad.sentence) not in written.refused:
            write(refusal_of(bad))
    if rows:
        load(system)
    local = not is_server(system)
    events = ask_rows(system, rows) if is_server(system) else run_rows(system, rows)
    done, refused, tokens, began = 0, 0, 0, time.perf_counter()
    try:
        with progress_bar("Answering", seconds=PROGRESS_SECONDS) as tell:
            for row, item in events:
                if isinstance(item, Step):
                    tokens += local  # a server's picture may hold several
                elif isinstance(item, Generation):
                    done += 1
                    tokens += 0 if local else item.new_tokens
                    write(record_of(row, item))
                else:
                    refused += 1
                    bad = BadRow(row.index, row.line, str(item), row.request.prompt[:80])
                    _print_bad([bad])
                    if (bad.index, bad.sentence) not in written.refused:
                        write(refusal_of(bad))
                ended, speed = done + refused, tokens / (time.perf_counter() - began)
                tell(f"{ended} of {len(rows)} rows, {speed:.1f} tokens/s", ended / len(rows))
    finally:
        seconds = time.perf_counter() - began
        left = len(rows) - done - refused
        say(
            f"{done} answers, {tokens} tokens in {seconds:.1f} s"
            + (f" ({tokens / seconds:.1f} tokens/s)" if tokens else "")
            + (f"; {left} rows are left, --resume asks them" if left else "")
            + (f"; {refused + len(asked.bad)} rows refused" if refused + len(asked.bad) else "")
            + "."
        )
    return {
        "rows": len(asked.rows) + len(asked.bad),
        "kept": kept,
        "answered": done,
        "refused": refused + len(asked.bad),
        "new_tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds if tokens else 0.0,
    }


def _print_bad(rows: Sequence[BadRow]) -> None:
    for row in rows[:MAX_LISTED]:
        say(f"Line {row.line}: {row.sentence}")
    if len(rows) > MAX_LISTED:
        say(f"... and {len(rows) - MAX_LISTED} more rows; the output says what is wrong with each.")
