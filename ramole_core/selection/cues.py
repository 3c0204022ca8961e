"""Cues in a text that another request begins: joining words, requests, named fields."""

import re

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
SENTENCE = re.compile(r"[.!\n]+")


def has_fields(text: str) -> bool:
    """Whether the text is a form: lines that begin with `Question:`, `OPTIONS:` and the like."""
    return FIELDS.search(text) is not None


def joins(text: str) -> bool:
    """Whether the text begins as one that goes on with another matter: `Also, ...`."""
    return JOINING.match(text) is not None


def begun_anew(text: str) -> str:
    """The text without the joining words that it begins with; as it is where no word is left."""
    rest = LEADING.sub("", text)
    return rest if re.search(r"\w", rest) else text


def asks(text: str) -> bool:
    """Whether a sentence of the text is a question or an order."""
    text = JOINING.sub("", text).lstrip(" ,:")
    return any(ASKING.search(one.strip()) for one in SENTENCE.split(text))
