"""The packages of a wheel: those of code, with the sample pool and the measured results as data.

Both folders stand at the top of the repository, and inside `ramole_core` once installed. They are
data and nothing that is fetched: the pool's cards, calibration and trained weights belong to this
very version, an installation works without a network, and the wheel stays below 100 MB.
"""

from setuptools import find_packages, setup

DATA = {"ramole_core.adapters": "adapters", "ramole_core.results": "results"}

setup(
    packages=[*find_packages(include=["ramole_core*", "ui*", "lab*"]), *DATA],
    package_dir=DATA,
)
