"""`python -m tests.support.learn_page`: the whole page, every tab of it, over a fake system."""

from pathlib import Path

from ramole_core import AdapterCard
from tests.support.fake_ramole import FakeRamole
from ui import build
from ui.serve import serve

EVIL = "<img src=x onerror=window.hacked=1>${alert(1)}"


def card(name: str) -> AdapterCard:
    """A card whose description is hostile."""
    return AdapterCard(
        name=name,
        owner=None,
        rank=2,
        ranks={},
        modules=("q_proj",),
        layers=(0,),
        scale=1.0,
        scales={},
        dtype="float32",
        parameters=1_587_456,
        bytes=5678,
        sha256="c" * 64,
        base_model=None,
        licence=None,
        description=f"# {EVIL} Writes {EVIL}. And more.",
        notes=(),
        examples=("An example",),
        added="2026-11-27T00:00:00+00:00",
        vector_from="examples",
        folder=Path("/nonexistent"),
        sample=True,
        fits="f",
    )


def learn_ramole() -> FakeRamole:
    """The fake system with cards that say something."""
    ramole = FakeRamole()
    cards = [card(name) for name in ramole.pool.names]
    ramole.pool.cards = lambda owner=None: cards
    return ramole


def main() -> None:
    ramole = learn_ramole()
    serve(build(ramole), ramole)


if __name__ == "__main__":
    main()
