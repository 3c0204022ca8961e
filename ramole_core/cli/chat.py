"""The command `chat`: a conversation, a line a turn, and which adapters each turn found."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ramole_core.cli.opening import Exclude, Json, Owner, opened
from ramole_core.errors import RamoleError
from ramole_core.facts import facts_of
from ramole_core.methods import DEFAULT_METHOD, describe_options, read_values
from ramole_core.terminal.console import read_turns, say, write_answer, write_json
from ramole_core.terminal.records import answer_record

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole
    from ramole_core.request import Request

EXIT, NEW = "/exit", "/new"
WORDS = f"A line is a turn of the conversation; {NEW} starts anew, {EXIT} or Ctrl-D ends it."


@dataclass
class Chat:
    """A conversation on its way."""

    ramole: "Ramole"
    first: "Request"
    """What every turn is asked like; its history comes before the first turn."""
    quiet: bool
    """True: nothing is printed, `told` has it all."""
    turns: list[tuple[str, str, Sequence[str]]] = field(default_factory=list)
    """User, assistant, and the adapters that the turn had."""
    told: list[dict[str, object]] = field(default_factory=list)
    """The record of each answer, those before `/new` too."""

    def answer(self, prompt: str) -> None:
        """Answer the next turn; raises RamoleError, and the conversation stays as it was."""
        history = (*self.first.history, *self.turns)
        request = replace(self.first, prompt=prompt, history=history)
        answer = write_answer(self.ramole.stream(request), quiet=self.quiet, shares=True)
        if dropped := answer.extra.get("dropped_turns"):
            say(f"The oldest turns did not fit, and were left out: {dropped:.0f}.")
        self.turns.append((prompt, answer.text, answer.adapters))
        self.told.append(answer_record(request, answer, None))

    def begin_anew(self) -> None:
        """Forget all turns, those that came from a file too."""
        self.first = replace(self.first, history=())
        self.turns.clear()
        say("A new conversation.")


def chat(
    method: Annotated[str, typer.Option(help="How the adapters are mixed.")] = DEFAULT_METHOD,
    k: Annotated[int, typer.Option("--k", "-k", help="How many adapters a turn finds.")] = 3,
    adapter: Annotated[
        list[str] | None, typer.Option(help="Use exactly this one, no retrieval; repeat for more.")
    ] = None,
    exclude: Exclude = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help=f"NAME=VALUE of the method's own; repeat. {describe_options()}."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer at most.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampling.")] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    history: Annotated[
        Path | None, typer.Option(help="Turns that came before: a JSON list, as for `generate`.")
    ] = None,
    drop_turns: Annotated[
        bool, typer.Option("--drop-turns", help="Drop the oldest turns where they do not fit.")
    ] = False,
    abstain: Annotated[
        bool | None, typer.Option(help="The base may answer where no adapter fits, or may not.")
    ] = None,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Talk, a line a turn: each finds its adapters, earlier ones keep theirs. /new, /exit."""
    from ramole_core.request import Request

    first = Request(
        "hello",
        method=method,
        k=k,
        adapters=tuple(adapter) if adapter else None,
        exclude=tuple(exclude or ()),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        system=system,
        owner=owner,
        options=read_values(option) if option else None,
        history=read_turns(history) if history else (),
        drop_turns=drop_turns,
        abstain=abstain,
    )
    at_terminal = sys.stdin.isatty()
    with opened(load=True) as ramole:
        talk = Chat(ramole, first, quiet=as_json)
        for line in _lines(at_terminal):
            if line == EXIT:
                break
            if line == NEW:
                talk.begin_anew()
                continue
            try:
                talk.answer(line)
            except RamoleError as error:
                if not at_terminal:
                    raise
                say(str(error))
        if as_json:
            write_json({"turns": talk.told} | facts_of(ramole))


def _lines(at_terminal: bool) -> Iterator[str]:
    """What is typed, a line at a time, until its end; empty lines are left out."""
    if not at_terminal:
        yield from filter(None, map(str.strip, sys.stdin))
        return
    say(WORDS)
    console = Console(stderr=True)
    while True:
        try:
            line = console.input("[bold]> [/bold]").strip()
        except EOFError:
            say("")
            return
        if line:
            yield line
