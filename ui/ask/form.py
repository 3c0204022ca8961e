"""The form of the tab Ask and its Request, without gradio."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from ramole_core import DEFAULT_METHOD, RamoleError, Request, asked_fields, read_example_lines

from ..parts.fields import whole
from .pairs import lines_of


@dataclass(frozen=True)
class Form:
    """The fields, in the order of the page's inputs, as gradio passes them."""

    prompt: str = ""
    method: str = DEFAULT_METHOD
    k: float = 3
    beside: bool = True
    """Whether the bare base answers too."""
    pinned: Sequence[str] = ()
    weights: str = ""
    exclude: Sequence[str] = ()
    max_new_tokens: float = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: str = ""
    """Empty: by chance, where there is a temperature."""
    system: str = ""
    stop: str = ""
    """One stop string a line; `\\n` stands for a line break."""
    raw: bool = False
    mix_anyway: bool = False
    """Adapters answer even where none fits."""
    examples: str = ""
    """Pairs to find the weights on, one a line; for a method that does."""
    mix: str | None = None
    """The name of weights that were kept, in place of examples."""
    options: Mapping[str, float] = field(default_factory=dict)
    """The method's own, by name; those that are missing have their defaults."""

    def request(self, owner: str | None) -> Request:
        """Return the request of these fields; raises RamoleError with one sentence."""
        pinned = list(self.pinned or ())
        weights = read_weights(self.weights or "")
        if weights and not pinned:
            raise RamoleError(
                "Weights were given without adapters; choose the adapters that they belong to, or "
                "empty the field."
            )
        return Request(
            self.prompt or "",
            method=self.method,
            k=whole(self.k, "k"),
            adapters=pinned or None,
            weights=weights or None,
            exclude=list(self.exclude or ()),
            max_new_tokens=whole(self.max_new_tokens, "The token limit"),
            temperature=float(self.temperature or 0),
            top_p=float(1 if self.top_p is None else self.top_p),
            seed=read_seed(self.seed or ""),
            stop=[line.replace("\\n", "\n") for line in (self.stop or "").splitlines() if line],
            system=self.system or None,
            raw=bool(self.raw),
            owner=owner,
            options=dict(self.options) or None,
            abstain=False if self.mix_anyway else None,
            examples=read_example_lines(self.examples or ""),
            mix=self.mix or None,
            effects=True,
        )


FIELDS = tuple(one.name for one in fields(Form) if one.name != "options")
"""Names of the fields that every method has, in order."""


def form_of(request: Request, *, beside: bool) -> Form:
    """Return the fields that repeat this request."""
    return Form(
        prompt=request.prompt,
        method=request.method,
        k=request.k,
        beside=beside,
        pinned=list(request.adapters or ()),
        weights=", ".join(
            f"{w:g}" if float(f"{w:g}") == w else str(w) for w in request.weights or ()
        ),
        exclude=list(request.exclude),
        max_new_tokens=request.max_new_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        seed="" if request.seed is None else str(request.seed),
        system=request.system or "",
        stop="\n".join(s.replace("\n", "\\n") for s in request.stop),
        raw=request.raw,
        mix_anyway=request.abstain is False,
        examples=lines_of(request.examples),
        mix=request.mix,
        options=dict(request.options or {}),
    )


BESIDE = ("history", "drop_turns", "trace")
"""Fields of a request that stand beside the form: those of the conversation."""


def unkept(form: Form, asked: Request) -> list[str]:
    """Fields of a request that the form does not ask for."""
    kept = form.request(asked.owner)
    names = [name for name in asked_fields(asked) if name not in BESIDE]
    return [name for name in names if getattr(kept, name) != getattr(asked, name)]


def read_weights(text: str) -> list[float]:
    """`0.7, 0.3` (or spaces between) as numbers; raises RamoleError for anything else."""
    words = re.split(r"[,;\s]+", text.strip()) if text.strip() else []
    try:
        return [float(word) for word in words]
    except ValueError:
        raise RamoleError(
            f"The weights {text.strip()!r} are not numbers; write them like 0.7, 0.3."
        ) from None


def read_seed(text: str) -> int | None:
    """A whole number, None for an empty text; raises RamoleError for anything else."""
    try:
        return int(text) if text.strip() else None
    except ValueError:
        raise RamoleError(f"The seed is {text.strip()!r}; give a whole number, or none.") from None
