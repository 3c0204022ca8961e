"""The numbers in the textbook's sentences, each taken from a recorded run or a measured file."""

from collections import Counter
from collections.abc import Iterator
from math import exp, log
from pathlib import Path
from string import Formatter

from ..charts.explained import spell
from ..parts.markup import escaped
from ..results.files import RESULTS, read
from ..results.scores import Evaluation, evaluation
from ..results.tables import Column
from ..results.values import span_of
from .kept import AGREE, CLOSE, DIFFER, END, MEANING, gated, judged, margin, vectors
from .measured import said


def facts(folder: Path = RESULTS) -> dict[str, str]:
    """Every fact in words by its name; those of a missing file are left out."""
    return dict([*_vector_facts(), *_run_facts(), *_measured_facts(folder)])


def filled(paragraph: str, known: dict[str, str]) -> str | None:
    """The paragraph with its facts; None where one is missing."""
    wanted = {name for _, name, _, _ in Formatter().parse(paragraph) if name}
    return paragraph.format_map(known) if wanted <= set(known) else None


def _vector_facts() -> Iterator[tuple[str, str]]:
    kept = vectors()
    size, nearest = len(kept.vector), next(iter(kept.similarities))
    products = [a * b for a, b in zip(kept.vector, kept.adapters[nearest], strict=True)]
    first = zip(kept.vector[:3], kept.adapters[nearest][:3], strict=True)
    yield "size", f"{size:,}"
    yield "meaning", str(MEANING)
    yield "words", f"{size - MEANING:,}"
    yield "nearest", escaped(nearest)
    yield (
        "sum_of_products",
        " + ".join(f"{bracketed(a)} · {bracketed(b)}" for a, b in first) + " + …",
    )
    yield "similarity", f"{kept.similarities[nearest]:.3f}"
    by_meaning = sum(products[:MEANING])
    yield "by_meaning", f"{by_meaning:.3f}"
    yield "by_words", f"{round(sum(products), 3) - round(by_meaning, 3):.3f}"


def _run_facts() -> Iterator[tuple[str, str]]:
    run = gated()
    yield "layers", str(run.gates.shape[1])
    yield "even", f"{log(len(run.experts)):.2f}"
    for name, index in (("differ", DIFFER), ("agree", AGREE), ("close", CLOSE), ("end", END)):
        explained = run.explained[index]
        yield f"{name}_token", word(run.pieces[index])
        for side, rows in (("base", explained.base), ("mixture", explained.mixture)):
            yield f"{name}_{side}", word(rows[0][0])
            yield f"{name}_{side}_chance", f"{100 * rows[0][1]:.1f}"
    likeliest = run.explained[CLOSE].mixture
    near = [f"{word(text)} {100 * chance:.1f} %" for text, chance in likeliest[:3]]
    yield "close_each", f"{', '.join(near[:-1])} and {near[-1]}"
    second, chance = run.explained[END].base[1]
    yield "end_second", word(second)
    yield "end_second_chance", f"{100 * chance:.1f}"
    yield "first", escaped(run.experts[0])
    did = run.did(DIFFER)
    assert did is not None
    for name, subset in (("none", 0), ("alone", 0b001), ("without", 0b110), ("all", 0b111)):
        yield f"first_{name}", f"{100 * exp(did.subsets[subset]):.1f}"
    yield "margin", f"{margin(judged()[0][1]):.3f}"


def _measured_facts(folder: Path) -> Iterator[tuple[str, str]]:
    if users := read(folder, "many_users.json"):
        yield "users", str(users["users"])
        yield "cores", str(users["cores"])
        yield "rounds", str(len(users["times_faster"]))
        yield "times_faster", f"{users['median_times_faster']:.1f}"
        if bare := users.get("by_clients_of_the_endpoint"):
            yield "bare_times_faster", f"{bare['median_times_faster']:.1f}"
    if found := read(folder, "situations_dev.json").get("situations", {}).get("open"):
        parts, name = found["parts"], "ramole_plus"
        yield "open_questions", str(found["questions"])
        yield "open_kinds", str(found["units"])
        yield "open_each", str(found["units"] // len(parts))
        for fact, told in (
            ("open_left", found),
            ("fitted_left", parts["fitted on"]),
            ("unseen_left", parts["not fitted on"]),
            ("far_left", parts["far tasks"]),
        ):
            left = span_of(told["systems"][name]["left"])
            yield fact, said(left, Column("", 0)) if left else ""
    if claims := read(folder, "papers.json").get("claims"):
        verdicts = Counter(one.get("verdict", "missing") for one in claims)
        yield "claims", str(len(claims) - verdicts["missing"])
        for name in ("same", "other", "unclear"):
            yield f"claims_{name}", str(verdicts[name])
    if isinstance(tested := evaluation(folder), Evaluation):
        tasks = tested.raw["tasks"]
        yield "questions", str(sum(task["rows"] for task in tasks.values()))
        yield "tasks", str(len(tasks))


def bracketed(number: float) -> str:
    """Four decimals, a negative number in brackets."""
    return f"(−{-number:.4f})" if number < 0 else f"{number:.4f}"


def word(piece: str) -> str:
    """A token in a sentence."""
    return f"<code>{escaped(legible(piece))}</code>"


def legible(piece: str) -> str:
    """A token of a recorded answer that can be read; the one without text is the last."""
    return spell(piece) if piece else "∎"
