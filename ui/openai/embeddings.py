"""`/v1/embeddings`: texts as vectors, by the encoder of retrieval."""

import base64
from dataclasses import dataclass

import numpy as np

from ramole_core import Ramole

from ..api.fields import MAX_PROMPT
from .errors import Refused
from .models import EMBEDDER, unknown_model
from .parameters import has_half, read_body, short

MAX_TEXTS = 256
"""Most texts of one call."""
USED = ("model", "input", "encoding_format", "dimensions")


@dataclass(frozen=True)
class Texts:
    """The texts to embed, and the format of vectors."""

    texts: list[str]
    base64: bool
    dimensions: int | None


def read_texts(body: object) -> Texts:
    """The call of this JSON; raises Refused."""
    said, _ = read_body(body, USED)
    if said["model"] != EMBEDDER:
        named = f"{said['model'][:80]!r}"
        raise unknown_model(f"There is no model {named} that embeds; name {EMBEDDER}.")
    given = said.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise Refused(
            f"input={short(given)}; give a text or a list of texts, not tokens (with LangChain: "
            "check_embedding_ctx_length=False).",
            param="input",
        )
    if len(texts) > MAX_TEXTS or any(len(text) > MAX_PROMPT for text in texts):
        raise Refused(
            f"input has {len(texts)} texts; at most {MAX_TEXTS} are embedded at once, each of at "
            f"most {MAX_PROMPT} characters.",
            param="input",
        )
    if not all(text.strip() for text in texts):
        raise Refused("input has an empty text; leave it out.", param="input")
    if any(map(has_half, texts)):
        raise Refused("input has half a character in it; send whole ones.", param="input")
    form = said.get("encoding_format", "float")
    if form not in ("float", "base64"):
        raise Refused(
            f"encoding_format={short(form)}; give float or base64.", param="encoding_format"
        )
    return Texts(texts, form == "base64", said.get("dimensions"))


def embed(asked: Texts, ramole: Ramole) -> dict:
    """The vectors, of unit length, in OpenAI's form; raises Refused where `dimensions` are not the
    encoder's."""
    rows = ramole.retriever.embed(asked.texts)
    if asked.dimensions not in (None, rows.shape[1]):
        raise Refused(
            f"dimensions={short(asked.dimensions)}, but this encoder's vectors have "
            f"{rows.shape[1]}; leave it out.",
            param="dimensions",
        )
    tokens = ramole.retriever.count_tokens(asked.texts)
    data = [
        {"object": "embedding", "index": n, "embedding": _written(row, asked.base64)}
        for n, row in enumerate(rows)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": EMBEDDER, "usage": usage}


def _written(row: np.ndarray, as_base64: bool) -> str | list[float]:
    if as_base64:
        return base64.b64encode(row.astype("<f4").tobytes()).decode()
    return row.tolist()
