"""The parts of a prompt with several tasks, each for an adapter of its own.

    gain = sum over two parts of (max_j cos(part, adapter_j) - cos(part, adapter_w)) - price

with w the adapter that is nearest to both together: parts are worth how much nearer adapters of
their own are. The prompt is cut where that is most, if it is more than 0, and each part again. A
part is a run of pieces (sentences, lines; a list of options stays with the line before it, and what
a question at the very beginning announces with the question). Each must fit: its similarity reaches
MIN_FIT and the base model's threshold (`base_expert.py`); neighbours that find the same adapter are
one part. A cut costs less where English cues show that another request begins, but in a form, whose
fields belong together. A first look takes the means of the pieces' vectors; of the places that come
within MAX_ERROR of a gain, the MAX_EMBEDDED best are computed from the vectors of both sides.
Prices and MIN_FIT were fitted on training rows and prompts in people's own words, for the encoder
that the calibration is of (LOG); with another encoder only `split=True` cuts. `python -m lab
parts_table` and `second_half` measure what comes of it.
"""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import log

import numpy as np
from jaxtyping import Float32

from ramole_core.methods import find_row
from ramole_core.pool import Pool
from ramole_core.request import Request
from ramole_core.request_check import whole_fields
from ramole_core.retrieval import BaseExpert, Retriever

WORDS = (
    r"((also|and (also|then)|then|after that|i( would|'d) also like to know)(?=[\s,:]|$)|"
    r"(next|besides|in addition|additionally|plus|another thing|one more thing|second(ly)?|"
    r"third(ly)?|finally|lastly)(?=\s*[,:]))"
)
JOINING = re.compile(rf"^\W*({WORDS}|(i would|i'd|could you|can you|please) also\b)", re.IGNORECASE)
LEADING = re.compile(rf"^\W*{WORDS}[\s,:]*", re.IGNORECASE)
ORDERS = """
add answer are break calculate can capitali[sz]e check choose classify combine complete compose
compute continue convert correct could count decide delete describe did divide do does draft explain
extract fill find finish fix format generate give guess has have help how insert is join list make
multiply name need needs paraphrase pick please pull put read remove rename replace rewrite say
select shorten should show simplify solve sort spell split subtract summari[sz]e tag tell translate
turn use was were what whats when where which who whose why will would write
""".split()
ASKING = re.compile(
    rf"\?|->|\b(please|pls|plz)\b|^(i need|i want|i'd|sum up|{'|'.join(ORDERS)})\b", re.IGNORECASE
)
FIELDS = re.compile(
    r"^(abstract|answer|claim|context|dialogue|email|hypothesis|input|news|options|output|passage|"
    r"premise|question( \d)?|review|sentence( \d)?|statement|text|tweet)\s*:",
    re.IGNORECASE | re.MULTILINE,
)
LISTED = re.compile(r"\s*(options\s*:|[-*•] )", re.IGNORECASE)
ANNOUNCING = re.compile(r"\b(this|these|following)\b", re.IGNORECASE)
MARK = re.compile(r"[.!?:]")
SENTENCE = re.compile(r"[.!\n]+")


def has_fields(text: str) -> bool:
    """Whether the text is a form: lines that begin with `Question:`, `OPTIONS:` and the like."""
    return FIELDS.search(text) is not None


def joins(text: str) -> bool:
    """Whether the text begins with a word that joins another task: `Also, ...`."""
    return JOINING.match(text) is not None


def begun_anew(text: str) -> str:
    """The text without the joining words that it begins with; as it is where no word is left."""
    rest = LEADING.sub("", text)
    return rest if re.search(r"\w", rest) else text


def asks(text: str) -> bool:
    """Whether a sentence of the text is a question or an order."""
    text = JOINING.sub("", text).lstrip(" ,:")
    return any(ASKING.search(one.strip()) for one in SENTENCE.split(text))


PLAIN, BOTH_ASK, JOINED = 0.25, 0.05, 0.03
"""The price of a cut: without a cue or in a form, where both sides ask, behind a joining word."""
PLACES = 0.01
"""More for each natural logarithm of the places where the prompt could be cut."""
MIN_FIT = 0.20
MAX_ERROR = 0.2
"""Largest error of a gain by mean vectors against one by the vectors of both sides."""
MAX_EMBEDDED = 3
"""Most places whose sides are embedded."""
MAX_PIECES = 12
"""Beyond this the shortest neighbours are joined."""
MAX_PLACES = 200
"""Beyond this, neighbouring places are joined."""
MAX_NEAREST = 3
"""Adapters that are compared with every run, for each piece."""
END = re.compile(r"\n+|(?<=[.!?])[\"')\]]*\s+")
"""End of a piece."""
Span = tuple[int, int]
"""A part's first piece, and the one after its last."""


def pieces_of(text: str, most: int = MAX_PIECES) -> list[str]:
    """The text's sentences and lines, in order; joined they are the text."""
    ends = [0, *(match.end() for match in END.finditer(text.rstrip())), len(text)]
    announced = announced_to(text)
    found: list[str] = []
    for start, end in pairwise(ends):
        blank = found and not (found[-1].strip() and text[start:end].strip())  # is no piece
        joined = blank or is_option(text[start:end]) or (len(found) == 1 and start in announced)
        if found and joined:
            found[-1] += text[start:end]
        elif start < end:
            found.append(text[start:end])
    together = -(-len(found) // MAX_PLACES)
    if together > 1:
        found = ["".join(found[n : n + together]) for n in range(0, len(found), together)]
    while len(found) > most:
        n = min(range(len(found) - 1), key=lambda n: len(found[n]) + len(found[n + 1]))
        found[n : n + 2] = [found[n] + found[n + 1]]
    return found


def is_option(text: str) -> bool:
    """Whether a piece is of a list of options, which continues the line before it."""
    return LISTED.match(text) is not None and not asks(text.strip(" -*•\n"))


def announced_to(text: str) -> range:
    """The places at which a piece goes on with the text's beginning, because that announces it
    (`Is this spam?`, `Fix these lines`): behind `this`, `these` or `following`, as long as no
    sentence has ended but with the `?` or `:` just before. One look at the text, however long."""
    word, mark = ANNOUNCING.search(text), MARK.search(text)
    end = mark.start() if mark else len(text)
    if word is None or end < word.end():
        return range(0)
    if mark and mark.group() in "?:":
        end += 1
        while text[end : end + 1].isspace():
            end += 1
    return range(word.end(), end + 1)


def price_of(before: str, after: str, *, form: bool) -> float:
    """The price of a cut between two parts of a text; `form`: it has named fields."""
    if not form and joins(after):
        return JOINED
    return BOTH_ASK if not form and asks(before) and asks(after) else PLAIN


class Cutter:
    """The cuts of one prompt."""

    def __init__(
        self,
        pieces: Sequence[str],
        vectors: Sequence[Float32[np.ndarray, "d"]],
        adapters: Float32[np.ndarray, "k d"],
        *,
        embed: Callable[[Sequence[str]], Sequence[Float32[np.ndarray, "d"]]],
        base: BaseExpert,
    ):
        """`vectors`: of the whole text, then of each piece."""
        self._pieces, self._adapters, self._embed, self._base = pieces, adapters, embed, base
        self._weighted = np.stack(
            [len(text) * one for text, one in zip(pieces, vectors[1:], strict=True)]
        )
        self._known = {(0, len(pieces)): vectors[0]}
        self._form = has_fields("".join(pieces))
        self._more = PLACES * log(max(1, len(pieces) - 1))

    def text_of(self, run: Span) -> str:
        """Its text; behind the first, without the joining words that it begins with."""
        return begun_anew(self._plain(run)) if run[0] else self._plain(run)

    def cut(self, run: Span) -> list[Span]:
        """The run in parts."""
        start, end = run
        leader = int(np.argmax(self._adapters @ self._vector(run)))
        rough = {at: self._gain(run, at, leader, self._mean) for at in range(start + 1, end)}
        places = [at for at, gain in rough.items() if gain > -MAX_ERROR]
        places = sorted(places, key=lambda at: -rough[at])[:MAX_EMBEDDED]
        self._read([side for at in places for side in ((start, at), (at, end))])
        gains = {at: self._gain(run, at, leader, self._fitting) for at in places}
        best = max(gains, key=lambda at: gains[at], default=start)
        if gains.get(best, 0.0) <= 0:
            return [run]
        found: list[Span] = []
        for part in (*self.cut((start, best)), *self.cut((best, end))):
            found.append(part)
            while len(found) > 1 and self._nearest(found[-2]) == self._nearest(found[-1]):
                found[-2:] = [(found[-2][0], found[-1][1])]
        return found

    def _gain(
        self, run: Span, at: int, leader: int, vector_of: Callable[[Span], np.ndarray | None]
    ) -> float:
        """Return the gain of a cut there; -inf where none is allowed."""
        sides = (run[0], at), (at, run[1])
        similarities = [
            self._adapters @ one for side in sides if (one := vector_of(side)) is not None
        ]
        if len(similarities) < 2 or len({int(one.argmax()) for one in similarities}) < 2:
            return -np.inf
        ahead = sum(float(one.max() - one[leader]) for one in similarities)
        before, after = map(self._plain, sides)
        return ahead - self._more - price_of(before, after, form=self._form)

    def _plain(self, run: Span) -> str:
        return "".join(self._pieces[slice(*run)]).strip()

    def _mean(self, run: Span) -> Float32[np.ndarray, "d"]:
        vector = self._weighted[slice(*run)].sum(0)
        return vector / np.linalg.norm(vector)

    def _fitting(self, run: Span) -> Float32[np.ndarray, "d"] | None:
        """Its vector; None: no adapter fits."""
        vector = self._vector(run)
        similarity = float((self._adapters @ vector).max())
        return vector if similarity >= max(MIN_FIT, self._base.needed(vector)) else None

    def _read(self, runs: Sequence[Span]) -> None:
        """Embed those that are not known, in one call."""
        new = [run for run in runs if run not in self._known]
        if new:
            self._known.update(zip(new, self._embed(list(map(self.text_of, new))), strict=True))

    def _vector(self, run: Span) -> Float32[np.ndarray, "d"]:
        self._read([run])
        return self._known[run]

    def _nearest(self, run: Span) -> int:
        return int(np.argmax(self._adapters @ self._vector(run)))


class Parts:
    """The cutter of prompts, over one pool."""

    def __init__(self, pool: Pool, retriever: Retriever, *, base: BaseExpert):
        self._pool, self._retriever, self._base = pool, retriever, base

    def of(self, request: Request) -> tuple[str, ...]:
        """The parts of the request's prompt, in order; the prompt alone where it is answered as a
        whole, or where there is not a token for each part."""
        whole = (request.prompt,)
        if not self._splits(request) or len(pieces := pieces_of(request.prompt)) < 2:
            return whole
        every = {card.name: card for card in self._pool.cards(request.owner)}
        exclude = tuple(name for name in request.exclude if name in every)  # or listed, or refused
        cards = {n: card for n, card in every.items() if n not in exclude and not card.blind}
        if len(cards) < 2:
            return whole
        vectors = self._retriever.vectors([request.prompt, *pieces])
        names = {
            hit.name
            for text in (request.prompt, *pieces)
            for hit in self._retriever.retrieve(text, MAX_NEAREST, exclude, request.owner)
        }
        known = sorted(names & cards.keys())
        if len(known) < 2:
            return whole
        adapters = np.stack(self._retriever.card_vectors([cards[name] for name in known]))
        cutter = Cutter(pieces, vectors, adapters, embed=self._retriever.vectors, base=self._base)
        runs = cutter.cut((0, len(pieces)))
        return (
            tuple(map(cutter.text_of, runs)) if 1 < len(runs) <= request.max_new_tokens else whole
        )

    def _splits(self, request: Request) -> bool:
        splits = find_row(request.method).splits and self._base.calibrated
        return not whole_fields(request) and (splits if request.split is None else request.split)
