"""The commands on one prompt: `retrieve` finds its adapters, `generate` answers it."""

from pathlib import Path
from typing import Annotated

import typer

from ramole_core.cli.opening import Exclude, Json, Owner, opened
from ramole_core.errors import RamoleError
from ramole_core.facts import facts_of
from ramole_core.methods import DEFAULT_METHOD, describe_options, read_values
from ramole_core.terminal.console import (
    read_pairs,
    read_prompt,
    read_turns,
    say,
    tell_fitting,
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
    with opened() as ramole:
        text = read_prompt(prompt)
        hits = ramole.retrieve(text, k=k, exclude=exclude or (), owner=owner)
        near = ramole.hub.near(text, k, exclude or ())
        if as_json:
            listed = [{"name": one.name, "similarity": score} for one, score in near]
            write_json(
                {
                    "prompt": text,
                    "adapters": [hit.name for hit in hits],
                    "similarities": [hit.score for hit in hits],
                    **({"listed": listed} if near else {}),
                    **facts_of(ramole),
                }
            )
            return
    rows = [(hit.score, hit.name, "") for hit in hits]
    rows += [(score, one.name, "on the Hub, fetched on first use") for one, score in near]
    rows = sorted(rows, key=lambda row: -row[0])[:k]
    write_table(
        ("adapter", "similarity", ""), [(name, f"{score:.3f}", how) for score, name, how in rows]
    )


def generate(
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads standard input.")],
    method: Annotated[str, typer.Option(help="How the adapters are mixed.")] = DEFAULT_METHOD,
    k: Annotated[int, typer.Option("--k", "-k", help="How many adapters to retrieve.")] = 3,
    adapter: Annotated[
        list[str] | None, typer.Option(help="Use exactly this one, no retrieval; repeat for more.")
    ] = None,
    weight: Annotated[
        list[float] | None, typer.Option(help="Its weight, in the same order; replaces the gate.")
    ] = None,
    exclude: Exclude = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help=f"NAME=VALUE of the method's own; repeat. {describe_options()}."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of the answer at most.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample from this much of the probability.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampling.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End before this text; repeat for more.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    raw: Annotated[bool, typer.Option(help="Continue the prompt, no chat template.")] = False,
    history: Annotated[
        Path | None,
        typer.Option(help='Earlier turns: a JSON list such as [["Hello", "Hi.", ["adapter"]]].'),
    ] = None,
    drop_turns: Annotated[
        bool, typer.Option("--drop-turns", help="Drop the oldest turns where they do not fit.")
    ] = False,
    examples: Annotated[
        Path | None,
        typer.Option(
            help='Pairs to find the weights on (lorahub), one a line: {"inputs": ..., "targets": '
            "...}, or input => target."
        ),
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="Keep the weights that were found as a mix of this name.")
    ] = None,
    mix: Annotated[
        str | None, typer.Option(help="A mix that was kept: its method, adapters and weights.")
    ] = None,
    abstain: Annotated[
        bool | None, typer.Option(help="The base may answer where no adapter fits, or may not.")
    ] = None,
    effects: Annotated[
        bool, typer.Option("--effects", help="Measure what each adapter did to each token.")
    ] = False,
    trace: Annotated[
        Path | None, typer.Option(help="Write weights, contributions, effects: .npz or .json.")
    ] = None,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Answer one prompt; the text comes as it is made, the adapters used on standard error."""
    from ramole_core.request import Request
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
        options=read_values(option) if option else None,
        history=read_turns(history) if history else (),
        drop_turns=drop_turns,
        abstain=abstain,
        examples=read_pairs(examples) if examples else (),
        mix=mix,
        effects=effects,
    )
    if keep is not None and not request.examples:
        raise RamoleError("--keep keeps weights that are found on examples; add --examples FILE.")
    with opened(load=True) as ramole:
        told = {"fitting": tell_fitting} if request.examples and not as_json else {}
        answer = write_answer(ramole.stream(request, **told), quiet=as_json)
        if keep is not None:
            kept = ramole.keep_mix(keep, answer, owner)
            if not as_json:
                say(f"Kept as the mix {kept.name}; --mix {kept.name} asks with it.")
        if trace is not None:
            facts = facts_of(ramole, adapters=answer.adapters, owner=owner)
            write_trace(answer, trace, request=request, facts=facts)
        if as_json:
            write_json(answer_record(request, answer, trace) | facts_of(ramole))
