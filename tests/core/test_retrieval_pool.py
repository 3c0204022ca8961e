"""The retriever behind a real pool: what is added is found, by whom it may be, until removed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ramole_core.errors import RamoleError
from ramole_core.pool import Pool
from ramole_core.retrieval import AdapterIndex, Retriever
from tests.support.adapter_files import open_pool
from tests.support.pool_fakes import SHAPES, write_adapter, write_sample
from tests.support.retrieval_fakes import FakeEncoder


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    for seed, (name, example) in enumerate([("sql", "join two tables"), ("mood", "is it glad")]):
        write_sample(tmp_path / "samples", name, seed=seed, examples=[example])
    with open_pool(tmp_path, shapes=lambda: SHAPES) as opened:
        yield opened


@pytest.fixture
def retriever(pool: Pool, tmp_path: Path) -> Iterator[Retriever]:
    index = AdapterIndex(data_dir=tmp_path / "data")
    opened = Retriever(pool=pool, encoder=FakeEncoder(), index=index)
    pool.listeners.append(opened)
    yield opened
    opened.close()


def names(retriever: Retriever, text: str, owner: str | None = None) -> list[str]:
    return [hit.name for hit in retriever.retrieve(text, k=9, owner=owner)]


@pytest.mark.parametrize("used_before", [True, False])
def test_add_change_and_remove(
    used_before: bool, pool: Pool, retriever: Retriever, tmp_path: Path
) -> None:
    if used_before:
        assert sorted(names(retriever, "a glass of wine")) == ["mood", "sql"]
    source = write_adapter(tmp_path / "wine", seed=7, examples=["a glass of wine"])
    card = pool.add(source, name="wine", owner="zoe")
    assert names(retriever, "a glass of wine", "zoe")[0] == "wine"
    assert "wine" not in names(retriever, "a glass of wine")
    assert "wine" not in names(retriever, "a glass of wine", "adam")
    assert {hit.name for hit in retriever.neighbours(card, owner="zoe")} == {"mood", "sql"}
    pool.set_examples("wine", ["a pint of beer"], owner="zoe")
    best = retriever.retrieve("a pint of beer", k=1, owner="zoe")[0]
    assert (best.name, best.score) == ("wine", pytest.approx(1))
    pool.remove("wine", owner="zoe")
    assert sorted(names(retriever, "a pint of beer", "zoe")) == ["mood", "sql"]
    assert retriever.check().removed == ()


def test_ones_own_hides_the_shared_one_of_its_name(
    pool: Pool, retriever: Retriever, tmp_path: Path
) -> None:
    source = write_adapter(tmp_path / "mine", seed=7, examples=["join two tables"])
    pool.add(source, name="sql", owner="zoe")
    hits = retriever.retrieve("join two tables", k=9, owner="zoe")
    assert [(hit.name, hit.owner) for hit in hits] == [("sql", "zoe"), ("mood", None)]
    hits = retriever.retrieve("join two tables", k=9)
    assert [(hit.name, hit.owner) for hit in hits] == [("sql", None), ("mood", None)]


def test_an_adapter_that_cannot_be_embedded_is_not_added(
    pool: Pool, retriever: Retriever, tmp_path: Path
) -> None:
    retriever.check()

    def refuse(texts):
        raise RamoleError("The encoder is away.")

    retriever._encoder.embed = refuse  # type: ignore[method-assign]
    with pytest.raises(RamoleError, match="away"):
        pool.add(write_adapter(tmp_path / "wine", seed=7, examples=["wine"]), owner="zoe")
    assert [card.name for card in pool.cards("zoe")] == ["mood", "sql"]
