"""Scores of answers: exact match, its lenient form, ROUGE-L and BLEU, each 0 to 100 a row.

LoraRetriever (arXiv 2402.09997) lower-cases, strips and removes "." before it compares; here a
decimal point stays, or 3.5 were 35. ROUGE-L and exact match see neither capital letters nor marks,
which are the answer of some tasks (`STRICTER`): there they count. A base model often wraps a right
answer in a bullet, quotes or a sentence after it; the lenient form takes those off, so that an
adapter must win by its answer and not by its manners.
"""

import re
from collections.abc import Callable, Sequence

import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

_BULLET = re.compile(r"^\s*(?:[-*•>]+|\(?\w\)|\d+[.)])\s+")
_LEAD = re.compile(
    r"^(?:the\s+)?(?:correct\s+|final\s+|best\s+)?(?:answer|option|label)\s*(?:is|:)\s*:?\s*", re.I
)
_QUOTES = "\"'`“”‘’«»*"
_STOP = re.compile(r"\.(?!\d)")
_TOKEN = re.compile(r"\w+|[^\w\s]")


class _Marks:
    """Splits a text into words as they are written, and single marks."""

    def tokenize(self, text: str) -> list[str]:
        return _TOKEN.findall(text)


_ROUGE = RougeScorer(["rougeL"], use_stemmer=True)
_ROUGE_OF_MARKS = RougeScorer(["rougeL"], tokenizer=_Marks())


def normalise(text: str) -> str:
    """Lower case, no outer space, no full stops but decimal points."""
    return _STOP.sub("", text.lower()).strip()


def exact_match(answer: str, target: str) -> float:
    """100 where the normalised texts are equal, else 0."""
    return 100.0 * (normalise(answer) == normalise(target))


def lenient_match(answer: str, target: str) -> float:
    """100 where the answer begins with the target, bullets, quotes and what follows taken off."""
    wanted = _bare(target)
    given = _bare(_LEAD.sub("", _BULLET.sub("", answer.strip())))
    if not wanted:
        return 100.0 * (given == wanted)
    return 100.0 * bool(re.match(re.escape(wanted) + r"(?!\w|[/.,:]\d)", given))


def _bare(text: str) -> str:
    return " ".join(normalise(text).strip(_QUOTES + " -").split())


def rouge_l(answer: str, target: str) -> float:
    """F-measure of the longest common subsequence of stemmed words."""
    return 100.0 * _ROUGE.score(target, answer)["rougeL"].fmeasure


def rouge_of_marks(answer: str, target: str) -> float:
    """The same of words as they are written and of single marks."""
    return 100.0 * _ROUGE_OF_MARKS.score(target, answer)["rougeL"].fmeasure


def exact(answer: str, target: str) -> float:
    """100 where the texts are equal but for spaces, else 0."""
    return 100.0 * (answer.split() == target.split())


def bleu(answer: str, target: str) -> float:
    """Sentence BLEU, smoothed as sacrebleu does by default (`exp`)."""
    return sacrebleu.sentence_bleu(answer, [target]).score


METRICS: dict[str, Callable[[str, str], float]] = {
    "em": exact_match,
    "rouge": rouge_l,
    "bleu": bleu,
    "marks": rouge_of_marks,
    "exact": exact,
}
"""By the name that a row of data gives its metric, and the two of STRICTER."""
STRICTER = {
    "true_case": "marks",
    "fix_punct": "marks",
    "nl2bash": "marks",
    "spider_sql": "marks",
    "mbpp": "marks",
    "nl2regex": "exact",
    "snips_json": "exact",
}
"""By task, in place of the metric of its rows, which cannot tell right from wrong there: ROUGE-L
gives 97 to a text copied without its capital letters, and 100 to `<` in place of `>=`."""


def lenient(metric: str, answer: str, target: str) -> float:
    """A metric that does not mind bullets, quotes, an opening phrase or what follows.

    Exact match becomes `lenient_match`; any other metric takes the better of the whole answer and
    its first line, undressed.
    """
    if metric == "em":
        return lenient_match(answer, target)
    first = answer.strip().splitlines()[0] if answer.strip() else ""
    bare = _LEAD.sub("", _BULLET.sub("", first)).strip(_QUOTES + " ")
    return max(METRICS[metric](answer, target), METRICS[metric](bare, target))


def score(
    metric: str, answers: Sequence[str], targets: Sequence[str], *, forgiving: bool = False
) -> list[float]:
    """One score a row; `forgiving` takes the metric's lenient form."""
    pairs = zip(answers, targets, strict=True)
    if forgiving:
        return [lenient(metric, answer, target) for answer, target in pairs]
    return [METRICS[metric](answer, target) for answer, target in pairs]
