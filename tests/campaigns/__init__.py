"""Campaigns: thousands of random mishaps, each repeatable by its seed, and what came of them.

`python -m tests.campaigns NAME --count N --seed S` runs one; with `--out results/reliability.json`
its figures go there. The suite runs each in short.
"""
