"""`python -m ui.ask.record`: run the recorded examples on the real system and save them.

Each run is one file in `ui/ask/recorded/`: request, answer, trace, the bare base's answer from the
same batch, and the likeliest tokens of base and mixture at every generated position.
"""

import sys
from dataclasses import replace
from pathlib import Path

from ramole_core import Ramole, RamoleError, Request, load_settings

from ..charts.recorded import FOLDER, recorded_files, write_run
from ..charts.run import Run
from ..parts.prompts import Example
from .answer import Live, answer
from .conversation import continued, turn_of
from .examples import RECORDED
from .token_panel import TOP


def record(ramole: Ramole, example: Example, before: Run | None = None) -> Run:
    """Run a prompt, after another run where it continues one, and explain every token of the
    answer; raises RamoleError."""
    request = _request(example)
    if before is not None:
        request = continued(request, [turn_of(before, before.title)], drop=False)
    live = Live()
    for _ in answer(ramole, request, live, beside=True):
        pass
    run = live.run
    if run is None or run.answer.trace is None:
        raise RamoleError(f"There was no answer to {example.title!r}; see the log.")
    trace = run.answer.trace
    explained = {
        i: ramole.explain(request, trace.prompt_length + i - 1, top=TOP, token_ids=trace.token_ids)
        for i in range(len(run.pieces))
    }
    return replace(run, explained=explained, title=example.title)


def _request(example: Example) -> Request:
    return Request(
        example.prompt,
        method=example.method,
        adapters=example.adapters or None,
        max_new_tokens=example.max_new_tokens,
        effects=True,
    )


def main(folder: Path = FOLDER) -> int:
    """Record all examples anew; old files are removed first."""
    try:
        with Ramole(load_settings()) as ramole:
            for example in RECORDED:  # warm: times are those of a page that has been used
                ramole.generate([replace(_request(example), max_new_tokens=2)])
            known: dict[str, Run] = {}
            for example in sorted(RECORDED, key=lambda one: bool(one.after)):
                known[example.title] = record(ramole, example, known.get(example.after))
    except RamoleError as error:
        print(error, file=sys.stderr)
        return 2
    for old in recorded_files(folder):
        old.unlink()
    for number, run in enumerate((known[one.title] for one in RECORDED), start=1):
        slug = "-".join("".join(c if c.isalnum() else " " for c in run.title.lower()).split())
        path = folder / f"{number:02d}-{slug}.json"
        write_run(run, path)
        print(f"{path.name}: {path.stat().st_size // 1024} KiB, {run.answer.text!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
