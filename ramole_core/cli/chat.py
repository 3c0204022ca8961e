"""The command `chat`: a conversation, a line a turn, and which adapters each turn found."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ramole_core.cli.opening import Json, Owner, facts_here, load, reached
from ramole_core.errors import RamoleError
from ramole_core.terminal.asked import asks
from ramole_core.terminal.console import say, typed_lines, write_answer, write_json
from ramole_core.terminal.records import answer_record

if TYPE_CHECKING:
    from ramole_core.cli.server import Server
    from ramole_core.ramole import Ramole
    from ramole_core.request import Request

EXIT, HELP, NEW = "/exit", "/help", "/new"
WORDS = (
    f"A line is a turn of the conversation; {NEW} starts anew, {HELP} says this, {EXIT} or Ctrl-D "
    "ends it."
)


@dataclass
class Chat:
    """A running conversation."""

    system: "Ramole | Server"
    first: "Request"
    """Template of every turn's request; its history comes before the first turn."""
    quiet: bool
    """True: nothing is printed, all goes to `records`."""
    turns: list[tuple[str, str, Sequence[str]]] = field(default_factory=list)
    """User, assistant, and the adapters that the turn had."""
    records: list[dict[str, object]] = field(default_factory=list)
    """The record of each answer, those before `/new` too."""

    def answer(self, prompt: str) -> None:
        """Answer the next turn; raises RamoleError, and the conversation stays as it was."""
        history = (*self.first.history, *self.turns)
        request = replace(self.first, prompt=prompt, history=history)
        answer = write_answer(self.system.stream(request), quiet=self.quiet, shares=True)
        if dropped := answer.extra.get("dropped_turns"):
            say(f"The oldest turns did not fit, and were left out: {dropped:.0f}.")
        self.turns.append((prompt, answer.text, answer.adapters))
        self.records.append(answer_record(request, answer, None))

    def begin_anew(self) -> None:
        """Forget all turns, those from a file too."""
        self.first = replace(self.first, history=())
        self.turns.clear()
        say("A new conversation.")


@asks("raw", "examples", "mix")
def chat(asked: Mapping[str, Any], owner: Owner = None, as_json: Json = False) -> None:
    """Talk, a line a turn: each finds its adapters, earlier ones keep theirs. /help says more."""
    from ramole_core.request import Request

    first = Request("hello", **asked, owner=owner)
    at_terminal = sys.stdin.isatty()
    with reached(owner) as system:
        load(system, first)
        talk = Chat(system, first, quiet=as_json)
        for line in _lines(at_terminal):
            if line == EXIT:
                break
            if line == NEW:
                talk.begin_anew()
                continue
            if line == HELP:
                say(WORDS)
                continue
            try:
                talk.answer(line)
            except RamoleError as error:
                if not at_terminal:
                    raise
                say(str(error))
        if as_json:
            write_json({"turns": talk.records, **facts_here(system)})


def _lines(at_terminal: bool) -> Iterator[str]:
    """The typed lines until the end of input, without empty ones."""
    if not at_terminal:
        yield from filter(None, map(str.strip, typed_lines()))
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
