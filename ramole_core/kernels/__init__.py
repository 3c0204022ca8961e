"""Batch-invariant products, attention and mixing, compiled for the CPU at hand.

Every number is summed in an order of its own, fixed by the sizes of the model, so that a token gets
the same bits alone, in any batch, in a chunk of any size, and when it is fed again.
"""
