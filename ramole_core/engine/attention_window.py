"""The window of a model's attention mask, found by evaluating the mask's own function.

transformers composes a mask of functions (batch, head, query, key) -> visible. A forward of many
requests needs no mask tensor, only how many of the last tokens a query attends to: the function is
evaluated at a few places and compared with a causal mask and with sliding windows.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence

import torch
from transformers.masking_utils import causal_mask_function

Window = int | str | None
"""Number of the last tokens that are visible; None: all so far; str: why it is not known."""
FAR = 1 << 24
"""A position beyond every window."""
_found: dict[Hashable, Window] = {}


def window_of(sees: Callable, sizes: Iterable[int | None]) -> Window:
    """The window of a mask function; `sizes` are the windows that it may have."""
    if sees is causal_mask_function:
        return None
    windows = tuple(dict.fromkeys(w for w in sizes if w))
    parts = _parts_of(sees)
    if parts is None:
        return _ask(sees, windows)
    if (windows, parts) not in _found:
        _found[windows, parts] = _ask(sees, windows)
    return _found[windows, parts]


def _ask(sees: Callable, windows: Sequence[int]) -> Window:
    places = {0, 1, 5, *(at for w in windows for at in (w - 1, w, w + 1, 2 * w + 3))}
    asked = [(at, torch.arange(2 * at + 2)) for at in sorted(places)]
    asked.append((FAR, FAR - torch.tensor([-1, 0, 1, 100, 10_000, FAR // 2, FAR - 1, FAR])))
    first = torch.zeros((), dtype=torch.long)
    try:
        seen = [
            torch.as_tensor(sees(first, first, torch.full_like(keys, at), keys)).expand(len(keys))
            for at, keys in asked
        ]
    except Exception as error:  # of padding, images or blocks: it looks at other tensors
        return f"its mask depends on more than places ({error})"
    for window in (None, *windows):
        wanted = [(keys <= at) & (keys > at - (window or FAR + 1)) for at, keys in asked]
        if all(map(torch.equal, seen, wanted)):
            return window
    return "its mask is neither causal nor a sliding window"


def _parts_of(function: object) -> Hashable | None:
    """The parts of a function that determine its result; None: not known."""
    if isinstance(function, int | str | None):
        return function, type(function)
    if isinstance(function, tuple):
        parts = [_parts_of(part) for part in function]
        return None if None in parts else tuple(parts)
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    cells = [_parts_of(cell.cell_contents) for cell in getattr(function, "__closure__", None) or ()]
    return None if None in cells else (code, *cells)
