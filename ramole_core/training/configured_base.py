"""The base model that the settings name, for commands; its download is shown on standard error."""

from ramole_core.base.model import BaseModel, load_base
from ramole_core.settings import load_settings


def load_configured_base(quantization: str | None = None) -> BaseModel:
    """Load the base, quantised by the settings or as given; raises RamoleError where it cannot be
    loaded."""
    settings = load_settings()
    return load_base(
        settings.base_model,
        data_dir=settings.data_dir,
        quantization=quantization or settings.quantization,
        dtype=settings.dtype,
        device=settings.device,
        chat_template=settings.chat_template,
    )
