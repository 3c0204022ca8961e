"""The key-value cache of all requests: a bounded number of pages, equal prefixes shared.

A request opens a sequence: pages whose tokens it begins with are taken as they are, tokens of a
page that it has in part are copied, and room for all the rest is set aside, so that it never waits
again. What it commits can be found by others at once, and after it was closed until the room is
needed.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float16, Int64
from torch import Tensor
from transformers import PreTrainedModel

from ramole_core.engine.pages import (
    PAGE,
    KvSequence,
    Page,
    PageMemory,
    PagePool,
    PrefixTree,
    pages_of,
)
from ramole_core.errors import RamoleError
from ramole_core.kernels.vectors import padded
from ramole_core.layers import short_length

KINDS = ("full_attention", "sliding_attention")
TRACE_SHARE = 8
"""Trace rows of pages kept for later requests take at most this part of the cache's limit,
beside it."""


class KvCache:
    """The pages of one model, at most `limit` bytes."""

    def __init__(self, model: PreTrainedModel, *, limit: int):
        """Raises RamoleError for a model with layers that are not attention."""
        config = model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or KINDS) - set(KINDS)
        if kinds:
            raise RamoleError(
                f"The base model has layers of type {', '.join(sorted(kinds))}, and the engine "
                "keeps keys and values of attention layers only; choose another base model."
            )
        heads = next(
            n
            for name in ("num_key_value_heads", "num_kv_heads", "num_attention_heads")
            if (n := getattr(config, name, None))
        )
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        numbers = config.num_hidden_layers * heads * (size + padded(size))
        self.token_bytes = numbers * model.dtype.itemsize
        self.page_bytes = PAGE * self.token_bytes
        self.limit = limit
        self.memory = PageMemory(limit // self.page_bytes)
        self._tree = PrefixTree()
        self._pool = PagePool(self.memory, self._tree, trace_limit=limit // TRACE_SHARE)
        self._open: set[KvSequence] = set()
        self._short = short_length(model)

    @property
    def nbytes(self) -> int:
        return self.memory.nbytes

    @property
    def held_bytes(self) -> int:
        """Bytes of the pages of open sequences, shared ones counted once."""
        return self._pool.held * self.page_bytes

    @property
    def cached_bytes(self) -> int:
        """Bytes of the pages kept for later requests with the same prefix, and of their trace
        rows."""
        return self._pool.cached * self.page_bytes + self._pool.trace_bytes

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest sequence that could be opened in an empty cache."""
        return self.memory.most * PAGE

    def check(self, tokens: int) -> None:
        """Raise RamoleError where a sequence of that length could never be opened."""
        if tokens > self.max_tokens:
            raise RamoleError(
                f"The prompt and its answer may take {tokens} tokens, and the cache of keys and "
                f"values holds {self.max_tokens}; shorten them, or raise RAMOLE_KV_CACHE_MB."
            )

    @staticmethod
    def content(ids: Sequence[int], keys: Sequence[tuple[int, bytes]]) -> Int64[np.ndarray, "n 3"]:
        """What identifies each token: its id, and the 16-byte key of how it is mixed.

        `keys` are (end, key) of runs of tokens, in order, up to len(ids).
        """
        found = np.empty((len(ids), 3), np.int64)
        found[:, 0] = ids
        start = 0
        for end, key in keys:
            found[start:end, 1:] = np.frombuffer(key, np.int64)
            start = end
        return found

    # --- sequences ----------------------------------------------------------------------------

    def open(
        self,
        content: Int64[np.ndarray, "n 3"],
        length: int,
        *,
        traced: bool = False,
        becomes: int = 0,
    ) -> KvSequence | None:
        """Open a sequence of at most `length` tokens that begins with `content`; None where there
        is no room now. `becomes` is the length of the request that it is read for, where that is
        more.

        It begins with what is here already, but for the last token of `content`. With `traced`
        only with tokens whose trace is here, or needs none.
        """
        sequence = KvSequence(length, long=self._is_long(max(length, becomes)))
        content = _marked(content, sequence)
        shared, above = [], self._tree.root
        for at in range(0, len(content) - PAGE, PAGE):
            page, n = self._tree.find(above, content[at : at + PAGE], traced=traced)
            if page is None or n < PAGE:
                break
            shared.append(page)
            above = page
        promised = sum(other.most - len(other.pages) for other in self._open)
        more = sequence.most - sum(page.refs > 0 for page in shared)
        if self._pool.held + promised + more > self.memory.most:
            return None
        self._open.add(sequence)
        try:
            self._extend(sequence, content, traced=traced)
        except BaseException:
            self.close(sequence)
            raise
        return sequence

    def _is_long(self, length: int) -> bool:
        return self._short is not None and length > self._short

    def extend(
        self, sequence: KvSequence, content: Int64[np.ndarray, "n 3"], *, traced: bool = False
    ) -> int:
        """Take over further tokens of `content` that others have read; returns how many.

        `content` begins with what is in it; its last token stays to be fed.
        """
        return self._extend(sequence, _marked(content, sequence), traced=traced)

    def _extend(
        self, sequence: KvSequence, content: Int64[np.ndarray, "n 3"], *, traced: bool
    ) -> int:
        before, last = sequence.length, len(content) - 1
        self._drop_unwritten(sequence)
        while sequence.length < last:
            at, start = divmod(sequence.length, PAGE)
            own = sequence.pages[at] if start else None
            wanted = content[at * PAGE : min(last, (at + 1) * PAGE)]
            above = sequence.pages[at - 1] if at else self._tree.root
            source, n = self._tree.find(above, wanted, traced=traced, besides=own)
            if source is None or n <= start:
                break
            if n == PAGE:
                if own is not None:
                    source.take_traces(own, start)
                self._replace(sequence, at, source)
            else:
                self._copy(sequence, at, source, n)
            sequence.length = at * PAGE + n
        return sequence.length - before

    def reach(self, sequence: KvSequence, end: int) -> None:
        """Reserve pages for the tokens up to `end`, which are written next."""
        for at in range(len(sequence.pages), pages_of(end)):
            sequence.put(at, self._pool.new())

    def commit(
        self,
        sequence: KvSequence,
        content: Int64[np.ndarray, "n 3"],
        gates: Float16[Tensor, "n 2 layer module k"] | None = None,
        *,
        traced: bool = False,
    ) -> None:
        """Append these written tokens and make them findable for other requests.

        `gates` is their trace; without it, `traced` says that they need none.
        """
        content = _marked(content, sequence)
        known = traced or gates is not None
        done = 0
        while done < len(content):
            at, start = divmod(sequence.length, PAGE)
            n = min(PAGE - start, len(content) - done)
            rows = [None] * n if gates is None else list(gates[done : done + n].clone())
            above = sequence.pages[at - 1] if at else self._tree.root
            twin = self._tree.add(
                sequence.pages[at],
                above,
                content[done : done + n],
                gates=rows,
                traced=np.full(n, known),
            )
            if twin is not None:
                self._replace(sequence, at, twin)
            sequence.length += n
            done += n

    def close(self, sequence: KvSequence, *, keep: bool = True) -> None:
        """Close a sequence; its pages stay findable until their room is needed, or without `keep`
        only while others hold them."""
        self._drop_unwritten(sequence)
        for page in reversed(sequence.pages if not keep else ()):
            if page.refs == 1 and not page.below and page.above is not None:
                self._tree.remove(page)
        if keep and sequence.length % PAGE:
            self._drop_duplicate(sequence.pages[-1])
        while sequence.pages:
            self._pool.release(sequence.pages.pop())
        sequence.length = 0
        self._open.discard(sequence)

    def forget(self) -> None:
        self._pool.forget()

    def _replace(self, sequence: KvSequence, at: int, page: Page) -> None:
        """Replace a page of a sequence by a shared one."""
        self._pool.hold(page)
        if at < len(sequence.pages):
            own = sequence.pages[at]
            if own.above is not None:
                self._tree.remove(own)
            self._pool.release(own)
        sequence.put(at, page)

    def _copy(self, sequence: KvSequence, at: int, source: Page, n: int) -> None:
        """Copy the first n tokens of a page into the sequence's own. A page that no sequence holds
        is taken instead, where it has no more tokens or is the last one left."""
        self._pool.hold(source)
        try:
            if at == len(sequence.pages):
                if source.refs == 1 and (source.count == n or not self._pool.has_room()):
                    if source.count > n:
                        self._tree.cut(source, n)
                    self._pool.hold(source)
                    sequence.put(at, source)
                    return
                sequence.put(at, self._pool.new())
            own, above = sequence.pages[at], sequence.pages[at - 1] if at else self._tree.root
            start = own.count
            self.memory.copy(source.number, own.number, start=start, end=n)
            self._tree.add(
                own,
                above,
                source.content[start:n],
                gates=source.gates[start:n],
                traced=source.traced[start:n],
            )
        finally:
            self._pool.release(source)

    def _drop_unwritten(self, sequence: KvSequence) -> None:
        """Drop pages that a forward was to write and did not."""
        while len(sequence.pages) > pages_of(sequence.length):
            self._pool.release(sequence.pages.pop())

    def _drop_duplicate(self, page: Page) -> None:
        """Drop a duplicate page from the prefix tree."""
        above, content = page.above, page.content[: page.count]
        assert above is not None
        known = bool(page.traced[: page.count].any())
        if self._tree.find(above, content, traced=known, besides=page)[1] == page.count:
            self._tree.remove(page)


LONG_OFFSET = 1 << 40
"""Added to the token ids of long sequences, so that short ones share none of their pages."""


def _marked(content: Int64[np.ndarray, "n 3"], sequence: KvSequence) -> Int64[np.ndarray, "n 3"]:
    return content + np.array([LONG_OFFSET, 0, 0]) if sequence.long else content
