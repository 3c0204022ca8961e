"""`python -m tests.learn_page`: the whole page, every tab of it, over a fake system."""

from dataclasses import dataclass

from tests.fake_ramole import FakeCard, FakeRamole
from ui import build
from ui.serve import serve

EVIL = "<img src=x onerror=window.hacked=1>${alert(1)}"


@dataclass(frozen=True)
class DescribedCard(FakeCard):
    """With what the first step of Learn tells of an adapter."""

    description: str = f"# {EVIL} Writes {EVIL}. And more."
    parameters: int = 1234


def learn_ramole() -> FakeRamole:
    """The fake system with cards that say something."""
    ramole = FakeRamole()
    cards = [DescribedCard(name) for name in ramole.pool.names]
    ramole.pool.cards = lambda owner=None: cards
    return ramole


def main() -> None:
    ramole = learn_ramole()
    serve(build(ramole), ramole)


if __name__ == "__main__":
    main()
