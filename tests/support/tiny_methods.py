"""What a method is asked, with adapters made up; for laws over the registry."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b

import torch

from ramole_core.composition import (
    METHODS,
    Adapter,
    Ask,
    Candidate,
    FixedPool,
    Lora,
    Response,
    Sites,
    Trained,
    decide,
    llava_mole,
    orthonormal,
)
from ramole_core.errors import RamoleError
from ramole_core.layers.plain import PlainMix, place
from ramole_core.methods import complete_options

NAMES = ("ant", "bee", "cat", "dog")
SCORES = dict(zip(NAMES, (0.31, 0.44, 0.40, 0.1), strict=True))
SURPRISES = dict(zip(NAMES, (-0.4, 0.3, 0.9, 0.0), strict=True))
KNOWN = (*NAMES, "bee_7", "cat_4")
"""Checksums of adapters that were trained further for `ca_lora`."""
USUAL = dict(zip(NAMES, ((0.5, 0.3), (-0.2, 0.7), (1.0, 0.2), (0.1, 1.1)), strict=True))
SHARES = dict(zip(NAMES, (0.1, 0.4, 0.3, 0.2), strict=True))


def kept_by_draw(lora: Lora, half: str, shape: Sequence[int], drop: float) -> torch.Tensor:
    """DARE's mask: uniform numbers of a generator whose seed is a digest of name and weights."""
    bits = half.encode() + b"".join(bytes(t.contiguous().numpy()) for t in (lora.A, lora.B))
    seed = int.from_bytes(blake2b(bits, digest_size=8).digest(), "little") // 2
    pick = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=pick, dtype=torch.float32) >= drop


def adapter_of(
    name: str, loras: Mapping[str, Lora], sites: Sites, usual: torch.Tensor | None = None
) -> Adapter:
    """An adapter as a method is told of it; `usual` [module, 2]."""
    present = torch.tensor([path in loras for path in sites.paths])
    n = len(sites.paths)
    if usual is None:
        usual = torch.tensor(USUAL.get(name, (0.0, 1.0))).repeat(n, 1)
    mean, deviation = usual.unbind(-1)
    response = Response(mean + SURPRISES.get(name, 0.0) * deviation, usual, present)
    return Adapter(
        name,
        name,
        present,
        {path: orthonormal(lora) for path, lora in loras.items()},
        max((lora.A.shape[0] for lora in loras.values()), default=0),
        score=SCORES.get(name, float("nan")),
        response=response,
        usual=usual,
        share=SHARES.get(name, float("nan")),
    )


def plain_of(
    method: str,
    pool: Mapping[str, Mapping[str, Lora]],
    sites: Sites,
    *,
    trained: Mapping[str, Trained],
    weights: Sequence[float] | None = None,
    options: Mapping[str, object] | None = None,
    usual: Mapping[str, torch.Tensor] | None = None,
) -> PlainMix:
    """The method's decision over these adapters, in their order, placed in the plain form."""
    names = list(pool)[: METHODS[method].experts(len(pool))]
    found = trained.get(METHODS[method].row.weights) if weights is None else None
    given = [Candidate(n, SCORES[n], n, lambda n=n: pool[n]) for n in names]
    pool = {one.name: one.load() for one in METHODS[method].bring(given, found)}
    adapters = [adapter_of(n, pool[n], sites, usual and usual.get(n)) for n in pool]
    ask = Ask(
        tuple(adapters),
        sites,
        complete_options(method, options),
        None if weights is None else tuple(weights),
        found,
        made_up_means(sites) if METHODS[method].reads_prompt else None,
    )
    decision = decide(METHODS[method], ask)
    loras = [adapter.loras for adapter in adapters]
    return place(decision, loras, sites, uploaded=list(pool.values()))


def made_up_means(sites: Sites) -> dict[str, torch.Tensor]:
    """A prompt's mean input of each block."""
    return {
        block: 2 * (torch.arange(1, d + 1) * (0.9 + 0.3 * n)).sin() + 0.2
        for n, (block, d) in enumerate(sites.blocks.items())
    }


def make_trained(sites: Sites, *, rank: int, seed: int = 0) -> dict[str, Trained]:
    """Trained weights by folder: a RouterLoRA that says something, gates of `NAMES`, LoRAs trained
    further, experts with their routers."""
    pick = torch.Generator().manual_seed(seed)
    tensors = {}
    for path, (i, o) in sites.shapes.items():
        tensors[f"{path}.A_r"] = torch.randn(rank, i, generator=pick)
        tensors[f"{path}.B_r"] = torch.randn(o, rank, generator=pick) * o**-0.5
    made = {
        "_router": Trained(tensors, f"made up {rank} {seed}"),
        **make_gates(sites, [(name, name) for name in NAMES]),
        "_ca_lora": make_recovered(sites, known=KNOWN, seed=seed),
    }
    with suppress(RamoleError):  # a base without MLP modules has no experts in them
        made["_llava_mole"] = make_mole(sites, seed=seed)
    return made


def make_gates(
    sites: Sites, known: Sequence[tuple[str, str]], *, only: str = ""
) -> dict[str, Trained]:
    """Weights by folder of every method of a fixed pool, (name, checksum) each, away from their
    start; what they hold of an adapter depends on its checksum alone. `only`: of one folder."""
    codes = torch.tensor([sum(c.encode()) % 97 + 1 for _, c in known], dtype=torch.float64)
    record = {"adapters": [{"name": name, "checksum": checksum} for name, checksum in known]}
    made = {}
    for name, method in METHODS.items():
        if not (isinstance(method, FixedPool) and method.row.training) or name.startswith("trial"):
            continue
        if only not in ("", method.row.weights):
            continue
        recipe = {option.name: option.default for option in method.row.training}
        with torch.random.fork_rng():
            start = method.begin(sites, known, recipe)
        tensors = {}
        for salt, (key, tensor) in enumerate(start.items()):
            grid = 0.7 * torch.arange(1, tensor[0].numel() + 1 if tensor.ndim else 2)
            waves = codes[:, None] * grid.double() + salt
            if key.endswith(".M"):  # of each pair of adapters
                pairs = (codes[:, None] + 1.9 * codes)[..., None]
                waves = pairs * 0.7 * torch.arange(1, tensor.shape[-1] + 1).double() + salt
            value = 0.6 * waves.sin().to(torch.get_default_dtype())
            tensors[key] = value.reshape(tensor.shape) if tensor.ndim else value[0, 0] * 0 - 0.5
        checksums = " ".join(checksum for _, checksum in known)
        made[method.row.weights] = Trained(
            method.finish(tensors, recipe), f"made up {name} {checksums}", record
        )
    return made


def make_mole(sites: Sites, *, experts: int = 3, seed: int = 0) -> Trained:
    """Experts of rank 2 for `llava_mole`, with routers that choose all of them."""
    pick = torch.Generator().manual_seed(seed)
    recipe = {"experts": experts, "rank": 2}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        start = llava_mole.begin(sites, recipe)
    tensors = {n: t + 0.7 * torch.randn(t.shape, generator=pick) for n, t in start.items()}
    return Trained(tensors, f"made up experts {seed}")


def make_recovered(
    sites: Sites, *, known: Sequence[str], names: Sequence[str] = (), seed: int = 0
) -> Trained:
    """Adapters of these checksums after training for `ca_lora`, of rank 3 with bypasses of rank 2:
    all away from their start, and each of its own."""
    pick = torch.Generator().manual_seed(seed)
    tensors = {}
    for n in range(len(known)):
        for path, (i, o) in sites.shapes.items():
            for r, down, up in ((3, "A", "B"), (2, "a1", "a2")):
                tensors[f"{n}/{path}.{down}"] = torch.randn(r, i, generator=pick) * i**-0.5
                tensors[f"{n}/{path}.{up}"] = torch.randn(o, r, generator=pick) * 0.7
    pairs = zip(names or known, known, strict=True)
    config = {"adapters": [{"name": name, "checksum": checksum} for name, checksum in pairs]}
    return Trained(tensors, f"made up recovered {seed}", config)
