"""The command `doctor`: every setting with its origin, then each part checked in order of start.

A check is ok, a note (information) or broken (its sentence has the repair). A broken part does not
end the examination; what depends on it is left out.
"""

import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

import typer
from dotenv import dotenv_values

from ramole_core.cli.opening import Json
from ramole_core.errors import Busy, RamoleError
from ramole_core.methods import DEFAULT_METHOD
from ramole_core.settings import Settings, load_settings
from ramole_core.terminal.console import progress_bar, write_json, write_table

PACKAGES = (
    "torch",
    "transformers",
    "bitsandbytes",
    "peft",
    "sentence-transformers",
    "chromadb",
    "gradio",
)


@dataclass(frozen=True)
class SettingRow:
    """One setting of the environment; a password in it is not shown."""

    name: str
    value: str
    origin: Literal["default", "environment", ".env"]


@dataclass(frozen=True)
class Check:
    """The check of one part."""

    name: str
    state: Literal["ok", "note", "broken"]
    says: str


@dataclass(frozen=True)
class Report:
    """The result of `doctor`."""

    settings: tuple[SettingRow, ...]
    versions: dict[str, str]
    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is broken."""
        return all(check.state != "broken" for check in self.checks)

    def as_json(self) -> dict[str, object]:
        """The report as plain lists and dictionaries."""
        return {"healthy": self.healthy, **asdict(self)}


Gpu = Annotated[
    bool, typer.Option("--gpu", help="Hold a GPU's logits, answers and speed against the CPU's.")
]


def doctor(gpu: Gpu = False, as_json: Json = False) -> None:
    """Check settings, versions, model, pool, index and router; exit 2 where something is broken."""
    with progress_bar("Comparing" if gpu else "Checking") as tell:
        if gpu:
            from ramole_core.cli.gpu_check import check_gpu, show_gpu

            report = check_gpu(load_settings(), tell=tell)
            print_report = partial(show_gpu, report)
        else:
            report = examine(tell)
            print_report = partial(show, report)
    write_json(report.as_json()) if as_json else print_report()
    if not report.healthy:
        raise typer.Exit(2)


def show(report: Report) -> None:
    """Print the report as three tables."""
    write_table(
        ("setting", "value", "from"), [(r.name, r.value, r.origin) for r in report.settings]
    )
    print()
    write_table(("package", "version"), list(report.versions.items()))
    print()
    write_table(("check", "state", ""), [(c.name, c.state, c.says) for c in report.checks])


def examine(progress: Callable[[str, float], None]) -> Report:
    """Check every part; reports what a user can correct instead of raising it."""
    checks: list[Check] = []
    rows: tuple[SettingRow, ...] = ()
    try:
        settings = load_settings()
        rows = setting_rows(settings)
        checks.append(Check("settings", "ok", "every value is understood"))
        steps = (_data_dir, _device, _base_model, _encoder, _router, _pool_and_index)
        for number, step in enumerate(steps):
            progress(_title(step), number / len(steps))
            checks += _tried(step, settings)
    except RamoleError as error:
        checks.append(Check("settings", "broken", str(error)))
    return Report(settings=rows, versions=versions(), checks=tuple(checks))


def setting_rows(settings: Settings) -> tuple[SettingRow, ...]:
    """Each setting by the name of its variable, its value, and where that came from."""
    in_file, in_environment = (
        {name.upper() for name, value in said.items() if value}
        for said in (dotenv_values(".env"), os.environ)
    )
    rows = []
    for field in type(settings).model_fields:
        name = f"RAMOLE_{field.upper()}"
        value = getattr(settings, field)
        shown = "" if value is None else str(value)
        if field == "auth" and value:
            shown = ",".join(f"{pair.partition(':')[0]}:***" for pair in str(value).split(","))
        other = ".env" if name in in_file else "default"
        rows.append(SettingRow(name, shown, "environment" if name in in_environment else other))
    return tuple(rows)


def versions() -> dict[str, str]:
    """Python, the system and the packages that decide behaviour; a missing one says so."""
    found = {"python": platform.python_version(), "system": platform.platform(terse=True)}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def _tried(step: Callable[[Settings], Iterator[Check]], settings: Settings) -> list[Check]:
    """Run a step's checks; an error becomes a broken check of the step's name."""
    found: list[Check] = []
    try:
        found += step(settings)
    except Busy as error:
        found.append(Check(_title(step), "note", f"not looked at: {error}"))
    except (RamoleError, OSError, ImportError) as error:
        found.append(Check(_title(step), "broken", " ".join(str(error).split())))
    return found


def _title(step: Callable[[Settings], Iterator[Check]]) -> str:
    return step.__name__.strip("_").replace("_", " ")


def _data_dir(settings: Settings) -> Iterator[Check]:
    folder = settings.data_dir
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize / 2**30
    yield Check("data dir", "ok" if free > 1 else "note", f"writable, {free:.1f} GiB free")


def _device(settings: Settings) -> Iterator[Check]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if settings.device == "cuda" and not gpus:
        says = "RAMOLE_DEVICE=cuda, but torch finds no GPU; set it to auto, or mend the driver."
        yield Check("device", "broken", says)
    elif gpus and settings.device != "cpu":
        yield Check("device", "ok", f"GPU {', '.join(gpus)}")
    else:
        threads = torch.get_num_threads()
        yield Check("device", "ok", f"CPU, {threads} thread{'s' * (threads > 1)}")
    if gpus and settings.device != "cpu" and settings.quantization in ("auto", "nf4"):
        import bitsandbytes  # noqa: F401  (that it can be imported is the check)

        yield Check("4-bit", "ok", "bitsandbytes can be imported")


def _base_model(settings: Settings) -> Iterator[Check]:
    from ramole_core.base.fetch import find_base
    from ramole_core.base.shapes import read_shapes
    from ramole_core.base.step_time import speed_of_products

    folder = find_base(settings.base_model, data_dir=settings.data_dir)
    if folder is None:
        says = f"{settings.base_model} is not here yet; the first use fetches it"
        yield Check("base model", "note", says)
    else:
        yield Check("base model", "ok", f"{len(read_shapes(folder))} linear layers in {folder}")
        yield _chat_template(settings, folder)
        yield _served(settings, folder)
        if says := speed_of_products(settings, folder):
            yield Check("products", "ok", says)


def _served(settings: Settings, folder: Path) -> Check:
    """The verdict of loading on the base's architecture; loads it where none has been."""
    from ramole_core.engine.build import kept_verdict
    from ramole_core.own_model import load_here

    verdict = kept_verdict(settings, folder)
    if verdict is None:
        load_here(settings, lambda *_: None)
        verdict = kept_verdict(settings, folder)
    return Check("architecture", "ok", "not kept" if verdict is None else str(verdict))


def _chat_template(settings: Settings, folder: Path) -> Check:
    from ramole_core.base.chat_template import note_on
    from ramole_core.base.model import load_tokenizer

    tokenizer = load_tokenizer(settings.base_model, folder, chat_template=settings.chat_template)
    if note := note_on(tokenizer):
        return Check("chat template", "note", note)
    set_so = " of RAMOLE_CHAT_TEMPLATE" if settings.chat_template else ""
    return Check("chat template", "ok", f"writes a user's turn{set_so}")


def _encoder(settings: Settings) -> Iterator[Check]:
    from ramole_core.retrieval import Encoder

    tuning = settings.trained("_retriever")
    encoder = Encoder(settings.encoder, data_dir=settings.data_dir, adapter=tuning)
    vector = encoder.embed(["a sentence"])
    tuned = f", tuned by {tuning}" if encoder.tuned else ""
    yield Check("encoder", "ok", f"{settings.encoder}, {vector.shape[1]} dimensions{tuned}")


def _router(settings: Settings) -> Iterator[Check]:
    from ramole_core.methods import find_row
    from ramole_core.weights_here import WeightsHere

    file = settings.trained("_router") / "router.safetensors"
    here = WeightsHere(
        settings.adapters_dir, base_model=settings.base_model, data_dir=settings.data_dir
    )
    if not file.is_file():
        says = f"no trained router at {file}; method ramole needs one, {DEFAULT_METHOD} none"
        yield Check("router", "note", says)
    elif here.fits(find_row("ramole")):
        yield Check("router", "ok", str(file))
    else:
        says = (
            f"{file} is of another base model; method ramole needs one of this (`python -m "
            f"ramole_core train router`), {DEFAULT_METHOD} none"
        )
        yield Check("router", "note", says)


def _pool_and_index(settings: Settings) -> Iterator[Check]:
    from ramole_core.ramole import Ramole

    with Ramole(settings) as ramole:
        cards = ramole.pool.all_cards()
        for problem in ramole.pool.problems:
            yield Check("pool", "broken", problem)
        shared = sum(card.owner is None for card in cards)
        state = "ok" if cards else "note"
        yield Check("pool", state, f"{shared} shared adapters, {len(cards) - shared} of owners")
        if cards:
            report = ramole.retriever.check()
            yield Check("index", "ok", str(report))
            if ramole.base_expert.calibrated:
                yield Check("base as an expert", "ok", "calibrated for this encoder")
            else:
                says = "not calibrated for this encoder; run `python -m ramole_core calibrate`"
                yield Check("base as an expert", "note", says)
