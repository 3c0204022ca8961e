"""A pool that answers at once: what it found, and `yes` from the right adapter."""

from ramole_core.evidence import Evidence
from ramole_core.request import Generation
from ramole_core.retrieval import Hit


class AnsweringRamole:
    """`retrieve` and `generate` over the names of a crowd; the prompt's first word is its task.

    `ramole_plus` leaves the prompts in `leaves` to the base, and keeps the adapter of the turn
    before for those in `keeps`.
    """

    def __init__(self, crowd):
        self.names = (*crowd.samples, *crowd.distractors)
        self.stop_after = None
        self.batches = 0
        self.leaves = set()
        self.keeps = set()
        self.asked = []

    def retrieve(self, text, k=3, exclude=(), owner=None):
        own = text.split()[0]
        order = sorted(self.names, key=lambda name: (name != own, name))
        left = [name for name in order if name not in exclude][:k]
        return [Hit(n, 0.9 - 0.1 * i) for i, n in enumerate(left)]

    def generate(self, requests):
        if self.stop_after is not None and self.batches == self.stop_after:
            raise KeyboardInterrupt
        self.batches += 1
        self.asked += requests
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        if request.method == "base":
            return _generation("hm", [], [])
        if request.method == "ramole_plus" and request.prompt in self.leaves:
            return _generation("hm", [], [], decision="base")
        if request.adapters:
            names, scores = list(request.adapters), [float("nan")] * len(request.adapters)
        else:
            k = 1 if request.method == "selection" else request.k
            text = request.history[-1].user if request.prompt in self.keeps else request.prompt
            hits = self.retrieve(text, k, request.exclude)
            names, scores = [hit.name for hit in hits], [hit.score for hit in hits]
        return _generation(f"of {names[0]}", names, scores)


def _generation(text, adapters, scores, *, decision=None):
    told = (text, adapters, scores, None, "eos", 3, 2, 0.1, 0.1)
    return Generation(*told, evidence=decision and Evidence(decision))
