"""Loops in LLVM whose sums stay in registers, and that take as many rows at once as there are."""

from collections.abc import Callable, Sequence

from ramole_core.kernels.vectors import WORD, word


def accumulate(builder, end, step: int, first: list, body: Callable) -> list:
    """For at in range(0, end, step): values = body(at, values), at first `first`; at least one
    turn. Returns the last values."""
    start, loop = builder.block, builder.append_basic_block("loop")
    done = builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    at, values = builder.phi(WORD), [builder.phi(value.type) for value in first]
    after = body(at, values)
    onward = builder.add(at, word(step))
    for value, begin, new in zip([at, *values], [word(0), *first], [onward, *after], strict=True):
        value.add_incoming(begin, start)
        value.add_incoming(new, builder.block)
    builder.cbranch(builder.icmp_signed("<", onward, end), loop, done)
    builder.position_at_end(done)
    return after


def in_steps(builder, count, sizes: Sequence[int], body: Callable) -> None:
    """Call body(at, size) from 0 up to `count`: the largest sizes first, each while there is room
    for it. `count` is a whole number of the last."""
    begin = word(0)
    for size in sizes:
        before, head = builder.block, builder.append_basic_block("head")
        one, done = builder.append_basic_block("one"), builder.append_basic_block("rest")
        builder.branch(head)
        builder.position_at_end(head)
        at = builder.phi(WORD)
        onward = builder.add(at, word(size))
        builder.cbranch(builder.icmp_signed("<=", onward, count), one, done)
        builder.position_at_end(one)
        body(at, size)
        at.add_incoming(begin, before)
        at.add_incoming(onward, builder.block)
        builder.branch(head)
        builder.position_at_end(done)
        begin = at
