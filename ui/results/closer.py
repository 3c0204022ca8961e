"""One setting of the evaluation in detail: who is ahead of whom, and each task's scores."""

from .answers import label
from .scores import Evaluation
from .tables import Scale, box, cell, group, head, plain, scale_over
from .values import Span


def differences_html(found: Evaluation, setting: str) -> str:
    """Who is ahead of whom in one setting, over the same rows."""
    ahead = found.differences.get(setting, ())
    if not ahead:
        return ""
    scale = scale_over([one.span for one in ahead], mark=0)
    rows = "".join(
        f"<tr>{head(one.method, below=f'minus {one.rival}')}"
        f"{cell(one.span, scale=scale, signed=True)}{plain(in_words(one.span))}</tr>"
        for one in ahead
    )
    heads = [head("difference", scope="col"), head("points", scope="col", kind="number")]
    heads.append(head("in words", scope="col"))
    return box(
        f"Differences over the same rows, {label(setting)}",
        heads,
        rows,
        kind="names",
        below="The thin upright line is zero: an interval that crosses it decides nothing.",
    )


def by_task_html(found: Evaluation, setting: str) -> str:
    """Tasks x methods, grouped by domain, the higher the fuller."""
    cells = {n: found.cells[setting][n].by_task for n in found.scores(setting)}
    cells = {name: scores for name, scores in cells.items() if scores}
    tasks = dict.fromkeys([*found.tasks, *(t for scores in cells.values() for t in scores)])
    tasks = [task for task in tasks if any(task in scores for scores in cells.values())]
    if not tasks:
        return ""
    groups: dict[str, list[str]] = {}
    for task in tasks:
        told = found.tasks.get(task)
        groups.setdefault(told.domain if told else "", []).append(task)
    body = "".join(
        group(domain, "".join(_task(found, name, cells) for name in names), columns=len(cells) + 1)
        for domain, names in groups.items()
    )
    heads = [head("task", scope="col"), *(head(name, scope="col") for name in cells)]
    return box(
        f"Score by task, {label(setting)}",
        heads,
        body,
        kind="heat",
        below="The fuller the colour, the higher the score; the highest of a row is bold.",
    )


def in_words(span: Span) -> str:
    """What an interval says about a difference."""
    if not span.sure:
        return "no clear difference" if span.low is not None else "interval not measured"
    return "clearly ahead" if span.mean > 0 else "clearly behind"


def _task(found: Evaluation, task: str, cells: dict[str, dict[str, float]]) -> str:
    told = found.tasks.get(task)
    mine = [scores[task] for scores in cells.values() if task in scores]
    row = ""
    for scores in cells.values():
        value = scores.get(task)
        if value is None:
            row += cell(None)
            continue
        words = f"{value:.0f}"
        full = Scale(0, 100).at(value)
        shown = f"<strong>{words}</strong>" if value == max(mine) > 0 else words
        row += f'<td class="number full" style="--full:{full:.0f}%">{shown}</td>'
    return f"<tr>{head(task, below=told.metric if told else '')}{row}</tr>"
