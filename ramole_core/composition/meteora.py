"""MeteoRA: a gate in every linear layer chooses the best adapters of a fixed pool for each token.

    G(x) = softmax over the top n of x W_gate                  (MeteoRA, arXiv 2405.13053, eq. 3-5)
    o = x W + sum_{i in top n} G(x)_i Delta o_i
    loss = language model + beta * mean cross-entropy(x W_gate, the row's own adapter)

`W_gate`, of size i x N and without a bias, is our W [k, i], their Delta o_i our v_i = B_i A_i x; x
is the input of the linear layer itself. The official code has n = 2 and beta = 50, begins as
`nn.Linear` does, teaches the gate on every token, of the prompt too, and divides the logits by a
temperature: 1, but 15, 20 and 30 where a prompt holds 3, 5 and 10 questions. In the paper all
adapters have all modules; here one that lacks a module keeps its share, so a gate that chooses it
leaves the base as it is.

Trained: W of every module, [k, i], on rows of the k adapters' own tasks, all adapters in the mix;
an adapter that comes later means training again. The paper trains 8B and 13B models over 28 LoRAs.

Cost: one product of k i numbers a module and token beside the k adapters' own k r (i + o); all k
responses are computed, then all but n get weight 0.

Claimed: 28 LoRAs of rank 8 in one Llama-2-13b or Llama-3-8b answer each one's task as well as that
LoRA alone ("equivalent performance"), and ten questions in one prompt are answered in turn.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from ramole_core.composition.decision import Ask, Decision, Gate, even
from ramole_core.composition.fixed_pool import FixedPool, inputs_of
from ramole_core.composition.lora import uniform
from ramole_core.composition.method import Watched, register
from ramole_core.composition.sites import Sites
from ramole_core.methods import Method, Option, Value


@register
class MeteoRA(FixedPool):
    row = Method(
        "meteora",
        "MeteoRA, arXiv 2405.13053",
        "a gate in every linear layer chooses two of the adapters that it was trained on",
        options=(
            Option("top", 2, 0, 64, "n, how many adapters share the weight; 0: all"),
            Option(
                "temperature",
                1.0,
                0.01,
                1000.0,
                "divides the gate's logits; the paper takes 15 to 30 for several questions at once",
            ),
        ),
        weights="_meteora",
        training=(Option("balance", 50.0, 0.0, 1000.0, "beta, of the gates' own cross-entropy"),),
    )

    def decide(self, ask: Ask) -> Decision:
        T = float(ask.options["temperature"])
        W = self.linear(ask, inputs_of(ask.sites))
        divided = W if T == 1 else {path: gate / T for path, gate in W.items()}
        gate = Gate(linear=divided, top=int(ask.options["top"]))
        return Decision(even(ask.present), gate=gate)

    def begin(
        self, sites: Sites, adapters: Sequence[tuple[str, str]], recipe: Mapping[str, Value]
    ) -> dict[str, Tensor]:
        """Uniform within 1/sqrt(i), as `nn.Linear` begins."""
        return {f"{path}.W": uniform(len(adapters), i) for path, (i, _) in sites.shapes.items()}

    def loss(self, watched: Watched, recipe: Mapping[str, Value]) -> Tensor | float:
        return recipe["balance"] * watched.own_cross_entropy()
