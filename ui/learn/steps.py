"""The ten steps of the textbook: texts, things to try, and papers."""

from dataclasses import dataclass

from ..parts.prompts import LIVE
from .texts import TEXTS

LORA = ("LoRA", "2106.09685")
RETRIEVER = ("LoraRetriever", "2402.09997")
RAMOLE = ("RAMoLE", "2406.16989")
FILM = "Which film shall we watch on a rainy Sunday?"
PROMPTS = {one.title: one.prompt for one in LIVE}


@dataclass(frozen=True)
class Step:
    """One page of the textbook."""

    title: str
    tries: str
    """Exercise in a live tab."""
    tab: str
    """The name of that tab."""
    prompt: str = ""
    """Prompt for its form."""
    papers: tuple[tuple[str, str], ...] = ()
    """Names, and numbers at arXiv."""

    @property
    def says(self) -> tuple[str, ...]:
        """Its paragraphs, HTML of our own with `{names}` of facts."""
        return TEXTS[self.title]


STEPS = (
    Step(
        "A pool of adapters",
        "See the same adapters as cards, with their examples, or drop in one of your own.",
        "Pool",
        papers=(LORA,),
    ),
    Step(
        "A prompt becomes a vector",
        "Ask this prompt; beside the answer stand the adapters that its vector found.",
        "Ask",
        PROMPTS["Facts to a sentence"],
    ),
    Step(
        "The nearest adapters",
        "Ask for capital letters instead, and other adapters come out nearest.",
        "Ask",
        PROMPTS["Capital letters"],
        papers=(RETRIEVER,),
    ),
    Step(
        "A small change to a layer",
        "Compare two ways of mixing: the one called “mixture” gives all adapters the same weight, "
        "“selection” uses the nearest one alone.",
        "Compare",
        PROMPTS["Facts to a sentence"],
        papers=(LORA, RETRIEVER),
    ),
    Step(
        "The gate",
        "Put “ramole” into the first column of Compare and “mixture” into the second: the same "
        "adapters, with a gate and without.",
        "Compare",
        PROMPTS["Facts to a sentence"],
        papers=(RAMOLE,),
    ),
    Step(
        "Which adapter did it",
        "Choose “ramole” in Ask, ask, and click a coloured token of the answer. Under “What if” "
        "switch its adapter off, and see what comes instead.",
        "Ask",
        PROMPTS["Facts to a sentence"],
        papers=(RAMOLE,),
    ),
    Step(
        "Mixture against base",
        "Compare puts the base's whole answer beside the mixture's.",
        "Compare",
        PROMPTS["Capital letters"],
    ),
    Step(
        "Many requests, one batch",
        "Ask a whole list of prompts at once, and watch the rows fill.",
        "Batch",
        papers=(RETRIEVER,),
    ),
    Step(
        "When nothing fits",
        "Ask it something that no adapter was made for.",
        "Ask",
        FILM,
    ),
    Step(
        "How one knows that it works",
        "Results says how good the answers are, task by task, and where they fail.",
        "Results",
        papers=(RAMOLE,),
    ),
)
TITLES = tuple(f"{n}. {step.title}" for n, step in enumerate(STEPS, start=1))
