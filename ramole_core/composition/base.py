"""The base model alone: y = W x. The control for every method.

Trained: nothing.

Cost: none.

Claimed: nothing; it is a control.
"""

from ramole_core.composition.decision import Ask, Decision
from ramole_core.composition.method import Composition, register
from ramole_core.methods import Method


@register
class Base(Composition):
    row = Method("base", "control", "the base model alone, no adapter")

    def experts(self, k: int) -> int:
        return 0

    def decide(self, ask: Ask) -> Decision:
        return Decision(ask.present.float())
