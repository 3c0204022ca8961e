"""LLaVA-MoLE: in every MLP one of several LoRAs, chosen for each token; one LoRA in the attention.

    z = W_r x + c,   p = softmax(z),   e = argmax z            (LLaVA-MoLE, arXiv 2401.16160, eq. 3)
    y = W x + B_e A_e x    in gate, up and down, with the same e                            (eq. 4)
    loss = LM + beta sum_j mean(p_j) mean([e = j])                                       (eq. 5, 6)

| paper | here |
|---|---|
| x, the MLP's input | the input of the modules' parent (`Gate.per = "parent"`), after its norm |
| W_r, c of the router | `router/<parent>.W` [n, i], `.c` [n] |
| E_j, expert j | the LoRA `expert_j`: `expert_j/<module path>.A`, `.B`, alpha/r folded into B |
| LoRA of the attention | `attention/<module path>.A`, `.B` |

The weight of the chosen expert is 1, which has no gradient: the router would learn from the balance
loss alone, as it does in the authors' code (forwchen/LLaVA-MoLE, `moe.py`: what it multiplies with
is the choice itself). In training its value is straight-through, [e = j] + p_j - stop(p_j), so the
language model's loss reaches it as if the weight were p. Balance is taken over the tokens of the
rows, padding left out, and averaged over the blocks. What is image and what is text, a block does
not know: it reads vectors (a test runs it in a vision-language model).

Experts, router and attention LoRA are trained together on a mixture of data sets, so a request of
this method has no adapters of the pool: it brings its own, and the trace shows them under these
names.

Trained: n experts, a router in each MLP and the attention's LoRA, all at once, on rows of several
tasks mixed, by `train method llava_mole`; the base stays as it is.

Cost: of a token that of one LoRA of rank r in each module, and n x i numbers in the router of each
MLP; the served form on a CPU computes the units of the chosen expert alone.

Claimed: on a mixture of document, medical and general visual instructions, where one LoRA loses to
those trained apart, three experts are better than one LoRA even where that has twice the samples
(unsure of the numbers).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ramole_core.composition.decision import Ask, Decision, Gate, Signal
from ramole_core.composition.lora import uniform, wide
from ramole_core.composition.method import Candidate, Composition, register
from ramole_core.composition.sites import Sites, parent_of
from ramole_core.composition.trained import Trained, scaled
from ramole_core.errors import RamoleError
from ramole_core.methods import Method, Option, Value

ATTENTION = "attention"
MLP = ("mlp", "feed_forward", "ffn", "block_sparse_moe")
"""What a model may call the module that holds an MLP's layers."""
Hook = Callable[[str, Float[Tensor, "*l n"]], None]
"""Called with each MLP's path, and p."""


@register
class LlavaMole(Composition):
    row = Method(
        "llava_mole",
        "LLaVA-MoLE, arXiv 2401.16160",
        "its own experts: in each MLP one of several LoRAs for every token, one in the attention",
        weights="_llava_mole",
        training=(
            Option("experts", 3, 1, 16, "n, LoRAs in each MLP"),
            Option("rank", 8, 1, 64, "r of each LoRA"),
            Option("alpha", 16.0, 1e-3, 1e3, "alpha/r is folded into B when it is written"),
            Option("balance", 0.01, 0.0, 10.0, "beta, of the balance loss"),
        ),
    )

    brings = True

    def experts(self, k: int) -> int:
        return 0

    def bring(
        self, candidates: Sequence[Candidate], trained: Trained | None
    ) -> Sequence[Candidate]:
        """The experts and the attention's LoRA."""
        if trained is None:
            return ()
        return [own_candidate(trained, name) for name in own_names(trained)]

    def decide(self, ask: Ask) -> Decision:
        assert ask.trained is not None  # the row names them
        routers = routers_of(ask.trained)
        offset = torch.zeros(len(ask.sites.paths), ask.k)
        for at, path in enumerate(ask.sites.paths):
            if found := routers.get(parent_of(path)):
                offset[at, :-1] = found[1]
        linear = {
            path: torch.cat([W.float(), W.new_zeros(1, W.shape[1]).float()])
            for path, (W, _) in routers.items()
        }
        gate = Gate(linear=linear, per="parent", offset=offset, top=1, keeps=False)
        return Decision(ask.present.float(), gate=gate)


def own_names(trained: Trained) -> list[str]:
    """`expert_0` and so on, and the attention's LoRA last."""
    names = {name.partition("/")[0] for name in trained.tensors} - {ATTENTION, "router"}
    return [*sorted(names, key=lambda name: int(name.rpartition("_")[2])), ATTENTION]


def own_candidate(trained: Trained, name: str) -> Candidate:
    """One of them, known by the file's checksum and its name."""
    checksum = hashlib.sha256(f"{trained.checksum} {name}".encode()).hexdigest()
    return Candidate(name, float("nan"), checksum, lambda: trained.loras(f"{name}/"))


def routers_of(trained: Trained) -> dict[str, tuple[Float[Tensor, "n i"], Float[Tensor, "n"]]]:
    """W and c of the router of each MLP, by its path."""
    return {
        key[len("router/") : -len(".W")]: (W, trained.tensors[f"{key[:-1]}c"])
        for key, W in trained.tensors.items()
        if key.startswith("router/") and key.endswith(".W")
    }


def decision_in_training(trained: Trained, ask: Ask, *, hook: Hook | None = None) -> Decision:
    """The decision of `decide`, with the gradient of `choose`; `hook` gets each router's p."""
    routers = routers_of(trained)

    def score(signal: Signal) -> Float[Tensor, "*l k"]:
        x = wide(signal.x)
        alone = x.new_zeros(*x.shape[:-1], ask.k)
        alone[..., -1] = 1.0
        if signal.path not in routers:
            return alone
        W, c = (one.to(x) for one in routers[signal.path])
        p = (x @ W.T + c).softmax(-1)
        if hook is not None:
            hook(signal.path, p)
        return torch.cat([choose(p), alone[..., -1:]], dim=-1)

    gate = Gate(score=score, per="parent", softmax=False, keeps=False)
    return Decision(ask.present.float(), gate=gate)


def choose(p: Float[Tensor, "*l n"]) -> Float[Tensor, "*l n"]:
    """1 for the largest, the first of equals, and 0 for the others; its gradient is p's."""
    hard = torch.zeros_like(p).scatter(-1, p.argmax(-1, keepdim=True), 1.0)
    return hard + (p - p.detach())


def balance(p: Float[Tensor, "m n"]) -> Float[Tensor, ""]:
    """sum_j mean(p_j) mean([e = j]) over m tokens of one block; 1/n where all share alike."""
    chosen = torch.zeros_like(p).scatter(-1, p.argmax(-1, keepdim=True), 1.0).detach()
    return (p.mean(0) * chosen.mean(0)).sum()


def is_mlp(path: str) -> bool:
    """Whether a module is one of an MLP's layers."""
    return parent_of(path).rpartition(".")[2] in MLP


def begin(sites: Sites, recipe: Mapping[str, Value]) -> dict[str, Tensor]:
    """The start of training: for every expert and the attention A as PEFT draws it, and B = 0;
    routers small and random, so that equal experts diverge. Seed torch's own generator before.

    Raises RamoleError where the model has no MLP that is known here.
    """
    n, rank, tensors = int(recipe["experts"]), int(recipe["rank"]), {}
    mlps: dict[str, int] = {}
    for path, (i, o) in sites.shapes.items():
        inside = is_mlp(path)
        if inside:
            mlps.setdefault(parent_of(path), i)  # the first of its layers reads its input
        for name in [f"expert_{j}" for j in range(n)] if inside else [ATTENTION]:
            tensors[f"{name}/{path}.A"] = uniform(rank, i)
            tensors[f"{name}/{path}.B"] = torch.zeros(o, rank)
    if not mlps:
        raise RamoleError(
            f"The base model has no module called {', '.join(MLP)}, and the experts of llava_mole "
            "are LoRAs in MLPs; choose another base, or another method."
        )
    for path, i in mlps.items():
        tensors[f"router/{path}.W"] = torch.randn(n, i) * 0.1 * i**-0.5
        tensors[f"router/{path}.c"] = torch.zeros(n)
    return tensors


def fold(tensors: Mapping[str, Tensor], recipe: Mapping[str, Value]) -> dict[str, Tensor]:
    """The trained tensors as `decide` reads them: alpha/r folded into B."""
    return scaled(tensors, ".B", recipe["alpha"] / recipe["rank"])
