"""Guess which adapter: a piece of a recorded answer without colours, then with its shares."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..charts.palette import chip_html
from ..charts.tokens import view_of
from ..parts.markup import escaped
from .kept import runs


@dataclass(frozen=True)
class Guess:
    """A stretch of one recorded answer."""

    title: str
    """Title of the run."""
    first: int
    last: int
    """Tokens, both included."""
    learnt: str
    """Explanation after the guess."""

    @property
    def experts(self) -> list[str]:
        """The adapters to choose from, by name, so that their order is no hint."""
        return sorted(runs()[self.title].experts)

    @property
    def shares(self) -> dict[str, float]:
        """Each adapter's share over the stretch, the largest first; the base has what is left."""
        run = runs()[self.title]
        means = run.shares[self.first : self.last + 1].mean(0)
        return {run.experts[e]: float(means[e]) for e in np.argsort(-means)}

    @property
    def answer(self) -> str:
        """The adapter with the largest share."""
        return next(iter(self.shares))

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def _pieces(self) -> tuple[str, ...]:
        return runs()[self.title].pieces[self.first : self.last + 1]

    def view(self, *, revealed: bool) -> dict[str, Any]:
        """The stretch as the token view draws it; without colours before the answer."""
        run = runs()[self.title]
        here = run.shares[self.first : self.last + 1] if revealed else []
        experts = run.experts if revealed else []
        view = view_of(self._pieces, here, experts, run=f"guess {self.title}", running=False)
        # its strengths are those of shares; before the answer it is unknown who leads
        return view | {"meaning": "", "unknown": not revealed}


GUESSES: dict[int, Guess] = {
    5: Guess(
        "Question to SQL",
        0,
        3,
        "Another prompt, with ramole_plus. All three adapters moved the model, but it was "
        "spider_sql, trained on questions and their queries, that made these words likelier; "
        "ner_wnut17, which finds names, spoke against SELECT.",
    ),
    6: Guess(
        "Capital letters",
        0,
        2,
        "With ramole_plus the adapter that is by far the most similar did all of it: the capitals "
        "of Every and July. For the words after them the base needed no help.",
    ),
    7: Guess(
        "Facts to a sentence, by MeteoRA",
        6,
        7,
        "This answer is no row of the picture above: MeteoRA wrote it, another method, whose gate "
        "was trained for this very pool. dart is nearest to the prompt, but here e2e_nlg did most: "
        "it was trained on places to eat and drink, and on whether they are family friendly. When "
        "ramole_plus wrote the same two words, e2e_nlg did most too.",
    ),
}
"""By the place of the step, counted from 0."""


def question_html(guess: Guess) -> str:
    """Return the question, and the prompt."""
    prompt = escaped(runs()[guess.title].request.prompt)
    return (
        "<h3>Guess which adapter</h3><p>The prompt was: "
        f'<q class="prompt">{prompt}</q> Which of its three adapters did most for this part of '
        "the answer?</p>"
    )


def reveal_html(guess: Guess, chosen: str | None) -> str:
    """Right or not, and each adapter's share; nothing before a choice."""
    if chosen not in guess.experts:
        return ""
    run, right = runs()[guess.title], chosen == guess.answer
    said = ", ".join(
        f"{chip_html(run.experts.index(name))} {escaped(name)} {100 * share:.0f} %"
        for name, share in guess.shares.items()
    )
    rest = 100 * (1 - sum(guess.shares.values()))
    said += f"; {rest:.0f} % the base would have said" if rest >= 0.5 else ""
    verdict = "Right." if right else f"No, it was {escaped(guess.answer)}."
    return f'<p role="status"><strong>{verdict}</strong> {said}. {escaped(guess.learnt)}</p>'
