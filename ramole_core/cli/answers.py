"""The commands on one prompt: `retrieve` finds its adapters, `generate` answers it."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ramole_core.cli.opening import (
    Exclude,
    Json,
    Owner,
    facts_here,
    is_server,
    load,
    reached,
)
from ramole_core.errors import RamoleError
from ramole_core.terminal.asked import asks
from ramole_core.terminal.console import (
    print_fitting,
    read_prompt,
    say,
    write_answer,
    write_json,
    write_table,
)
from ramole_core.terminal.records import answer_record


def retrieve(
    prompt: Annotated[str, typer.Argument(help="The text; - reads standard input.")],
    k: Annotated[int, typer.Option("--k", "-k", help="How many adapters.")] = 3,
    exclude: Exclude = None,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """The adapters whose examples are nearest to a text."""
    with reached(owner) as system:
        text = read_prompt(prompt)
        hits = system.retrieve(text, k=k, exclude=exclude or (), owner=owner)
        near = () if is_server(system) else system.hub.near(text, k, exclude or ())
        if as_json:
            listed = [{"name": one.name, "similarity": score} for one, score in near]
            write_json(
                {
                    "prompt": text,
                    "adapters": [hit.name for hit in hits],
                    "similarities": [hit.score for hit in hits],
                    **({"listed": listed} if near else {}),
                    **facts_here(system),
                }
            )
            return
    rows = [(hit.score, hit.name, "") for hit in hits]
    rows += [(score, one.name, "on the Hub, fetched on first use") for one, score in near]
    rows = sorted(rows, key=lambda row: -row[0])[:k]
    write_table(
        ("adapter", "similarity", ""), [(name, f"{score:.3f}", how) for score, name, how in rows]
    )


@asks()
def generate(
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads standard input.")],
    asked: Mapping[str, Any],
    keep: Annotated[
        str | None, typer.Option(help="Keep the weights that were found as a mix of this name.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Write weights, contributions, effects: .npz or .json.")
    ] = None,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Answer one prompt; the text comes as it is made, the adapters used on standard error."""
    from ramole_core.facts import facts_of
    from ramole_core.request import Request
    from ramole_core.trace_file import write_trace

    if trace is not None and trace.suffix not in (".npz", ".json"):
        raise RamoleError(f"--trace {trace} ends in neither .npz nor .json; rename it.")
    request = Request(read_prompt(prompt), **asked, trace=trace is not None, owner=owner)
    if keep is not None and not request.examples:
        raise RamoleError("--keep keeps weights that are found on examples; add --examples FILE.")
    if trace is not None and not trace.parent.is_dir():
        raise RamoleError(f"There is no folder {trace.parent} for --trace; make it.")
    with reached(owner, trace=trace, keep=keep) as system:
        if keep is not None and not is_server(system):
            system.check_mix_name(keep, owner)
        load(system, request)
        told = {"fitting": print_fitting} if request.examples and not as_json else {}
        answer = write_answer(system.stream(request, **told), quiet=as_json)
        if not is_server(system):
            if keep is not None:
                kept = system.keep_mix(keep, answer, owner)
                if not as_json:
                    say(f"Kept as the mix {kept.name}; --mix {kept.name} asks with it.")
            if trace is not None:
                made = facts_of(system, adapters=answer.adapters, owner=owner)
                write_trace(answer, trace, request=request, facts=made)
        if as_json:
            write_json(answer_record(request, answer, trace) | facts_here(system))


def trace(
    files: Annotated[list[Path], typer.Argument(help="Trace files, .json or .npz.")],
    as_json: Json = False,
) -> None:
    """Check trace files against their schema, `ramole_core/trace.schema.json`."""
    from ramole_core.trace_check import check_trace

    found = {str(file): check_trace(file) for file in files}
    if as_json:
        write_json({"traces": {name: asdict(facts) for name, facts in found.items()}})
        return
    for name, facts in found.items():
        print(
            f"{name}: a trace, version {facts.version}, of {facts.tokens} tokens "
            f"({facts.prompt_length} of the prompt), {facts.layers} layers, {facts.modules} "
            f"modules; adapters: {', '.join(facts.adapters) or 'none'}."
        )
