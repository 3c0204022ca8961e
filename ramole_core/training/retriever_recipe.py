"""The retriever's recipe: all settings of its training run."""

from dataclasses import dataclass

from ramole_core.errors import RamoleError
from ramole_core.retrieval.tuning import Window
from ramole_core.training.recipe import Schedule
from ramole_core.training.retriever_metric import MetricRecipe


@dataclass(frozen=True)
class RetrieverRecipe:
    """A LoRA on the sentence encoder, and the metric after it."""

    rank: int = 8
    """r of the LoRA."""
    alpha: float = 16.0
    """alpha of the LoRA; its scale is alpha / r."""
    modules: tuple[str, ...] = ("query", "key", "value", "dense")
    """Linear modules of the encoder that get a LoRA."""
    window: Window = Window(40, 40)
    """Tokens that are read of each text."""
    temperature: float = 0.05
    """tau of the loss."""
    tasks: int = 24
    """Tasks in one step; the rows of a step are shared out evenly among them."""
    schedule: Schedule = Schedule(
        steps=40, batch_rows=96, learning_rate=5e-4, warmup=8, evaluate_every=20
    )
    """How long and how fast it learns; `batch_rows` are texts."""
    metric: MetricRecipe = MetricRecipe()
    """What follows the LoRA, fitted to its vectors."""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or self.temperature <= 0:
            raise RamoleError(
                f"rank {self.rank}, alpha {self.alpha} and temperature {self.temperature} must all "
                "be positive: raise them."
            )
        if self.tasks < 2 or self.schedule.batch_rows < 2 * self.tasks:
            raise RamoleError(
                f"{self.schedule.batch_rows} rows a step for {self.tasks} tasks: a step needs two "
                "tasks or more, and two texts of each."
            )
