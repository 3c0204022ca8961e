"""The base model that the settings name, for commands; its download is shown on standard error."""

from ramole_core.base.model import BaseModel, load_base
from ramole_core.settings import load_settings


def load_configured_base(quantization: str | None = None) -> BaseModel:
    """Load it, quantised as the settings say or as is given; raises RamoleError where it cannot be
    had."""
    settings = load_settings()
    return load_base(
        settings.base_model,
        data_dir=settings.data_dir,
        quantization=quantization or settings.quantization,
        dtype=settings.dtype,
        device=settings.device,
        chat_template=settings.chat_template,
    )
