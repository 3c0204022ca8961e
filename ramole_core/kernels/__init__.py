"""Compiled for the CPU it runs on: products, attention and mixing whose bits no batch can change.

Every number is summed in an order of its own, fixed by the sizes of the model, so that a token gets
the same bits alone, in any batch, in a chunk of any size, and when it is fed again.
"""
