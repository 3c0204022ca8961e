"""The composition methods by name, for lists and help: light, so that a page has it before torch.

How each one works stands in `composition/<file>.py`; registering a method that is not listed here
fails, and a test fails where one is listed and not registered.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One row of every list of methods."""

    name: str
    paper: str
    summary: str


METHOD_LIST = (
    Method(
        "ramole",
        "RAMoLE, arXiv 2406.16989",
        "a trained RouterLoRA weighs the adapters for every token and layer",
    ),
    Method(
        "ramole_plus",
        "RAMoLE with evidence, ours",
        "a gate weighs the retriever's similarity and each adapter's own responses",
    ),
    Method("selection", "LoraRetriever, arXiv 2402.09997", "the most similar adapter alone"),
    Method(
        "mixture",
        "LoraRetriever, arXiv 2402.09997",
        "the mean of the adapters' outputs, 1/k each",
    ),
    Method(
        "fusion",
        "LoraRetriever, arXiv 2402.09997",
        "one adapter made of the mean of the A's and the mean of the B's",
    ),
    Method(
        "similarity",
        "control",
        "the mean of the adapters' outputs, weighted by their similarity to the prompt",
    ),
    Method("base", "control", "the base model alone, no adapter"),
    Method(
        "uniform_router",
        "control",
        "the same gate untrained (B_r = 0): equal weights over the adapters present",
    ),
    Method("random_router", "control", "the same gate with a frozen random router"),
)
