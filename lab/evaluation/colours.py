"""A page of answers in their colours, for somebody who says which adapter did what.

    python -m lab colours --data DATA --out key.json

Two tasks in one prompt, the right answers forced; their two adapters and a third are named in drawn
order. Each answer is shown as the page shows it, with letters in the place of names and without its
prompt. OUT says which letter is right for each half.
"""

from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab import harness
from lab.evaluation.composite import compose, make_composite
from lab.evaluation.effects import MAX_ANSWER, forced, tasks_of_pool
from lab.evaluation.evaluate import read_rows

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole
    from ramole_core.request import Request


def main(
    data: harness.Data = harness.DATA,
    rows: harness.Rows = 6,
    skip: harness.Skip = 0,
    answers: Annotated[int, typer.Option(help="Answers on the page.")] = 30,
    method: Annotated[str, typer.Option(help="How the adapters are mixed.")] = "ramole_plus",
    seed: harness.Seed = 0,
    threads: harness.Threads = 0,
    out: harness.Out = harness.RESULTS / "colours.json",
) -> None:
    """Serve the page until it is interrupted; which letters are right stands in OUT."""
    import gradio as gr

    from ui.charts.tokens import token_view
    from ui.serve import styles

    views, keys, pick = [], [], Random(seed)
    with harness.served(host_cache_mb=2048) as ramole:
        tokenizer, names = ramole.base.tokenizer, tasks_of_pool(ramole, data)
        facts = harness.facts_of(ramole) | {"method": method, "seed": seed, "skipped": skip}
        tasks = read_rows(data, names, split="dev", count=rows, skip=skip)
        drawn = make_composite(
            ramole, lambda asked: [], tokenizer, tasks, seed=seed, pairs=2 * answers, rows=1
        )
        for question in (one for group in drawn.groups.values() for one in group):
            row = compose(question, tokenizer)
            if len(row.encoded.answer) > MAX_ANSWER or len(views) == answers:
                continue
            third = pick.choice([name for name in names if name not in question.adapters])
            named = pick.sample([*question.adapters, third], 3)
            view = _view(ramole, forced(row, question, method, adapters=named), str(len(views)))
            letters = [one["letter"] for one in view["experts"]]
            keys.append([letters[named.index(name)] for name in question.adapters])
            views.append(view)
    harness.Results(out, facts, threads=threads).write(right=keys)
    with gr.Blocks() as page:
        for n, view in enumerate(views, 1):
            gr.Markdown(f"## Answer {n}")
            token_view(elem_id=f"answer-{n}").value = view
    page.launch(css_paths=styles())


def _view(ramole: "Ramole", request: "Request", name: str) -> dict[str, Any]:
    """What the page draws of the answer, with letters as the adapters' names."""
    from ui.charts.run import Run
    from ui.charts.tokens import view_of_run

    (answer,) = ramole.generate([request])
    ids = request.prefix_ids
    decode = ramole.base.tokenizer.decode
    texts = [str(decode(list(ids[:n]))) for n in range(len(ids) + 1)]
    pieces = tuple(after[len(before) :] for before, after in pairwise(texts))
    view = view_of_run(Run(request, answer, pieces), name)
    for expert in view["experts"]:
        expert["name"] = f"adapter {expert['letter']}"
    return view
