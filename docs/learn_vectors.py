"""The vectors that the tab Learn shows: of one prompt, of a near and of a far adapter.

`python docs/learn_vectors.py` reads the sample pool with the retriever that ships, needs no base
model, and writes ui/learn/recorded/vectors.json; run it anew after the pool or the retriever
changed.
"""

import json
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
OUT = REPOSITORY / "ui" / "learn" / "recorded" / "vectors.json"
DIGITS = 4
PROMPT = "Facts to a sentence"
"""Title of the recorded run whose prompt is shown."""
SHOWN = ("dart", "clickbait")
"""The nearest adapter and the farthest, whose vectors are kept whole."""
OTHERS = (
    "My neighbour plays the drums at night. What should I say to him?",
    "Which film shall we watch on a rainy Sunday?",
    "Is this tweet sarcastic? I just love waiting for the bus in the rain.\nOPTIONS:\n- no\n- yes",
)
"""Prompts that no adapter of the pool was trained for."""


def record() -> dict[str, object]:
    """Everything that is kept, as plain data."""
    sys.path.insert(0, str(REPOSITORY))
    from ramole_core import Ramole, load_settings
    from ramole_core.retrieval.card_vector import adapter_vectors
    from ui.parts.prompts import LIVE

    with Ramole(load_settings()) as ramole:
        cards = ramole.pool.cards()
        prompt = next(one.prompt for one in LIVE if one.title == PROMPT)
        vectors = adapter_vectors(ramole.retriever.embed, cards)
        judged = {}
        for text in OTHERS:
            evidence = ramole.base_expert.judge(text, ramole.retrieve(text, k=3))
            assert not ramole.base_expert.doubts(evidence), f"similarity does not decide {text!r}"
            judged[text] = {
                "decision": evidence.decision,
                "nearest": evidence.nearest,
                "similarity": round(evidence.similarity, DIGITS),
                "base_similarity": round(evidence.base_similarity, DIGITS),
                "threshold": round(evidence.threshold, DIGITS),
            }
        return {
            "command": "python docs/learn_vectors.py",
            "encoder": ramole.retriever.encoder_checksum,
            "prompt": prompt,
            "vector": _rounded(ramole.retriever.embed([prompt])[0]),
            "adapters": {
                card.name: _rounded(one)
                for card, one in zip(cards, vectors, strict=True)
                if card.name in SHOWN
            },
            "similarities": {
                card.name: round(one, DIGITS)
                for card, one in zip(
                    cards, ramole.retriever.similarities(prompt, cards), strict=True
                )
            },
            "judged": judged,
        }


def _rounded(vector) -> list[float]:
    return [round(float(value), DIGITS) for value in vector]


if __name__ == "__main__":
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(record(), separators=(",", ":")) + "\n", "utf-8")
    print(f"{OUT.name}: {OUT.stat().st_size // 1024} KiB")
