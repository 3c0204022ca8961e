"""Attribution of tokens: how often effects, contributions and weights name the right adapter."""

from .files import blocks_of
from .tables import Column, Section, Table, tables
from .values import Raw, at, text

MEASURES = ("effect", "contribution", "weight")
LEADS = {
    "largest": "the one that did most",
    "middle": "the next",
    "smallest": "the one that did least",
}


def who(raw: Raw) -> list[Table]:
    """Composed prompts, in which it is known whose each token is; what switching off changes."""
    found, composed = [], at(raw, "composed")
    columns = {
        "all": Column("right adapter ahead, % of tokens", drawn="percent"),
        "changed": Column("% of tokens that an adapter changed", drawn="percent"),
        "halves": Column("% of the answers' halves", drawn="percent"),
    }
    for method, row in composed.items():
        rows = {
            name: {
                "all": at(row, name),
                "changed": at(row, f"{name}, changed"),
                "halves": at(row, "halves by effect") if name == "effect" else None,
            }
            for name in MEASURES
            if at(row, name).get("mean")  # 0: it is the same for all adapters, and names none
        }
        pairs, tokens = text(at(row).get("pairs")), text(at(row).get("tokens"))
        note = (
            f"{pairs} pairs of tasks, {tokens} tokens; chance is 50. With two adapters effects put "
            "the one ahead that alone would have made the token likelier, whatever the method."
        )
        found += tables(f"two tasks in one prompt, {method}", "by", columns, {"": rows}, note)
    return found + _deleted(at(raw, "deleted"))


def _deleted(raw: Raw) -> list[Table]:
    """How often another token comes."""
    columns = {name: Column(words, drawn="percent") for name, words in LEADS.items()}
    rows = {method: at(row, "another token comes") for method, row in raw.items()}
    count = ", ".join(f"{text(at(row).get('tokens'))} by {name}" for name, row in raw.items())
    note = f"Tokens that an adapter changed: {count}."
    caption = "another token comes where this adapter is switched off, %"
    return tables(caption, "method", columns, {"": rows}, note)


WHO = Section(
    "who",
    "Is the colour of a token true?",
    "Two tasks stand in one prompt, both right adapters answer, and the right answer is forced, so "
    "that it is known whose each token is. Effects should name that adapter; and where an adapter "
    "that did much is switched off, another token should come.",
    lambda folder: blocks_of(folder, "effects.json", who),
)
