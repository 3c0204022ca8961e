"""Input and output of a command: results on standard output, all else on standard error."""

import json
import math
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ramole_core.errors import RamoleError
from ramole_core.request_parts import Example, Exchange, read_example_lines, read_history
from ramole_core.text_file import read_text

if TYPE_CHECKING:
    from ramole_core.request import Fitting, Generation, Step

PROGRESS_STEPS = 10
"""Steps of a search between two lines of progress."""


def read_prompt(words: str) -> str:
    """The prompt itself, or all of standard input where it is `-`."""
    return "\n".join(typed_lines()).strip() if words == "-" else words


def typed_lines() -> Iterator[str]:
    """The lines of standard input; raises RamoleError where they are no text."""
    try:
        for line in sys.stdin:
            yield line.removesuffix("\n")
    except UnicodeDecodeError:
        raise RamoleError(
            f"Standard input is not {sys.stdin.encoding} text; save it in that coding."
        ) from None


def read_turns(path: Path) -> tuple[Exchange, ...]:
    """Earlier turns of a conversation: a JSON list of [user, assistant], or with adapters.

    Raises RamoleError where the file is none, or has a turn that is none.
    """
    try:
        turns = json.loads(read_text(path))
    except (ValueError, RecursionError):
        turns = None
    if not isinstance(turns, list):
        raise RamoleError(
            f'{path} is not a JSON list of turns, such as [["Hello", "Hi."]]; correct it.'
        )
    return read_history(turns)


def read_pairs(path: Path) -> tuple[Example, ...]:
    """Examples that weights are found on, one a line: `{"inputs": ..., "targets": ...}`, or
    `input => target`. Raises RamoleError."""
    return read_example_lines(read_text(path))


def print_fitting(how: "Fitting") -> None:
    """Print the progress of a search for weights now and then, and its result."""
    if how.step == how.steps:
        pairs = zip(how.adapters, how.weights, strict=True)
        found = ", ".join(f"{name} {weight:.3f}" for name, weight in pairs)
        say(
            f"Found weights: {found}; loss of the examples {how.loss:.3f}, {how.start:.3f} at the "
            f"start, in {how.seconds:.1f} s."
        )
    elif how.step % PROGRESS_STEPS == 1:
        say(f"Finding weights: step {how.step} of {how.steps}, loss {how.loss:.3f} so far")


def say(sentence: str) -> None:
    """Print one line on standard error, whatever characters or breaks the sentence holds."""
    print(" ".join(sentence.split()), file=sys.stderr, flush=True)


def write_json(answer: Mapping[str, object]) -> None:
    """Print one JSON object on standard output; numbers that JSON lacks (nan, inf) become null."""
    print(json.dumps(_plain(answer), ensure_ascii=False, indent=2, default=str), flush=True)


def write_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table on standard output, uncut into a file or a pipe."""
    console = Console(soft_wrap=True) if sys.stdout.isatty() else Console(width=10_000)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # a plain string would be markup
    console.print(table)


def write_answer(
    steps: "Generator[Step, None, Generation]", *, quiet: bool, shares: bool = False
) -> "Generation":
    """Print each token as it comes, then one line about the run on standard error.

    `quiet` prints nothing. With `shares` the line has each adapter's part of the answer, which
    needs a trace. Returns the generator's own value, the whole answer.
    """
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            answer: Generation = end.value
            break
        if not quiet:
            print(step.text, end="", flush=True)
    if not quiet:
        print(flush=True)
        used = [
            name if math.isnan(score) else f"{name} {score:.2f}"
            for name, score in zip(answer.adapters, answer.scores, strict=True)
        ]
        if shares and answer.trace is not None:
            parts = zip(used, shares_of(answer), strict=True)
            used = [f"{name} ({share:.0%})" for name, share in parts]
        for note in answer.notes:
            say(note)
        if answer.evidence is not None and answer.evidence.decision != "adapters":
            say(answer.evidence.sentence)
        say(
            f"{', '.join(used) or 'no adapter'}; {answer.new_tokens} tokens "
            f"in {answer.seconds:.1f} s ({answer.finish_reason})"
        )
    return answer


@contextmanager
def progress_bar(what: str, *, seconds: float = 0.0) -> Iterator[Callable[[str, float], None]]:
    """A bar on standard error; call the yielded function with the stage and the fraction done.

    Where standard error is no terminal each stage is one line, once. With `seconds` lines are at
    least so far apart, and there is no bar where the results go to the same terminal.
    """
    console = Console(stderr=True)
    if not console.is_terminal or (seconds and sys.stdout.isatty()):
        shown: set[str] = set()
        last = time.monotonic()

        def tell(stage: str, fraction: float) -> None:
            nonlocal last
            if stage not in shown and time.monotonic() - last >= seconds:
                shown.add(stage)
                last = time.monotonic()
                say(f"{what}: {stage}")

        yield tell
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda stage, fraction: bar.update(
            task, description=f"{what}: {stage}", completed=fraction
        )


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def shares_of(answer: "Generation") -> list[float]:
    """Each adapter's share, 0 to 1, the mean over the answer's tokens: of its effects where
    requested, else of the contributions; empty where neither is known."""
    if answer.parts:
        total = sum(part.new_tokens for part in answer.parts)
        found = dict.fromkeys(answer.adapters, 0.0)
        for part in answer.parts:
            for name, share in zip(part.adapters, shares_of(part), strict=False):
                found[name] += share * part.new_tokens / total
        return list(found.values())
    if answer.effects is not None:
        from ramole_core.effects import effect_shares  # numpy is not there for `--help`

        return [float(share) for share in effect_shares(answer.effects).mean(0)]
    trace = answer.trace
    if trace is None:
        return []
    first = trace.prompt_length - 1  # it predicts the first token of the answer
    shares = trace.shares[first : len(trace.tokens) - 1, : len(answer.adapters)]
    return [float(share) for share in shares.mean(0)] if len(shares) else [0.0] * shares.shape[1]
