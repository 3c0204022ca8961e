"""Models for tests: a tiny random Llama that answers in milliseconds, and the real base model."""

import atexit
import os
import random
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ramole_core.base.fetch import fetch_base
from ramole_core.process_memory import settle
from ramole_core.settings import Settings
from tests.support.started import count_engines

if "GRADIO_TEMP_DIR" not in os.environ:  # Gradio's own is one folder for all users of a machine
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="ramole-tests-")
    atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)
LONGEST = (
    *("serving/test_ray", "core/test_recipes", "lab/test_other_base", "laws/test_bases_refused"),
    *("units/test_kernels", "core/test_cli", "laws/test_triton_mixing", "laws/test_bases"),
    *("page/test_campaigns", "page/test_api", "page/test_load", "page/test_own_base_doors"),
    *("units/test_report", "laws/test_exact", "browser/test_ask", "browser/test_pool"),
    *("browser/test_batch",),
)
"""Files that take a quarter of a minute or more."""
SLOW = (
    *("core/test_base_fetch", "core/test_base_model_loading", "core/test_calibrate"),
    *("core/test_cli_batch", "core/test_cli_server", "core/test_docs_commands"),
    *("core/test_gpu_check", "core/test_hub", "core/test_hub_answers", "core/test_old_data_dir"),
    *("core/test_pool_words", "core/test_ramole", "core/test_retrieval_encoder"),
    *("core/test_retrieval_index", "core/test_training", "core/test_wheel"),
    *("laws/test_containment", "laws/test_effects", "laws/test_engine", "laws/test_exact_real"),
    *("laws/test_expert_parameters", "laws/test_fake_card", "laws/test_harm_index"),
    *("laws/test_left_out", "laws/test_lorahub", "laws/test_served_layers", "laws/test_switches"),
    *("laws/test_trial_methods", "units/test_kernel_team"),
)
"""Others that `make quick` leaves out: each takes four seconds or more."""
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")  # a busy machine makes no example wrong
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def pytest_addoption(parser):
    parser.addoption("--shuffle", type=int, help="run files, and tests in each, in a random order")
    parser.addoption("--quick", action="store_true", help="leave out the files that take long")


def pytest_collection_modifyitems(config, items):
    """The longest files first, or a worker is left alone with one of them in the end; browser tests
    last, as `browser/conftest.py` says."""
    order = {name: n for n, name in enumerate(LONGEST)}
    files = {item.path: f"{item.path.parent.name}/{item.path.stem}" for item in items}
    seed = config.getoption("--shuffle")
    if config.getoption("--quick"):
        slow = {path for path, name in files.items() if name in (*LONGEST, *SLOW)}
        config.hook.pytest_deselected(items=[item for item in items if item.path in slow])
        items[:] = [item for item in items if item.path not in slow]

    def place(item):
        name = files[item.path]
        chance = random.Random(f"{seed} {name}").random() if seed is not None else 0
        return (
            name.startswith("browser/"),
            chance or order.get(name, len(order)),
            name if chance else "",
        )

    if seed is not None:
        random.Random(seed).shuffle(items)
    items.sort(key=place)


def pytest_unconfigure():
    """Triton's bindings print 35 lines of "leaked" when a process ends."""
    if "triton" in sys.modules:
        atexit.register(os.dup2, os.open(os.devnull, os.O_WRONLY), 2)


def pytest_collection_finish():
    """A look through all that the tests imported takes half a second, in the middle of any test."""
    settle()
    count_engines()


def save_tiny_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes (258 tokens) with a ChatML template, written to `folder`."""
    vocabulary = {c: n for n, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for special in ("<|im_start|>", "<|im_end|>"):
        vocabulary[special] = len(vocabulary)
    letters = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=letters,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_tiny_llama(folder: Path, *, seed: int = 0, **sizes: int) -> Path:
    """A random Llama in fp32 with 4 heads and 2 of keys, and the tokenizer of bytes."""
    tokenizer = save_tiny_tokenizer(folder)
    torch.manual_seed(seed)
    marks = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        **marks,
        **sizes,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def tiny_settings(base: Path, root: Path, **said: object) -> Settings:
    """Of a tiny base in fp32 on the CPU, with adapters and data in `root`."""
    kind = {"base_model": str(base), "quantization": "none", "dtype": "float32", "device": "cpu"}
    return Settings(**kind | {"adapters_dir": root / "adapters", "data_dir": root / "data"} | said)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> Path:
    """Folder of a random 3-layer Llama in fp32; every size is different from every other."""
    sizes = {"hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 3}
    return save_tiny_llama(  # q 48, k and v 24
        tmp_path_factory.mktemp("tiny-llama"), head_dim=12, **sizes
    )


@pytest.fixture(scope="session")
def tiny_nf4(tmp_path_factory) -> Path:
    """The same in sizes that NF4 can pack, and one layer less."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    return save_tiny_llama(  # q 128, k and v 64
        tmp_path_factory.mktemp("tiny-nf4"), seed=1, head_dim=32, **sizes
    )


@pytest.fixture(scope="session")
def real_base_folder() -> Path:
    """Folder of the real base model, fetched and converted once for this user."""
    settings = Settings()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers, while it converts
        return fetch_base(Settings.model_fields["base_model"].default, data_dir=settings.data_dir)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No RAMOLE_* setting of the machine reaches a test (DATA_DIR holds the fetched base)."""
    for name in list(os.environ):
        if name.startswith("RAMOLE_") and name != "RAMOLE_DATA_DIR":
            monkeypatch.delenv(name)


@pytest.fixture
def home(tmp_path, tiny_llama, monkeypatch) -> Path:
    """Settings for a tiny base, an empty sample pool and an empty data folder."""
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    for name, value in {
        "BASE_MODEL": tiny_llama,
        "QUANTIZATION": "none",
        "DTYPE": "float32",
        "ADAPTERS_DIR": adapters,
        "DATA_DIR": tmp_path / "data",
    }.items():
        monkeypatch.setenv(f"RAMOLE_{name}", str(value))
    return tmp_path


@pytest.fixture
def two_threads():
    """For PyTorch and the kernels, however many the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def hub_server(monkeypatch):
    """A Hub on this machine, and the one that HF_ENDPOINT names."""
    from tests.support.hub_server import HubServer, serving

    with serving(HubServer()) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", "hf_operator")
        yield running


@pytest.fixture
def open_hub(tmp_path):
    """Opens a pool with a Hub beside it on one data folder, again and again."""
    from ramole_core.hub import Hub
    from ramole_core.pool import Limits
    from ramole_core.retrieval import AdapterIndex, Retriever
    from tests.support.adapter_files import SHAPES, open_pool
    from tests.support.hub_server import BASE
    from tests.support.word_encoder import WordEncoder

    held = []

    def close():
        for one in held:
            one.close()
        held.clear()

    def make(*, clock=time.time, **said):
        close()
        pool = open_pool(tmp_path, limits=Limits(max_upload_mb=1, max_rank=32))
        encoder = WordEncoder()
        retriever = Retriever(
            pool=pool, encoder=encoder, index=AdapterIndex(data_dir=tmp_path / "data")
        )
        pool.listeners.append(retriever)
        words = {"hub_base": BASE, "hub_adapters": True, **said}
        own = Settings(data_dir=tmp_path / "data", **words)
        how = {"shapes": lambda: SHAPES, "settings": own, "clock": clock}
        hub = Hub(pool, retriever, encoder=encoder, **how)
        held.extend([hub, retriever, pool])
        return hub

    yield make
    close()


@pytest.fixture
def outcomes(monkeypatch):
    """The outcome of each request that ended or was refused, as the page counts it."""
    from ui.watch import events

    found = []
    monkeypatch.setattr(events, "_listeners", [lambda record: found.append(record.outcome)])
    return found
