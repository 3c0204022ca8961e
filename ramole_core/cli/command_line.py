"""The command line: each command opens the front door, asks once, and prints a table or JSON.

Nothing heavy is imported before a command runs, so `--help` answers at once. An error that the user
can put right is one line on standard error and exit status 2.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ramole_core.batch.command import batch
from ramole_core.benchmarks.command import benchmark
from ramole_core.errors import RamoleError
from ramole_core.evaluation.command import evaluate
from ramole_core.terminal.console import (
    progress_bar,
    read_examples,
    read_prompt,
    say,
    write_answer,
    write_json,
    write_table,
)
from ramole_core.terminal.records import answer_record, checksum_record
from ramole_core.training.command import train_app

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole

PROGRAM = "python -m ramole_core"

app = typer.Typer(
    name="ramole",
    help="A pool of LoRA adapters as one model: found per prompt, mixed per token.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(train_app, name="train")
app.command("batch")(batch)
app.command("benchmark")(benchmark)
app.command("evaluate")(evaluate)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Owner = Annotated[str | None, typer.Option(help="Whose uploads count beside the shared ones.")]
Exclude = Annotated[
    list[str] | None, typer.Option(help="An adapter that must not be found; repeat for more.")
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for what a user can correct, 130 on Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal without UTF-8 must not end an answer
            stream.reconfigure(errors="replace")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it misses a package we do not want
    command = typer.main.get_command(app)
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = int(command.main(words, PROGRAM, standalone_mode=False) or 0)
        if status == 130:
            say("Stopped.")
        return status
    except typer.TyperException as error:
        if problem := error.format_message():  # empty where the help itself was printed
            context = getattr(error, "ctx", None)
            say(f"{problem} See {context.command_path if context else PROGRAM} --help.")
    except (RamoleError, typer.Abort) as error:
        say(str(error) or "Standard input ended too early.")
    except OSError as error:
        say(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
    return 2


@contextmanager
def opened(*, load: bool = False) -> Iterator["Ramole"]:
    """The front door, closed at the end; with `load` the base model too, its progress shown."""
    from ramole_core.ramole import Ramole

    with Ramole() as ramole:
        if load:
            with progress_bar("Getting ready") as tell:
                ramole.load(tell)
        yield ramole


@app.command("doctor")
def doctor(as_json: Json = False) -> None:
    """Check settings, versions, model, pool, index and router; exit 2 where something is broken."""
    from ramole_core.cli.doctor import examine, show

    with progress_bar("Checking") as tell:
        report = examine(tell)
    if as_json:
        write_json(report.as_json())
    else:
        show(report)
    if not report.healthy:
        raise typer.Exit(2)


@app.command("list")
def list_adapters(owner: Owner = None, as_json: Json = False) -> None:
    """The adapters of the pool."""
    with opened() as ramole:
        cards = ramole.pool.cards(owner)
        if as_json:
            records = [card.as_dict() for card in cards]
            write_json({"adapters": records, **checksum_record(ramole)})
            return
    write_table(
        ("name", "owner", "rank", "scale", "modules", "description"),
        [
            (c.name, c.owner or "", c.rank, f"{c.scale:g}", ",".join(c.modules), c.description)
            for c in cards
        ],
    )


@app.command("add")
def add(
    source: Annotated[
        list[str], typer.Argument(help="A folder, a .zip, the two files, or hf:owner/name.")
    ],
    name: Annotated[str | None, typer.Option(help="Its name in the pool.")] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Example inputs: a .txt or .jsonl file, one a line.")
    ] = None,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Check an adapter and add it to the pool, or say why not."""
    with opened() as ramole:
        path = source[0] if len(source) == 1 else source
        texts = read_examples(examples) if examples else None
        with progress_bar("Adding") as tell:
            tell(str(source[0]), 0.1)
            card = ramole.pool.add(path, name=name, examples=texts, owner=owner)
        near = ramole.neighbours(card.name, k=3, owner=owner)
        if as_json:
            write_json(
                {
                    "adapter": card.as_dict(),
                    "adapters": [hit.name for hit in near],
                    "similarities": [hit.score for hit in near],
                    **checksum_record(ramole),
                }
            )
            return
    print(f"Added {card.name}: rank {card.rank}, {', '.join(card.modules)}, scale {card.scale:g}.")
    for note in card.notes:
        print(f"Note: {note}")
    if near:
        print("Nearest: " + ", ".join(f"{hit.name} {hit.score:.2f}" for hit in near))


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="An adapter that was added.")],
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Take an added adapter out of the pool; the sample pool is read-only."""
    with opened() as ramole:
        ramole.pool.remove(name, owner=owner)
        if as_json:
            write_json({"removed": name, **checksum_record(ramole)})
            return
    print(f"Removed {name}.")


@app.command("retrieve")
def retrieve(
    prompt: Annotated[str, typer.Argument(help="The text; - reads standard input.")],
    k: Annotated[int, typer.Option("--k", "-k", help="How many adapters.")] = 3,
    exclude: Exclude = None,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """The adapters whose examples are nearest to a text."""
    with opened() as ramole:
        text = read_prompt(prompt)
        hits = ramole.retrieve(text, k=k, exclude=exclude or (), owner=owner)
        if as_json:
            write_json(
                {
                    "prompt": text,
                    "adapters": [hit.name for hit in hits],
                    "similarities": [hit.score for hit in hits],
                    **checksum_record(ramole),
                }
            )
            return
    write_table(("adapter", "similarity"), [(hit.name, f"{hit.score:.3f}") for hit in hits])


@app.command("generate")
def generate(
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads standard input.")],
    method: Annotated[str, typer.Option(help="How the adapters are mixed.")] = "ramole",
    k: Annotated[int, typer.Option("--k", "-k", help="How many adapters to retrieve.")] = 3,
    adapter: Annotated[
        list[str] | None, typer.Option(help="Use exactly this one, no retrieval; repeat for more.")
    ] = None,
    weight: Annotated[
        list[float] | None, typer.Option(help="Its weight, in the same order; replaces the gate.")
    ] = None,
    exclude: Exclude = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of the answer at most.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample from this much of the probability.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampling.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End before this text; repeat for more.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    raw: Annotated[bool, typer.Option(help="Continue the prompt, no chat template.")] = False,
    trace: Annotated[Path | None, typer.Option(help="Write the weights: .npz or .json.")] = None,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Answer one prompt; the text comes as it is made, the adapters used on standard error."""
    from ramole_core.engine.request import Request
    from ramole_core.trace_file import write_trace

    if trace is not None and trace.suffix not in (".npz", ".json"):
        raise RamoleError(f"--trace {trace} ends in neither .npz nor .json; rename it.")
    request = Request(
        read_prompt(prompt),
        method=method,
        k=k,
        adapters=tuple(adapter) if adapter else None,
        weights=tuple(weight) if weight else None,
        exclude=tuple(exclude or ()),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        stop=tuple(stop or ()),
        system=system,
        raw=raw,
        trace=trace is not None,
        owner=owner,
    )
    with opened(load=True) as ramole:
        answer = write_answer(ramole.stream(request), quiet=as_json)
        if trace is not None:
            write_trace(answer, trace)
        if as_json:
            write_json(answer_record(request, answer, trace) | checksum_record(ramole))
