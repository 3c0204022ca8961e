"""PEFT's adapters of a mixture's experts (`target_parameters`): served as by PEFT, and mixed."""

import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from ramole_core import AdapterRefused, Request, Settings
from ramole_core.base.architecture import model_class
from ramole_core.base.experts import Expert, experts_in, together
from ramole_core.base.routers import take_apart
from ramole_core.base.shapes import read_shapes
from ramole_core.composition import METHODS, Lora, LoraSet, Sites
from ramole_core.composition.llava_mole import own_names
from ramole_core.composition.trained import WeightsFolder
from ramole_core.export.merge import merge_adapters
from ramole_core.export.peft_folder import write_peft
from ramole_core.export.sources import read_sources
from ramole_core.pool import Pool
from ramole_core.training.mixed_model import MixedModel
from tests.laws.test_bases import LONG, MIDDLE, SHORT, close
from tests.support.served_base import RANKS, ServedBase
from tests.support.tiny_bases import BASES, save_tiny_base
from tests.support.tiny_methods import make_gates, make_trained

PARAMETERS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
KINDS = {
    "all-linear": {"target_modules": "all-linear"},
    "parameters": {"target_modules": [], "target_parameters": PARAMETERS},
    "down alone": {"target_modules": ["q_proj"], "target_parameters": PARAMETERS[1:]},
}
FAMILIES = ("mixtral", "qwen3_moe")
WEIGHTS = "adapter_model.safetensors"


def plain_model(base: Path):
    config = BASES[(base / "family").read_text()].config()
    return model_class(config).from_pretrained(base, dtype=torch.float32).eval()


def save_base(family: str, folder: Path) -> Path:
    save_tiny_base(BASES[family], folder)
    (folder / "family").write_text(family)
    return folder


@contextmanager
def silent():
    """What PEFT says of experts is not repeated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write_by_peft(base: Path, folder: Path, *, seed: int, **said) -> Path:
    """An adapter with random A and B."""
    with silent():
        model = get_peft_model(plain_model(base), LoraConfig(r=4, lora_alpha=8, **said))
    pick = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            size = weight.shape[1] ** -0.5 if "lora_A" in name else 0.5
            weight.data = torch.randn(weight.shape, generator=pick) * size
    with silent():
        model.save_pretrained(folder)
    return folder


@torch.inference_mode()
def peft_logits(served: ServedBase, folder: Path, text: str) -> torch.Tensor:
    with silent():
        model = PeftModel.from_pretrained(plain_model(served.folder), str(folder)).eval()
    ids = torch.tensor([served.ids(text)])
    return model(input_ids=ids, use_cache=False).logits[0, -1]


def opened_pool(base: Path) -> Pool:
    (base / "samples").mkdir(exist_ok=True)
    folders = {"adapters_dir": base / "samples", "data_dir": base / "data"}
    return Pool(shapes=partial(read_shapes, base), **folders)


class ServedPool(ServedBase):
    """Its adapters are those of a pool that took PEFT's folders."""

    def __init__(self, folder: Path, given: dict[str, Path]):
        self.given, self.cards = given, {}
        super().__init__(folder)
        with opened_pool(folder) as pool:
            self.cards = {name: pool.add(path, name=name) for name, path in given.items()}
            self.loras: dict[str, LoraSet] = {
                name: {path: Lora(A, B) for path, (A, B) in pool.tensors(card).modules.items()}
                for name, card in self.cards.items()
            }

    def adapter(self, content: str, rank: int) -> LoraSet:
        return self.loras[content]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_of_experts_is_served_as_peft_computes_it(family, kind, tmp_path):
    base = save_base(family, tmp_path / "base")
    folder = write_by_peft(base, tmp_path / "ant", seed=1, **KINDS[kind])
    served = ServedPool(base, {"ant": folder})
    bare = [served.own_logits(text) for text in (SHORT, MIDDLE, LONG)]
    found = served.logits([SHORT, MIDDLE, LONG], "selection", ["ant"])
    for n, text in enumerate((SHORT, MIDDLE, LONG)):
        assert close(found[n], peft_logits(served, folder, text))
        assert not close(found[n], bare[n])
    card = served.cards["ant"]
    assert {path.rpartition(".")[2] for path in card.ranks} >= {"down_proj"}
    assert set(card.scales.values()) == {2.0}
    numbers = sum(t.numel() for t in load_file(folder / WEIGHTS).values())
    assert card.parameters == numbers
    served.engine.close()


@pytest.fixture(params=["rows", "all"])
def way(request, monkeypatch):
    """Both ways of mixing: on a GPU all pages are read."""
    if request.param == "all":
        monkeypatch.setattr("ramole_core.layers.mixing.way_of", lambda batch: "all")


def written(base, folder, **kinds):
    """Adapters of these kinds by name."""
    return {
        name: write_by_peft(base, folder / name, seed=n, **KINDS[kind])
        for n, (name, kind) in enumerate(kinds.items())
    }


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_of_experts_are_mixed_token_by_token(family, tmp_path):
    base = save_base(family, tmp_path / "base")
    given = written(base, tmp_path, ant="all-linear", bee="parameters")
    served = ServedPool(base, given)
    bare = served.own_logits(LONG)
    found = served.logits([LONG, SHORT], "ramole", ["ant", "bee"])
    with served.mixed(["ant", "bee"]):
        assert close(found[0], served.own_logits(LONG)) and not close(found[0], bare)
        assert close(found[1], served.own_logits(SHORT))
    found = served.logits([LONG, MIDDLE], "mixture", ["ant", "bee"])
    with served.mixed(["ant", "bee"], even=True):
        assert close(found[0], served.own_logits(LONG)) and not close(found[0], bare)
        assert close(found[1], served.own_logits(MIDDLE))
    served.engine.close()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_request_is_traced_where_its_experts_were_chosen_alone(family, tmp_path):
    """Three requests at once, of which two use the adapters, in parts, with steps of one token."""
    base = save_base(family, tmp_path / "base")
    given = written(base, tmp_path, ant="parameters", bee="parameters")
    served = ServedPool(base, given)
    said = {"raw": True, "max_new_tokens": 5, "ignore_eos": True}
    both = [("ant", 4), ("bee", 4)]
    requests = [
        (Request(LONG, method="ramole", trace=True, **said), both),
        (Request(MIDDLE, method="base", **said), []),
        (Request("two", method="mixture", trace=True, **said), both[:1]),
    ]
    states = [served.submit(*one) for one in requests]
    served.finish()
    together = [served.heard.pop(state) for state in states]
    for one, heard in zip(requests, together, strict=True):
        assert served.alone(*one) == heard.tokens
    trace = together[0].answer.trace
    assert trace is not None
    places = served.engine.layout.places
    experts = [places.at[path][1] for path in EXPERTS]
    assert [places.modules[n] for n in experts] == [f"experts.{e}.gate_up_proj" for e in range(4)]
    fed = len(trace.tokens) - 1
    weights = trace.weights[:fed][:, 0, experts].sum(-1)
    counts = (weights > 0).sum(-1)
    assert (counts == 2).all(), "of four experts a token gets two"
    assert np.allclose(weights[weights > 0], 1, atol=1e-2)
    assert ((trace.contribution[:fed][:, 0, experts].sum(-1) > 0) == (weights > 0)).all()
    served.engine.close()


EXPERTS = [f"model.layers.0.mlp.experts.{e}.gate_up_proj" for e in range(4)]


@pytest.mark.parametrize("method", ["mixture", "ramole", "arrow", "lora_flow", "llava_mole"])
def test_the_plain_form_says_the_same(method, tmp_path):
    """Two rows with adapters of their own; gates of a module, a block and a parent."""
    base = save_base("qwen2_moe" if method == "llava_mole" else "qwen3_moe", tmp_path / "base")
    given = written(base, tmp_path, ant="all-linear", bee="parameters")
    served = ServedPool(base, given)
    sites = Sites(tuple(served.shapes), served.shapes)
    known = [(name, f"{name}_{RANKS[name]}") for name in given]
    served.trained |= make_trained(sites, rank=5, seed=3) | make_gates(sites, known)
    texts = ["a few words more", "two plus five is"]
    trained, loras = served.trained.get(METHODS[method].row.weights), served.loras
    rows = [["ant", "bee"], ["bee", "ant"]]
    found = [served.logits([text], method, row)[0] for text, row in zip(texts, rows, strict=True)]
    bare = served.logits(texts, "base")
    if METHODS[method].brings and trained is not None:
        loras = {one: trained.loras(f"{one}/") for one in own_names(trained)}
        rows, known = [list(loras)] * 2, [(one, one) for one in loras]
    plain = MixedModel(served.base, loras=loras, shapes=served.shapes, checksums=dict(known))
    ids = torch.tensor([served.ids(text) for text in texts])
    with torch.no_grad(), plain.mixing(METHODS[method], trained, names=rows, watch=True):
        said = plain.plain(input_ids=ids, use_cache=False).logits[:, -1]
        weights = plain.mixer.weights(2, ids.shape[1], len(rows[0]))
    for n in range(2):
        assert close(found[n], said[n]) and not close(found[n], bare[n])
    places = served.engine.layout.places.at  # some families have experts in some layers alone
    layer, column = next(at for path, at in places.items() if "experts.0.gate_up" in path)
    used = weights[:, :, layer, column : column + 1].sum(-1) > 0
    assert bool(used.any()) and not bool(used.all())
    plain.close()
    served.engine.close()


def refused(base: Path, folder: Path) -> str:
    with opened_pool(base) as pool:
        with pytest.raises(AdapterRefused) as error:
            pool.add(folder)
    said = str(error.value)
    assert "\n" not in said and said.endswith(".")
    return said


@pytest.mark.parametrize("family", FAMILIES)
def test_experts_run_together_where_nothing_is_mixed_in_them(family, tmp_path):
    """The code of transformers and ours, on the same memory."""
    model = plain_model(save_base(family, tmp_path / "base"))
    weights = model.get_parameter("model.layers.1.mlp.experts.down_proj")
    take_apart(model, keep=True)
    every, ids = experts_in(model), torch.tensor([[5, 7, 9, 11, 200, 3]])
    assert (
        len(every) == 2 and every[1].each()[3].down_proj.weight.data_ptr() == weights[3].data_ptr()
    )
    with torch.inference_mode():
        apart = model(input_ids=ids, use_cache=False).logits
        every[1].each()[3].down_proj.weight.mul_(2)
        other = model(input_ids=ids, use_cache=False).logits
        with together(every), mock.patch.object(Expert, "forward", side_effect=AssertionError):
            said = model(input_ids=ids, use_cache=False).logits
    assert close(other, said) and not close(apart, said)


def test_what_does_not_fit_the_experts_is_refused_in_a_sentence(tmp_path):
    base = save_base("mixtral", tmp_path / "base")
    folder = write_by_peft(base, tmp_path / "ant", seed=1, **KINDS["down alone"])
    whole = load_file(folder / WEIGHTS)

    def spoil(change) -> str:
        tensors = {
            name: change(name, tensor).contiguous() if "experts" in name else tensor
            for name, tensor in whole.items()
        }
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        return refused(base, folder)

    odd = spoil(lambda name, t: t[:-1] if "lora_A" in name else t[:, :-1])
    assert "15 rank units for 4 experts" in odd and "adapter trained on this base" in odd
    more = spoil(lambda name, t: t.repeat((2, 1) if "lora_A" in name else (1, 2)))
    assert "rank 8 for each of this base's 4 experts" in more and "says 4" in more
    wide = spoil(lambda name, t: t[:, :-1] if "lora_A" in name else t)
    assert "has 4 experts there and expects" in wide and "[48, 4 r] (down_proj)" in wide


def test_experts_of_another_kind_stay_refused(tmp_path):
    base = save_base("gpt_oss", tmp_path / "base")
    both = write_by_peft(base, tmp_path / "ant", seed=1, **KINDS["parameters"])
    one = write_by_peft(base, tmp_path / "bee", seed=1, **KINDS["down alone"])
    for folder in (both, one):
        said = refused(base, folder)
        assert "bare parameters" in said and "target_modules" in said and "3-D" in said


@pytest.mark.parametrize("kinds", [("all-linear", "parameters"), ("down alone", "down alone")])
def test_a_merge_of_experts_is_read_by_peft_and_by_the_pool(kinds, tmp_path):
    base = save_base("qwen3_moe", tmp_path / "base")
    given = written(base, tmp_path, **dict(zip(("ant", "bee"), kinds, strict=True)))
    (tmp_path / "adapters").mkdir()
    settings = Settings(
        base_model=str(base), adapters_dir=tmp_path / "adapters", data_dir=tmp_path / "data"
    )
    shapes = read_shapes(base)
    merged = merge_adapters(
        read_sources([str(path) for path in given.values()], settings=settings, shapes=shapes),
        "mixture",
        shapes=shapes,
        trained=WeightsFolder(settings.adapters_dir),
    )
    assert merged.exact
    folder = tmp_path / "merged"
    write_peft(merged, folder, shapes=shapes, base_name="made up")
    served = ServedPool(base, {**given, "cat": folder})
    found = served.logits([MIDDLE], "mixture", ["ant", "bee"])[0]
    assert close(peft_logits(served, folder, MIDDLE), found)
    assert close(served.logits([MIDDLE], "selection", ["cat"])[0], found)
    assert not close(served.own_logits(MIDDLE), found)
    for path, lora in served.loras["cat"].items():
        torch.testing.assert_close(lora.B @ lora.A, merged.loras[path].B @ merged.loras[path].A)
    served.engine.close()
