"""The page's record of a request at an engine: its streamed tokens, and its place."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from ramole_core.engine.left_out import leave_out
from ramole_core.engine.prompt import Prepared
from ramole_core.request import Fitting, Generation


@dataclass(eq=False)
class RemoteRequest:
    """One request at an engine."""

    index: int
    prepared: Prepared
    held: ExitStack
    """What is held for it: its adapters in the store."""
    engine: str = ""
    cancel: Callable[[], None] = lambda: None
    streamed_ids: list[int] = field(default_factory=list)
    """Tokens that its reader has."""
    text: str = ""
    """And their text."""
    attempt: int = 0
    """How often it was sent."""
    drop: bool = False
    """Whether the next token is one that its reader has."""
    lost: set[str] = field(default_factory=set)
    """Engines that were lost with it."""
    began: float = field(default_factory=time.monotonic)
    first: float | None = None
    """When its first token came."""
    moves: int = 0
    """Engines that were lost after it had begun there."""
    fruitless: int = 0
    """Of these, since its last token."""
    fitted: Fitting | None = None
    retry_at: float | None = None
    """When it is sent again; None: it is at an engine."""
    waits: float | None = None
    """Since when there is no engine; None: there is one."""
    place: int = -1

    def cancelled(self) -> Generation:
        """The answer of a request cancelled at no engine: the streamed tokens."""
        prepared, now = leave_out(self.prepared), time.monotonic()
        return Generation(
            text=self.text,
            adapters=[c.name for c in prepared.candidates],
            scores=[c.score for c in prepared.candidates],
            trace=None,
            finish_reason="cancelled",
            prompt_tokens=len(prepared.prompt.ids),
            new_tokens=len(self.streamed_ids),
            seconds=now - self.began,
            first_token_seconds=self._first_by(now) - self.began,
        )

    def whole(self, answer: Generation) -> Generation:
        """The answer over all engines: the last one's, with the page's times where there were
        more."""
        now = time.monotonic()
        if self.fitted is not None:
            answer = replace(answer, fitted=answer.fitted or self.fitted)
        if not self.moves:
            return answer
        return replace(
            answer,
            seconds=now - self.began,
            first_token_seconds=self._first_by(now) - self.began,
            extra={**answer.extra, "moves": float(self.moves)},
        )

    def _first_by(self, now: float) -> float:
        return now if self.first is None else self.first
