"""What if: continue an answer from one of its tokens with something switched off, a weight moved,
or another token. Without gradio.

The request is the same with the answer's first tokens given (`prefix_ids`). What is switched off is
off from the last of them on (`without`), which is the position that predicts the token, and what
was read before stays as it is, cache and all; or an adapter is left out of the turn, which is read
again by the others as though it had not been found. The second is what effects are made of
(`ramole_core/effects.py`): the token's probability is then `Did.without`. Where a weight is moved,
all of them are fixed from there on (`later_weights`): the others as they were at the token, in mean
over the modules that an adapter has.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ramole_core import Generation, RamoleError, Request, mean_weights

from ..charts.run import Run

EVERY = "every"


@dataclass(frozen=True)
class Change:
    """The change from the token on."""

    off: bool = False
    """Whether something is switched off."""
    adapter: str | None = None
    """None: all of them, so that the base is alone there."""
    layer: int | None = None
    module: str | None = None
    """None: in every one."""
    moved: str | None = None
    """The adapter whose weight is moved."""
    weight: float = 0.0
    """What it is moved to."""
    token: int | None = None
    """Taken in place of the answer's own."""
    unfound: bool = False
    """Whether an adapter as a whole is off, from the turn's beginning on."""

    @property
    def words(self) -> str:
        """The change in words, for a heading."""
        said = []
        if self.unfound:
            said.append(f"as though {self.adapter or 'no adapter'} had {self._never} been found")
        elif self.off:
            where = "" if self.layer is None else f" in layer {self.layer}"
            where += "" if self.module is None else f"{',' if where else ' in'} {self.module}"
            said.append(f"without {self.adapter or 'any adapter'}{where}")
        if self.moved is not None:
            said.append(f"with {self.moved} at weight {self.weight:.2f} and the others held")
        if self.token is not None:
            said.append("with another token there")
        return ", ".join(said)

    @property
    def _never(self) -> str:
        return "never" if self.adapter else "ever"


def branched(run: Run, index: int, change: Change) -> Request:
    """The request whose answer goes on from the token at `index`; raises RamoleError where there is
    nothing to change."""
    trace = run.answer.trace
    if trace is None or not 0 <= index < len(run.pieces):
        raise RamoleError("This answer has no trace to go on from; ask again.")
    if not change.off and change.token is None and change.moved is None:
        raise RamoleError(
            "Choose what to switch off, a weight to move, or another token; then answer from here."
        )
    if change.unfound and change.moved is not None and change.adapter in (None, change.moved):
        raise RamoleError(f"{change.moved} is off, so that it has no weight; switch off another.")
    given = list(trace.token_ids[trace.prompt_length : trace.prompt_length + index])
    given += [] if change.token is None else [change.token]
    start = "turn" if change.unfound else _start(run, index)
    without = [(change.adapter, change.layer, change.module, start)]
    longest = max(run.request.max_new_tokens, len(given) + 1)
    return replace(
        run.request,
        split=None,
        prefix_ids=given,
        without=without if change.off else (),
        later_weights=_weights(run, index, change),
        max_new_tokens=longest,
        trace=True,
    )


def grown(run: Run, index: int, change: Change, pieces: Sequence[str], text: str) -> list[str]:
    """The new answer's pieces: the old ones up to the token, and what came; `text` is that of the
    token that was given in its place."""
    placed = [] if change.token is None else [text]
    return [*run.pieces[:index], *placed, *pieces]


def branch_run(request: Request, answer: Generation, pieces: Sequence[str], run: Run) -> Run:
    """The new answer as a run, which has the adapters that were found for the first."""
    return Run(request, answer, tuple(pieces), found=run.found)


def weights_at(run: Run, index: int) -> dict[str, float]:
    """Each adapter's weight at the token, in mean over the modules that it has."""
    gates, present = run.gates[index : index + 1], run.present[index : index + 1]
    means = mean_weights(gates, present)[0]
    return {name: float(weight) for name, weight in zip(run.experts, means, strict=True)}


def _weights(run: Run, index: int, change: Change) -> dict[str, float] | None:
    if change.moved is None:
        return None
    weights = weights_at(run, index) | {change.moved: change.weight}
    return {
        name: one for name, one in weights.items() if not change.unfound or name != change.adapter
    }


def _start(run: Run, index: int) -> int:
    """The position that predicts the token."""
    trace = run.answer.trace
    assert trace is not None
    return trace.prompt_length + index - 1
